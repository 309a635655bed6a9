"""How strips look on the page *Trend*: charts against the reference, what has changed, or why nothing is said."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from agent.contract.measures import NAMES
from agent.control import on_drift
from agent.control.commands import handle
from agent.control.for_pages import WEB_USER
from agent.drift import wording
from agent.drift.judging import OWN_STRIPS, Finding, Moved
from agent.drift.watch import DriftWatch
from agent.web import charts, trend
from agent.web.texts import Words
from tests.drift.test_watch import DARK, DAY_MS, USUAL, Line, stamped
from tests.web import served
from tests.web.served import ServedBox

if TYPE_CHECKING:
    from pathlib import Path


class WatchedBox(ServedBox):
    """A box whose drift is watched; `line` judges strips that look as a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> None:
        super().__init__(folder, live=self.facts, **sections)
        self.asked_by = WEB_USER
        self.line = Line(folder, monkeypatch)
        self.line.ledger.database.close()
        self.line.config, self.line.ledger = self.config, self.ledger
        self.line.watch = DriftWatch(self.config, self.ledger, {"default": self.line.slot})
        monkeypatch.setattr(on_drift, "now_ms", lambda: self.line.now_ms)

    def facts(self) -> dict[str, Any]:
        """Tell what a running service would."""
        return {"health": {}, "drift": self.line.watch.facts()}

    def page(self, **query: str) -> str:
        """Open the page."""
        with self.browser() as browser:
            answer = browser.get("/trend", params={"camera": "top", **query})
            assert answer.status_code == 200
            return answer.text


def test_a_change_is_shown_with_its_chart_its_day_and_its_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five charts, of which one has changed: since which day, from what to what, what to do, and strips to look at."""
    with WatchedBox(tmp_path, monkeypatch) as box:
        box.line.activate("1" * 64, stamped())
        box.line.judge(30, USUAL)
        box.line.now_ms += DAY_MS
        box.line.judge(40, DARK)
        page = box.page()
        told = handle(box.context, {"command": "page_drift", "camera": "top"}, WEB_USER)
    assert page.count('class="look') == len(told["causes"]) + 1  # and the grid around them
    assert [one["cause"] for one in told["causes"] if one["changed"]] == ["light"]
    light = told["causes"][0]
    assert (light["measure"], light["began"]) == ("level_target", "2026-11-23")
    assert [(one["day"], one["strips"]) for one in light["days"]] == [("2026-11-22", 30), ("2026-11-23", 40)]
    assert [one["middle"] for one in light["days"]] == pytest.approx([200, 150], rel=0.02)
    assert "The line has changed" in page
    assert "changed, since 2026-11-23" in page
    assert "Now 150, reference 200" in page
    assert "Lamp, aperture, exposure" in page
    assert re.findall(r"/strips/([0-9a-f]{16})/1/thumb.png", page) == light["examples"]


def test_a_line_that_looks_as_ever_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With charts, and no strip to look at."""
    with WatchedBox(tmp_path, monkeypatch) as box:
        box.line.activate("1" * 64, stamped())
        box.line.judge(25, USUAL)
        page = box.page()
    assert "Strips look as the model knows them" in page
    assert "Compared with the 10 calibration strips" in page
    assert "has-changed" not in page


@pytest.mark.parametrize(("strips", "said"), [(7, "7 have come"), (OWN_STRIPS, "this camera&#39;s first 100 strips")])
def test_a_model_without_a_stamp_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strips: int, said: str
) -> None:
    """How many strips are missing until the camera has a reference of its own; then that it is one."""
    with WatchedBox(tmp_path, monkeypatch) as box:
        box.line.activate("1" * 64)
        box.line.judge(strips, USUAL)
        assert said in box.page()


