"""What the ledger forgets and what it never does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.cli import show
from agent.config import Config
from agent.control.commands import handle
from agent.control.context import Context
from agent.housekeeping import Housekeeping
from agent.ledger import Changes, Ledger, NewResult, open_ledger
from agent.ledger.strips import LIVE
from agent.records import FileIdentity, SettledFile
from agent.strips.finished_files import CameraFiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOR_EVER = 2**62
PLENTY = 1_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def config(tmp_path: Path) -> Config:
    """Configure one camera, `top`, whose files stay where they are."""
    return Config.model_validate(
        {"agent": {"state_folder": str(tmp_path)}, "cameras": [{"name": "top", "folder": str(tmp_path / "camera")}]}
    )


def judge(ledger: Ledger, name: str, *, camera: str = "top", dispose: bool = False, max_messages: int = PLENTY) -> int:
    """Bring a strip to its result; return its row."""
    ledger.strips.begin([SettledFile(camera, name, FileIdentity(10, 1, 1))])
    strip = ledger.strips.next_waiting(camera, LIVE, ())
    assert strip is not None
    result = NewResult("ok", "", 0.1, "m", 0, "d", "event/strip/top", dispose=dispose)
    ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), max_messages)
    return strip.row


def acknowledge_all(ledger: Ledger) -> None:
    """Let the broker have everything."""
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 1000)])


def add_event(ledger: Ledger, name: str, max_messages: int = PLENTY) -> None:
    """Queue a message that is no strip result."""
    topic = "event/model/default"
    number = ledger.models.told_up_to("default") + 1
    ledger.models.record(Changes("default", {}), number, topic, lambda _: name.encode(), max_messages)


def states(ledger: Ledger) -> dict[str, str]:
    """Return path -> state."""
    return {row["file"]: row["state"] for row in ledger.report.list_strips(state=None, camera=None, limit=1000)}


def test_only_what_the_broker_has_acknowledged_is_forgotten(ledger: Ledger) -> None:
    """Skipped and dropped strips are named for ever: nobody else knows of them."""
    judge(ledger, "dropped.tif")
    judge(ledger, "sent.tif", max_messages=1)
    acknowledge_all(ledger)
    judge(ledger, "judged.tif")
    ledger.strips.begin([SettledFile("top", "skipped.tif", FileIdentity(10, 1, 1), backlog=True, skip=True)])
    ledger.strips.begin([SettledFile("top", "waiting.tif", FileIdentity(10, 1, 1))])
    assert [strip.path for strip in ledger.purge.old_strips("top", FOR_EVER, 0, 100)] == ["sent.tif"]
    ledger.purge.forget(list(range(1, 6)))
    assert set(states(ledger)) == {"dropped.tif", "judged.tif", "skipped.tif", "waiting.tif"}
    audit = ledger.report.audit()
    assert audit.balanced, audit.problems
    assert (len(audit.unpublished), audit.unpublished_not_named) == (4, 0)


def test_a_strip_that_is_retried_while_its_row_is_to_be_forgotten_stays(ledger: Ledger) -> None:
    """Between the look and the deletion a command may come; what waits is never deleted."""
    row = judge(ledger, "a.tif")
    acknowledge_all(ledger)
    (old,) = ledger.purge.old_strips("top", FOR_EVER, 0, 100)
    ledger.strips.retry([row])
    ledger.purge.forget([old.row])
    assert states(ledger) == {"a.tif": "waiting"}
    assert ledger.report.audit().balanced


def test_old_events_are_forgotten_however_they_ended(ledger: Ledger) -> None:
    """Acknowledged, parked or dropped, but never one that still waits."""
    for name in ("acknowledged", "parked", "dropped"):
        add_event(ledger, name)
    ledger.outbox.acknowledge([1])
    ledger.outbox.park(2, "too_large")
    add_event(ledger, "waits", 1)
    depths = ledger.report.depths()
    assert (depths.outbox_parked, depths.outbox_dropped, depths.outbox_pending) == (1, 1, 1)
    ledger.purge.forget_events(1)
    assert ledger.report.depths() == depths, "none of them is old"
    ledger.purge.forget_events(FOR_EVER)
    depths = ledger.report.depths()
    assert (depths.outbox_parked, depths.outbox_dropped, depths.outbox_pending) == (0, 0, 1)


def test_files_stay_once_the_configuration_says_so(ledger: Ledger, tmp_path: Path) -> None:
    """`when_done` back to keep, or a camera taken out: what was due is not due any more, and can be tried again."""
    mine, other = (judge(ledger, "a.tif", camera=camera, dispose=True) for camera in ("top", "gone"))
    acknowledge_all(ledger)
    assert set(ledger.strips.retry([mine, other])) == {mine, other}
    files = CameraFiles(config(tmp_path).cameras[0], ledger, keep_days=1, folder_is_away=lambda _: False)
    files.step()
    assert ledger.strips.due_for_disposal("top", 0, 10) == []
    assert ledger.strips.due_for_disposal("gone", 0, 10) != []
    Housekeeping(config(tmp_path), ledger).step()
    assert ledger.strips.retry([mine, other]) == {}


def test_strips_of_a_camera_that_was_taken_out_are_named(ledger: Ledger, tmp_path: Path) -> None:
    """Nobody will ever score them: the status and the audit say so, in words."""
    ledger.strips.begin([SettledFile(camera, "a.tif", FileIdentity(10, 1, 1)) for camera in ("top", "gone")])
    context = Context(config(tmp_path), ledger, {})
    audit = handle(context, {"command": "audit"}, "tester")
    assert {item["camera"]: "for ever" in item["why"] for item in audit["unpublished"]} == {"top": False, "gone": True}
    assert audit["balanced"]
    status = handle(context, {"command": "status"}, "tester")
    assert status["abandoned"] == {"gone": 1}
    assert "gone: not configured any more; 1 of its strips wait for ever" in show.status(status)
