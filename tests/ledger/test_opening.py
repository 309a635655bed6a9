"""When a ledger is looked through at the start: always a small one, a large one unless it was closed properly."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.errors import Retry
from agent.ledger import Ledger, database, open_ledger
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a ledger of a few pages count as a large one."""
    monkeypatch.setattr(database, "CHECKED_ALWAYS_BYTES", 30_000)


def opened(path: Path) -> tuple[Ledger, list[float]]:
    """Open a ledger; with the seconds that patience was asked for."""
    asked: list[float] = []
    return open_ledger(path, patience=asked.append), asked


def fill(path: Path) -> Ledger:
    """Make a ledger of some pages."""
    ledger, _ = opened(path)
    ledger.strips.begin([SettledFile("top", f"{n}.tif", FileIdentity(10, n, 1)) for n in range(500)])
    return ledger


def damage(path: Path) -> None:
    """Make the table of strips unreadable."""
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'strips'").fetchone()
    data = bytearray(path.read_bytes())
    data[4096 * (page - 1) : 4096 * page] = b"\xff" * 4096
    path.write_bytes(data)


@pytest.mark.usefixtures("large")
def test_a_large_ledger_that_was_closed_properly_is_not_looked_through(tmp_path: Path) -> None:
    """A restart on purpose takes no seconds per gigabyte, and each one after it neither."""
    fill(tmp_path / "ledger.db").database.close()
    for _ in range(2):
        ledger, asked = opened(tmp_path / "ledger.db")
        assert asked == []
        assert ledger.report.audit().balanced
        ledger.database.close()


@pytest.mark.usefixtures("large")
def test_a_large_ledger_is_looked_through_after_a_kill_and_patience_asked_for(tmp_path: Path) -> None:
    """Power that fails may leave anything; the mark of an earlier stop does not speak for this one."""
    path, crashed = tmp_path / "ledger.db", tmp_path / "crashed" / "ledger.db"
    fill(path).database.close()
    ledger, _ = opened(path)
    crashed.parent.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    ledger.database.close()
    damage(crashed)
    ledger, asked = opened(crashed)
    assert len(asked) == 2  # to look through it, and to bring over what can be read
    assert min(asked) >= 30
    assert ledger.database.set_aside is not None
    assert ledger.report.audit().balanced
    ledger.database.close()


@pytest.mark.usefixtures("large")
def test_damage_that_is_met_while_running_is_mended_at_the_next_start(tmp_path: Path) -> None:
    """Also when the service that met it could still stop in good order."""
    path = tmp_path / "ledger.db"
    fill(path).database.close()
    damage(path)
    ledger, asked = opened(path)
    assert asked == []
    with pytest.raises((sqlite3.DatabaseError, Retry)), ledger.database.reading() as db:
        db.execute("SELECT digest FROM strips NOT INDEXED").fetchall()
    ledger.database.close()
    ledger, asked = opened(path)
    assert ledger.database.set_aside is not None
    ledger.strips.begin([SettledFile("top", "new.tif", FileIdentity(10, 1, 1))])
    assert ledger.report.audit().balanced
    ledger.database.close()


def test_a_small_ledger_is_always_looked_through(tmp_path: Path) -> None:
    """It costs nothing, and finds what a disk did while the box was off."""
    fill(tmp_path / "ledger.db").database.close()
    damage(tmp_path / "ledger.db")
    ledger, asked = opened(tmp_path / "ledger.db")
    assert asked
    assert ledger.database.set_aside is not None
    ledger.database.close()


def test_a_kill_just_after_the_log_began_a_new_round_loses_nothing(tmp_path: Path) -> None:
    """The log's new header stands before frames of the round that is in the ledger already: that is no damage."""
    path, crashed = tmp_path / "ledger.db", tmp_path / "crashed" / "ledger.db"
    crashed.parent.mkdir()
    ledger = fill(path)
    for number in range(3):  # transactions of their own
        ledger.strips.begin([SettledFile("side", f"{number}.tif", FileIdentity(10, number, 1))])
    with closing(sqlite3.connect(path)) as other:
        blocked, frames, moved = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert (blocked, frames) == (0, moved)
        for suffix in ("", "-wal"):  # what a kill leaves
            shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
        # The next write begins the log anew; of it, only the header reached the file.
        ledger.strips.record_first_scan("top")
        with (path.with_name("ledger.db-wal")).open("rb") as log:
            header = log.read(32)
    with (crashed.with_name("ledger.db-wal")).open("r+b") as log:
        assert log.read(32) != header
        log.seek(0)
        log.write(header)
    stream = ledger.database.stream
    ledger.database.close()
    ledger, _ = opened(crashed)
    assert ledger.database.set_aside is None
    assert ledger.database.stream == stream
    assert ledger.report.audit().balanced
    ledger.database.close()


@pytest.mark.parametrize("spoil", [f"PRAGMA user_version = {version}" for version in (0, -5, 3, 4)])
def test_a_ledger_whose_tables_are_not_those_of_its_version_is_a_damaged_one(tmp_path: Path, spoil: str) -> None:
    """One byte of its header is enough; it must not keep the service from starting until somebody comes."""
    fill(tmp_path / "ledger.db").database.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute(spoil)
    ledger, _ = opened(tmp_path / "ledger.db")
    assert ledger.database.set_aside is not None
    audit = ledger.report.audit()
    assert audit.balanced
    assert sum(balance.seen for balance in ledger.report.balances()) == 500
    ledger.database.close()


def test_a_database_of_another_program_is_set_aside(tmp_path: Path) -> None:
    """It has a table of our name and none of its columns."""
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("CREATE TABLE strips (x)")
    ledger, _ = opened(tmp_path / "ledger.db")
    assert ledger.database.set_aside is not None
    assert ledger.report.audit().balanced
    ledger.database.close()


def test_a_ledger_whose_folder_is_away_goes_on_and_is_read_again_when_it_is_back(tmp_path: Path) -> None:
    """What is open stays in use; a report, for which it is opened once more, is tried again and ends nothing."""
    place, away = tmp_path / "state", tmp_path / "away"
    place.mkdir()
    ledger = fill(place / "ledger.db")
    place.rename(away)
    with pytest.raises(Retry, match="unable to open"):
        ledger.report.audit()
    ledger.strips.begin([SettledFile("top", "after.tif", FileIdentity(10, 1, 1))])
    away.rename(place)
    assert sum(camera.seen for camera in ledger.report.audit().cameras) == 501
    ledger.database.close()


def test_another_ledger_in_its_place_is_not_taken_for_it(tmp_path: Path) -> None:
    """Below a mount that is away lies perhaps an older one: rows of that must not be reported, nor forgotten here."""
    place, away = tmp_path / "state", tmp_path / "away"
    place.mkdir()
    ledger = fill(place / "ledger.db")
    place.rename(away)
    place.mkdir()
    fill(place / "ledger.db").database.close()
    with pytest.raises(Retry, match="another ledger"):
        ledger.purge.old_strips("top", 2**62, 0, 10)
    ledger.database.close()
