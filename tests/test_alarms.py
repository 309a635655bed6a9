"""Alarms as events: each told once when it is raised and once when it is cleared, whatever happens in between."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agent.alarms import CALM_SECONDS, OFF_DELAY_SECONDS, START_SECONDS, AlarmTeller
from agent.config import Config
from agent.errors import Reason, Retry
from agent.ledger import Ledger, open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MISSING = "camera_top_missing"
WALL_MS = 1_795_391_301_444


class Teller:
    """A teller on a real ledger, with clocks that a test moves."""

    def __init__(self, path: Path, max_messages: int = 1000) -> None:
        self.path = path
        self.seconds = 1000.0
        self.outbox = {"max_messages": max_messages}
        self.restart()

    def restart(self, *, kill: bool = False) -> None:
        """End the run, by a kill that closes nothing, and begin another one."""
        if hasattr(self, "ledger") and not kill:
            self.ledger.database.close()
        self.ledger: Ledger = open_ledger(self.path)
        camera = {"name": "top", "folder": "/srv/cameras/top"}
        config = Config.model_validate({"cameras": [camera], "outbox": self.outbox})
        self.teller = AlarmTeller(config, self.ledger, clock=lambda: self.seconds, wall_ms=self.wall_ms)

    def wall_ms(self) -> int:
        """Follow the other clock."""
        return WALL_MS + int((self.seconds - 1000) * 1000)

    def run(self, seconds: float, *present: str, unknown: tuple[str, ...] = ()) -> None:
        """Look once a second, so many times."""
        for _ in range(int(seconds)):
            self.teller.follow(present, unknown)
            self.seconds += 1

    def told(self) -> list[dict[str, Any]]:
        """Return all events in the outbox, in their order."""
        with closing(sqlite3.connect(self.path)) as db:
            rows = db.execute("SELECT payload FROM outbox WHERE topic = 'event/alarm' ORDER BY id").fetchall()
        return [json.loads(payload) for (payload,) in rows]

    def states(self) -> list[tuple[str, str]]:
        """Return their codes and what became of them."""
        return [(event["code"], event["state"]) for event in self.told()]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Teller]:
    """Make a teller on a new ledger."""
    teller = Teller(tmp_path / "ledger.db")
    yield teller
    teller.ledger.database.close()


def test_an_alarm_is_told_when_it_comes_and_when_it_has_gone(box: Teller) -> None:
    """Both events carry when it began; the second one when it ended, not when that was believed."""
    box.run(3, MISSING)
    box.run(OFF_DELAY_SECONDS + 1)
    raised, cleared = box.told()
    assert raised == {
        "schema": "alarm-event/1",
        "msg_id": f"{box.ledger.database.stream}-a1",
        "agent": "insp1",
        "code": "camera_missing",
        "source": "camera/top",
        "state": "raised",
        "priority": "high",
        "text": "The camera's folder is not there, or nothing is mounted where it was; its strips wait.",
        "since_ts": "2026-11-22T23:48:21.444Z",
        "since_ms": WALL_MS,
        "ts": "2026-11-22T23:48:21.444Z",
        "ts_ms": WALL_MS,
    }
    changed = {"msg_id": f"{box.ledger.database.stream}-a2", "state": "cleared", "ts_ms": WALL_MS + 3000}
    assert cleared == raised | changed | {"ts": "2026-11-22T23:48:24.444Z"}


def test_an_alarm_that_is_away_for_less_than_five_seconds_has_not_gone(box: Teller) -> None:
    """A fault that flickers is one fault."""
    for _ in range(100):
        box.run(1, MISSING)
        box.run(OFF_DELAY_SECONDS - 1)
    assert box.states() == [("camera_missing", "raised")]


def test_an_alarm_that_flaps_for_a_week_costs_few_messages(box: Teller) -> None:
    """Each time it has to be away for longer; in the end it just stays raised, until it is really over."""
    for _ in range(7 * 24 * 60):
        box.run(30, MISSING)
        box.run(30)
    assert len(box.told()) < 20
    box.run(CALM_SECONDS)
    assert box.states()[-1] == ("camera_missing", "cleared")
    box.run(CALM_SECONDS)
    told = len(box.told())
    box.run(1, MISSING)
    box.run(OFF_DELAY_SECONDS + 1)
    assert len(box.told()) == told + 2, "after a quiet time it is cleared after five seconds again"


@pytest.mark.parametrize("period", [12, 100, 650])
def test_no_period_of_flapping_makes_a_flood(box: Teller, period: int) -> None:
    """Whatever the fault's rhythm, a day brings no more than a dozen messages an hour."""
    for _ in range(24 * 3600 // period):
        box.run(period / 2, MISSING)
        box.run(period / 2)
    assert len(box.told()) <= 24 * 12


@pytest.mark.parametrize("kill", [False, True])
def test_an_alarm_that_lasts_over_a_restart_is_not_raised_again(box: Teller, kill: bool) -> None:
    """Also when it is found only a minute after the start, as an absent broker is; it began when it began."""
    box.run(3, MISSING, "broker_unreachable")
    box.restart(kill=kill)
    box.run(START_SECONDS / 2, MISSING)
    box.run(START_SECONDS, MISSING, "broker_unreachable")
    assert box.states() == [("camera_missing", "raised"), ("broker_unreachable", "raised")]
    box.run(OFF_DELAY_SECONDS + 1)
    assert sorted(box.states()[2:]) == [("broker_unreachable", "cleared"), ("camera_missing", "cleared")]
    assert {event["since_ms"] for event in box.told()} == {WALL_MS}


@pytest.mark.parametrize("kill", [False, True])
def test_an_alarm_that_ended_while_the_box_was_off_is_cleared_once(box: Teller, kill: bool) -> None:
    """Nobody is left with an alarm that stands for ever; and after that another restart says nothing."""
    box.run(3, MISSING)
    for _ in range(3):
        box.restart(kill=kill)
        box.run(START_SECONDS + OFF_DELAY_SECONDS)
        assert box.states() == [("camera_missing", "raised"), ("camera_missing", "cleared")]


def test_an_alarm_of_a_camera_of_which_nothing_is_known_yet_stays(box: Teller) -> None:
    """The first scan of a share that hangs takes longer than any grace."""
    box.run(3, MISSING)
    box.restart()
    box.run(3 * START_SECONDS, unknown=("camera/top",))
    assert box.states() == [("camera_missing", "raised")]
    box.run(OFF_DELAY_SECONDS + 1)
    assert box.states()[1:] == [("camera_missing", "cleared")]


def test_an_alarm_of_a_camera_that_is_not_configured_any_more_is_cleared_as_what_it_was(box: Teller) -> None:
    """The event that clears it carries the same code and source as the one that raised it."""
    box.run(3, MISSING)
    box.restart()
    box.teller.config = Config.model_validate({"cameras": [{"name": "side", "folder": "/srv/cameras/side"}]})
    box.run(START_SECONDS + OFF_DELAY_SECONDS)
    raised, cleared = box.told()
    assert (cleared["code"], cleared["source"], cleared["state"]) == (raised["code"], raised["source"], "cleared")


class TestFullDisk:
    """The ledger cannot be written, for SQLite itself says so: what was not told is told afterwards."""

    @pytest.fixture
    def full(self, box: Teller) -> Iterator[Teller]:
        """Let the ledger have no page more, and none of its own to write over."""
        box.run(1)
        with box.ledger.database.transaction() as db:
            db.execute("CREATE TABLE filling (bytes BLOB)")
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(Retry), box.ledger.database.transaction() as db:
            db.execute("INSERT INTO filling VALUES (zeroblob(100000))")
        # Rows of the outbox go where they are made; they must not find room in a page that is there.
        with box.ledger.database.transaction() as db:
            db.execute("CREATE TRIGGER no_room BEFORE INSERT ON outbox BEGIN "
                       "INSERT INTO filling VALUES (zeroblob(100000)); END")  # fmt: skip
        yield box
        with box.ledger.database.transaction() as db:
            db.execute("DROP TRIGGER IF EXISTS no_room")

    @staticmethod
    def make_room(box: Teller) -> None:
        """Let the ledger grow again."""
        with box.ledger.database.transaction() as db:
            db.execute("DROP TRIGGER no_room")
            db.execute("PRAGMA max_page_count = 1073741823")

    @staticmethod
    def run_into_it(box: Teller, looks: int, *present: str, every: float = 1.0) -> None:
        """Look; each look fails once there is something to tell."""
        for _ in range(looks):
            with contextlib.suppress(Retry):
                box.teller.follow(present)
            box.seconds += every
        assert box.ledger.database.trouble is Reason.NO_SPACE

    def test_what_came_and_went_meanwhile_is_told_afterwards_with_its_own_times(self, full: Teller) -> None:
        """Also the alarm that says that there was no room."""
        self.run_into_it(full, 10, "ledger_no_space")
        self.run_into_it(full, 10)
        assert full.told() == []
        self.make_room(full)
        full.run(1)
        raised, cleared = full.told()
        assert [event["state"] for event in (raised, cleared)] == ["raised", "cleared"]
        assert cleared["ts_ms"] - cleared["since_ms"] == 10_000
        assert raised["ts_ms"] == cleared["since_ms"] == WALL_MS + 1000
        full.run(10)
        assert len(full.told()) == 2

    def test_flapping_meanwhile_costs_no_memory(self, full: Teller) -> None:
        """However often it came and went, it is told as one."""
        for _ in range(10):
            self.run_into_it(full, 1, MISSING, every=CALM_SECONDS)
            self.run_into_it(full, 3, every=CALM_SECONDS)
        assert len(full.teller._untold) == 2
        self.make_room(full)
        full.run(1)
        assert full.states() == [("camera_missing", "raised"), ("camera_missing", "cleared")]

    def test_one_that_lasts_is_told_once_there_is_room(self, full: Teller) -> None:
        """And only once."""
        self.run_into_it(full, 10, MISSING)
        self.make_room(full)
        full.run(10, MISSING)
        assert full.states() == [("camera_missing", "raised")]


def test_the_outbox_has_a_limit_for_alarms_as_well(tmp_path: Path) -> None:
    """A year of alarms without a broker does not fill the disk: the oldest of them go."""
    box = Teller(tmp_path / "ledger.db", max_messages=10)
    for _ in range(20):
        box.run(CALM_SECONDS, MISSING)
        box.run(2 * CALM_SECONDS)
    assert box.ledger.report.depths().outbox_pending == 10
    box.ledger.database.close()


def test_what_was_told_outlives_a_damaged_ledger(box: Teller) -> None:
    """The new ledger knows what subscribers know, but for what cannot be true."""
    box.run(3, MISSING, "outbox_parked")
    box.ledger.database.close()
    with closing(sqlite3.connect(box.path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'strips'").fetchone()
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("UPDATE alarms SET since_ms = 1 << 62 WHERE name = 'outbox_parked'")
        db.commit()
    data = bytearray(box.path.read_bytes())
    data[4096 * (page - 1) : 4096 * page] = b"\xff" * 4096
    box.path.write_bytes(data)
    box.restart()
    assert box.ledger.database.set_aside is not None
    assert [row.name for row in box.ledger.alarms.raised()] == [MISSING]
    box.run(START_SECONDS + OFF_DELAY_SECONDS)
    assert box.states()[-1] == ("camera_missing", "cleared")
