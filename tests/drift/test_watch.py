"""What is known of a camera's line outlives restarts, follows the model, and tells since when something has changed."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from agent.config import Config
from agent.contract.measures import Reference, format_reference, make_reference
from agent.drift import watch as drift_watch
from agent.drift.watch import DriftWatch
from agent.housekeeping import Housekeeping
from agent.ledger import NewResult, open_ledger
from agent.ledger import strips as ledger_strips
from agent.ledger.drift import KEPT
from agent.records import FileIdentity, HeatmapFiles, Judgement, SettledFile
from agent.supervision import Slot
from tests.helpers.measures import make_measures
from tests.strips.bench import LOADED, FakeWorker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.contract.measures import Measures

DAY_MS = 86_400_000
NOON_MS = 1_795_348_800_000  # 2026-11-22, 12:00 UTC
USUAL = make_measures()
DARK = replace(USUAL, level_target=150.0)
JUDGEMENT = Judgement(
    score=0.2, threshold=0.5, anomalous=False, anomaly_area_px=0, defect_count=0, peak_row=0, peak_col=0,
    rescaled=False, inference_ms=1.0, digest="d", heatmaps=HeatmapFiles(),
)  # fmt: skip


class Line:
    """A ledger, a slot with a worker, the watch, and a clock that a test moves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, enabled: bool = True) -> None:
        self.folder = folder
        self.now_ms = NOON_MS
        monkeypatch.setattr(ledger_strips, "now_ms", lambda: self.now_ms)
        monkeypatch.setattr(drift_watch, "now_ms", lambda: self.now_ms)
        self.config = Config.model_validate(
            {
                "agent": {"state_folder": str(folder)},
                "cameras": [{"name": name, "folder": str(folder / name)} for name in ("top", "side")],
                "drift": {"enabled": enabled},
            }
        )
        self._numbers = count(1)
        self.slot = Slot("default")
        self.ledger = open_ledger(folder / "ledger.db")
        self.watch = DriftWatch(self.config, self.ledger, {"default": self.slot})

    def restart(self) -> None:
        """End the service and begin another one."""
        self.ledger.database.close()
        self.ledger = open_ledger(self.folder / "ledger.db")
        self.watch = DriftWatch(self.config, self.ledger, {"default": self.slot})

    def activate(self, model: str, reference: Reference | None = None) -> None:
        """Let a model judge."""
        self.worker = FakeWorker(self.config, self.folder, {}, model)
        self.worker.facts = replace(LOADED, reference=format_reference(reference) if reference else "")
        self.slot.offer(self.worker)
        self.slot.adopt()

    def judge(self, number: int, look: Measures | None, camera: str = "top") -> None:
        """Commit so many strips that look so, as the journey does."""
        for _ in range(number):
            name = f"{next(self._numbers)}.tif"
            self.ledger.strips.begin([SettledFile(camera, name, FileIdentity(10, 1, 1))])
            strip = self.ledger.strips.next_waiting(camera, 0, ())
            assert strip is not None
            model = self.worker.setup.model_sha256
            result = NewResult("ok", "", 0.2, model, 0, "d", "event/strip/top", dispose=False, measures=look)
            assert self.ledger.strips.commit(strip, result, lambda *_: b"{}", 10**6)
            self.watch.note(strip, replace(JUDGEMENT, measures=look), self.worker)

    def rows(self, table: str) -> int:
        """Count a table's rows."""
        with self.ledger.database.reading() as db:
            return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a constant


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Make a line on which nothing has been judged."""
    made = Line(tmp_path, monkeypatch)
    yield made
    made.ledger.database.close()


def stamped(stretched: bool = False) -> Reference:
    """Make the reference of a model's file."""
    looks = [replace(USUAL, level_target=198.0 + place / 2) for place in range(10)]
    made = make_reference(looks, stretched=stretched, good_below=0.5)
    assert made is not None
    return made


def test_a_change_is_told_with_its_day_and_strips_and_stands_after_a_restart(line: Line) -> None:
    """The day on which it began is the first of an unbroken row, not that of the alarm."""
    line.activate("1" * 64, stamped())
    line.judge(60, USUAL)
    line.watch.alarms()
    line.now_ms += DAY_MS
    line.judge(15, DARK)
    assert line.watch.alarms() == {}
    line.now_ms += DAY_MS
    line.judge(30, DARK)
    (name,) = line.watch.alarms()
    assert name == "camera_top_drift_light"
    text = line.watch.alarms()[name]
    assert "the target's brightest places have the grey level 150, not the 200 of the calibration" in text.lower()
    assert "since 2026-11-23" in text
    assert "for example" in text
    line.restart()
    assert line.watch.alarms() == {name: text}
    line.judge(40, USUAL)
    assert line.watch.alarms() == {}