def test_why_nothing_is_said_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model, switched off, no service, a service of an earlier release: a sentence each, never a failed page."""
    with WatchedBox(tmp_path / "a", monkeypatch) as box:
        assert "No model has judged strips" in box.page()
        box.context.live = None
        assert "Only the running service knows." in box.page()

        def of_an_earlier_release(context: Any, request: dict[str, Any], by: str) -> dict[str, Any]:
            known = {**request, "command": request["command"].replace("page_drift", "nothing")}
            return handle(context, known, by)

        monkeypatch.setattr(served, "handle", of_an_earlier_release)
        assert "earlier release" in box.page()
    monkeypatch.setattr(served, "handle", handle)
    with WatchedBox(tmp_path / "b", monkeypatch, drift={"enabled": False}) as box:
        assert "Not watched" in box.page()


def test_only_configured_cameras_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another name is refused with words."""
    with WatchedBox(tmp_path, monkeypatch) as box:
        answer = handle(box.context, {"command": "page_drift", "camera": "nothing"}, WEB_USER)
    assert answer["code"] == "refused"


def test_a_camera_without_scores_to_compare_is_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every strip is hot there is no middle of good ones: a chart without a line, not a failed page."""
    with WatchedBox(tmp_path, monkeypatch) as box:
        box.line.activate("1" * 64, stamped())
        box.line.judge(25, replace(USUAL, score=0.9))
        assert "How strips look" in box.page()


def measure(**values: Any) -> dict[str, Any]:
    """Make a measure as `page_drift` tells it."""
    return {"limit_low": 180.0, "limit_high": 220.0, "reference": 200.0, "days": [], **values}


def test_a_chart_has_a_place_for_every_day_and_breaks_where_nothing_came() -> None:
    """Days are as wide as each other, the last one is today, and everything that is drawn lies inside."""
    days = [{"day": f"2026-11-{day:02}", "middle": middle} for day, middle in ((1, 200), (2, 150), (4, 260))]
    drawn = charts.look(measure(days=days), date(2026, 11, 8))
    assert (drawn.first_day, drawn.last_day) == ("2026-11-01", "2026-11-08")
    assert [one[0] for one in re.findall(r"[ML][0-9.]+ [0-9.]+", drawn.line)] == ["M", "L", "M"]
    points = [(float(x), float(y)) for x, y in re.findall(r"([0-9.]+) ([0-9.]+)", drawn.line)]
    assert [x for x, _ in points] == [62.5, 187.5, 437.5]
    assert points[2][1] < drawn.band.y < drawn.reference < drawn.band.y + drawn.band.height < points[1][1]
    assert all(0 < y < charts.HEIGHT for _, y in points)


def test_a_chart_without_days_or_without_room_is_drawn() -> None:
    """Nothing is divided by nothing."""
    assert charts.look(measure(), date(2026, 11, 8)).line == ""
    flat = measure(limit_low=0.0, limit_high=0.0, reference=0.0, days=[{"day": "2026-11-08", "middle": 0.0}])
    assert charts.look(flat, date(2026, 11, 8)).reference == charts.HEIGHT / 2


def test_what_has_changed_is_said_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers of the English sentence, of which nothing is left."""
    with WatchedBox(tmp_path, monkeypatch, web={"language": "zh-TW"}) as box:
        box.line.activate("1" * 64, stamped())
        box.line.judge(30, USUAL)
        box.line.now_ms += DAY_MS
        box.line.judge(40, DARK)
        page = box.page()
        (english,) = box.line.watch.facts()["top"]["changed"].values()
    assert "grey level" not in page
    found, was = re.findall(r"level (\d+), not the (\d+)", english)[0]
    words = Words("zh-TW")
    level = words("finding.level", channel="目標", found=found, was=was, reference="校正影像")
    assert level + words("finding.since", day="2026-11-23") in page


@pytest.mark.parametrize("measure", [*NAMES, "hot"])
def test_every_sentence_is_there_in_chinese(measure: str) -> None:
    """Of each measure that may show a change, with the numbers of its English."""
    moved = Moved(measure, 0.25, 0.5, 0.1, 50)
    parts = wording.parts(moved, of_calibration=False)
    said = trend.finding(Words("zh-TW"), parts, "2026-11-23")
    english = wording.sentence(Finding("light", moved, moved, ()), "2026-11-23", of_calibration=False)
    for sentence in (said, english):
        assert "{" not in sentence
        assert parts["found"] in sentence
        assert parts["was"] in sentence
    assert said.endswith(Words("zh-TW")("finding.since", day="2026-11-23"))
