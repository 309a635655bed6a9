"""Trend and what-if through the handler: what may be asked, in which unit, and that asking changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Config
from agent.control.commands import handle
from agent.control.for_pages import WEB_USER

if TYPE_CHECKING:
    from agent.control.context import Context


def scored_by(box: Context, method: str) -> Context:
    """Give the same ledger to a box that scores so."""
    scoring = {"method": method, "threshold": 5.0 if method == "area" else 0.5}
    return replace(box, config=Config.model_validate(box.config.model_dump() | {"scoring": scoring}))


def ask(box: Context, command: str, **arguments: Any) -> dict[str, Any]:
    """Ask as the page does, and expect an answer."""
    answer = handle(box, {"command": command, "camera": "top", **arguments}, WEB_USER)
    assert answer.pop("ok"), answer
    return answer


def test_the_last_day_is_what_is_told_by_default(box: Context) -> None:
    """Three strips with a score of 0.1, of just now."""
    found = ask(box, "trend")
    assert (found["results"], found["in_pixels"], found["exact"]) == (3, False, True)
    assert found["to_ms"] - found["from_ms"] == 86_400_000
    assert found["bins"][5] == {"low": 0.1, "high": 0.12, "ok": 3, "anomalous": 0}
    assert ask(box, "trend", to_ms=found["from_ms"])["results"] == 0


def test_what_if_asks_in_the_unit_of_the_scores(box: Context) -> None:
    """Scores of 0 to 1 say nothing about a threshold in pixels: they are counted as another unit, and never flip."""
    found = ask(box, "what_if", threshold=0.05)
    assert (found["looked_at"], found["to_anomalous"], len(found["flips"])) == (3, 3, 3)
    area = ask(scored_by(box, "area"), "what_if", threshold=0.05)
    assert (area["in_pixels"], area["judged"], area["other_unit"], area["to_anomalous"]) == (True, 0, 3, 0)
    assert ask(scored_by(box, "area"), "trend")["other_unit"] == 3


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("trend", {"from_ms": 5, "to_ms": 5}, "ends before it begins"),
        ("trend", {"from_ms": -1}, "from_ms"),
        ("trend", {"to_ms": 1 << 62}, "to_ms"),
        ("trend", {"camera": ""}, "camera"),
        ("what_if", {"threshold": 1.5}, "from 0 to 1"),
        ("what_if", {"threshold": -0.1}, "from 0 to 1"),
        ("what_if", {"threshold": float("nan")}, "threshold"),
        ("what_if", {}, "threshold"),
        ("what_if", {"threshold": 0.5, "last": 0}, "last"),
        ("what_if", {"threshold": 0.5, "last": 100_001}, "last"),
        ("what_if", {"threshold": 0.5, "set": True}, "no such argument"),
    ],
)
def test_what_cannot_be_meant_is_refused(box: Context, command: str, arguments: dict[str, Any], said: str) -> None:
    """Nothing endless, no time that is none, no threshold that no score could reach."""
    answer = handle(box, {"command": command, "camera": "top", **arguments}, WEB_USER)
    assert not answer["ok"]
    assert said in answer["error"]


def test_asking_changes_nothing(box: Context) -> None:
    """Not a row of the ledger, and no event."""
    before = [*box.ledger.database._connection.iterdump()]
    ask(box, "trend")
    ask(box, "what_if", threshold=0.0, last=100_000)
    assert [*box.ledger.database._connection.iterdump()] == before