def test_a_camera_without_a_reference_makes_one_of_its_first_strips(line: Line) -> None:
    """Each camera its own; it is kept over a restart, and what it says is told from the calibration's."""
    line.activate("2" * 64)
    line.judge(99, USUAL)
    line.judge(30, DARK, camera="side")
    facts = line.watch.facts()
    assert (facts["top"]["reference"], facts["top"]["learned"], facts["side"]["learned"]) == ("none", 99, 30)
    line.judge(1, USUAL)
    assert line.watch.facts()["top"]["reference"] == "first strips"
    line.restart()
    line.judge(40, DARK)
    line.judge(70, DARK, camera="side")
    alarms = line.watch.alarms()
    assert [*alarms] == ["camera_top_drift_light"], "the other camera has always been like that"
    assert "the camera's first strips" in alarms["camera_top_drift_light"]


def test_two_cameras_of_one_slot_are_looked_at_apart(line: Line) -> None:
    """The one that changes is named."""
    line.activate("3" * 64, stamped())
    for _ in range(40):
        line.judge(1, USUAL)
        line.judge(1, DARK, camera="side")
    assert [*line.watch.alarms()] == ["camera_side_drift_light"]


def test_a_new_model_is_asked_for_its_own_strips(line: Line) -> None:
    """It may have been calibrated with what was a change for the one before; back again, the old one still knows."""
    line.activate("4" * 64, stamped())
    line.judge(40, DARK)
    assert line.watch.alarms()
    dark = make_reference(
        [replace(DARK, level_target=148.0 + n / 2) for n in range(10)], stretched=False, good_below=0.5
    )
    line.activate("5" * 64, dark)
    assert line.watch.alarms() == {}
    line.judge(40, DARK)
    assert line.watch.alarms() == {}
    line.activate("4" * 64, stamped())
    assert [*line.watch.alarms()] == ["camera_top_drift_light"]


def test_strips_that_cannot_be_compared_are_counted_and_nothing_else(line: Line) -> None:
    """Stretched ones where the calibration's were not."""
    line.activate("6" * 64, stamped())
    line.watch.facts()
    line.judge(30, None)
    assert line.watch.facts()["top"]["not_compared"] == 30
    assert (line.rows("looks"), line.rows("sketches"), line.watch.alarms()) == (0, 0, {})


def test_strips_that_are_judged_again_do_not_count_twice(line: Line) -> None:
    """A retry of a hundred dark strips from last week says nothing about today."""
    line.activate("7" * 64, stamped())
    line.judge(1, USUAL)
    line.ledger.strips.retry([1])
    strip = line.ledger.strips.next_waiting("top", 2, ())
    assert strip is not None
    result = NewResult("ok", "", 0.2, "7" * 64, 0, "d", "t", dispose=False, measures=DARK)
    assert line.ledger.strips.commit(strip, result, lambda *_: b"{}", 10**6) == 2
    assert line.rows("looks") == 1


def test_only_the_last_strips_and_the_days_that_are_kept_stay(line: Line) -> None:
    """A ledger of years is no larger for it."""
    line.activate("8" * 64, stamped())
    for _ in range(KEPT + 10):  # in turns: no number of a strip decides
        line.judge(1, USUAL)
        line.judge(1, USUAL, camera="side")
    line.watch.alarms()
    assert line.rows("looks") == 2 * KEPT
    rows = line.rows("sketches")
    line.activate("b" * 64, stamped())
    line.now_ms += 100 * DAY_MS
    line.judge(1, USUAL)
    assert line.rows("sketches") == rows + rows // 2
    housekeeping = Housekeeping(line.config, line.ledger, clock=lambda: 0.0, wall_ms=lambda: line.now_ms)
    assert line.rows("own_references") == 2
    housekeeping.forget_old_rows()
    assert line.rows("sketches") == rows // 2
    assert line.rows("own_references") == 0, "that model has not judged for long"


def test_a_result_that_cannot_be_written_leaves_no_look_behind(line: Line) -> None:
    """Looks and sketches are written with the result or not at all."""
    line.activate("9" * 64, stamped())
    line.ledger.strips.begin([SettledFile("top", "a.tif", FileIdentity(10, 1, 1))])
    strip = line.ledger.strips.next_waiting("top", 0, ())
    assert strip is not None
    result = NewResult("ok", "", 0.2, "m", 0, "d", "t", dispose=False, measures=USUAL)
    with line.ledger.database.transaction() as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON sketches BEGIN SELECT RAISE(FAIL, 'full'); END")
    with pytest.raises(Exception, match="full"):
        line.ledger.strips.commit(strip, result, lambda *_: b"{}", 10**6)
    assert (line.rows("results"), line.rows("looks"), line.rows("outbox")) == (0, 0, 0)


def test_switched_off_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`drift: {enabled: false}`; the worker does not measure then either."""
    line = Line(tmp_path, monkeypatch, enabled=False)
    line.activate("a" * 64, stamped())
    assert line.worker.setup.measures is False
    line.judge(40, None)
    assert (line.watch.alarms(), line.watch.facts()) == ({}, {})
    line.ledger.database.close()
