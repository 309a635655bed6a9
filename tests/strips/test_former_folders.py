"""Strips that wait since before their camera was given another folder: each is judged from where it lies."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import Blame, Reason, Retry
from agent.records import FileIdentity, SettledFile
from agent.wire import Failed
from tests.strips.bench import Bench, judged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.wire import Job, Judged

SIZE = 10


class Places:
    """A camera whose folder was `before` and is `now`; what a worker finds depends on the folder that it is sent to."""

    def __init__(self, tmp_path: Path) -> None:
        self.before = tmp_path / "before"
        self.bench = Bench(tmp_path)
        self.now = tmp_path / "top"
        for folder in (self.before, self.now):
            folder.mkdir()
        self.sent_to: list[str] = []
        self.bench.start_worker()

    def begin(self, name: str, folder: Path, *, mtime_ns: int = 10**18, inode: int = 7) -> None:
        """Take in a file of a folder."""
        file = SettledFile("top", name, FileIdentity(SIZE, mtime_ns, 1, inode))
        assert self.bench.ledger.strips.begin([file], str(folder)) == []
        self.bench.answers[name] = self._answer

    def put(self, name: str, folder: Path) -> None:
        """Put a file into a folder."""
        (folder / name).write_bytes(b"x" * SIZE)

    def _answer(self, job: Job) -> Judged | Failed:
        self.sent_to.append(job.folder.rpartition("/")[2])
        try:
            Path(job.folder, job.strip.path).read_bytes()
        except FileNotFoundError:
            return Failed(job.strip_id, Reason.FILE_VANISHED, "why", "", model_fault=False, digest="")
        return judged(job)

    def step(self, times: int = 1) -> None:
        """Go on, with some seconds between the steps."""
        for _ in range(times):
            self.bench.now += 10
            self.bench.step()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    """Give a camera whose folder was changed."""
    places = Places(tmp_path)
    yield places
    places.bench.ledger.database.close()


def test_each_strip_is_read_from_the_folder_that_it_was_taken_in_from(places: Places) -> None:
    """Files of one name are two strips, also where both file systems gave them the same number."""
    places.begin("1.tif", places.before)
    places.begin("1.tif", places.now, mtime_ns=10**18 + 1)
    places.put("1.tif", places.before)
    places.put("1.tif", places.now)
    places.step(2)
    assert places.bench.results() == [("1.tif", "ok")] * 2
    assert places.sent_to == ["before", "top"]


def test_a_file_of_the_new_folder_is_not_the_rest_of_one_that_was_half_written_in_the_old_one(places: Places) -> None:
    """Both are accounted for."""
    places.begin("1.tif", places.before)
    strip = places.bench.ledger.strips.next_waiting("top", 0, ())
    assert strip is not None
    places.bench.ledger.strips.mark_half_written(strip.row)
    places.begin("1.tif", places.now, mtime_ns=10**18 + 1, inode=8)
    places.put("1.tif", places.before)
    places.put("1.tif", places.now)
    places.step(2)
    assert places.bench.results() == [("1.tif", "ok")] * 2


def test_a_strip_whose_file_was_moved_along_is_read_there(places: Places) -> None:
    """Whether anything is left of the old folder or not."""
    places.begin("1.tif", places.before)
    places.put("1.tif", places.now)
    places.before.rmdir()
    places.step(2)
    assert places.bench.results() == [("1.tif", "ok")]
    assert places.sent_to == ["before", "top"]


def test_a_file_is_vanished_where_both_folders_say_so(places: Places) -> None:
    """An old folder in which other files lie is believed."""
    places.begin("1.tif", places.before)
    places.put("another.tif", places.before)
    places.bench.folders["top"].gone = True
    places.step(2)
    assert places.bench.results() == [("1.tif", "file_vanished")]


def test_an_old_folder_that_is_away_is_waited_for_and_then_given_up(places: Places) -> None:
    """Nobody has to bring it back: the strip is unreadable, not vanished, after as long as a half-written one."""
    places.begin("1.tif", places.before)
    places.before.rmdir()
    places.bench.folders["top"].gone = True
    places.step(2)
    assert places.bench.results() == []
    places.before.mkdir()
    places.put("1.tif", places.before)
    places.step(2)
    assert places.bench.results() == [("1.tif", "ok")]

    places.begin("2.tif", places.before)
    (places.before / "1.tif").unlink()
    places.step(20)
    assert places.bench.results()[1:] == [("2.tif", "unreadable")]


def test_an_old_folder_that_hangs_stops_no_other_strip(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its strips would cost a worker; they wait until it answers."""
    hangs, asked = threading.Event(), threading.Event()

    def read(_: Path) -> None:
        asked.set()
        assert hangs.wait(180)

    monkeypatch.setattr("agent.watching.probe._read_a_byte", read)
    for name in ("1.tif", "2.tif", "3.tif"):
        places.begin(name, places.before)
        places.bench.answers[name] = lambda _: Retry(Reason.UNREADABLE, "it does not come", Blame.BOX)
    places.step()
    assert asked.is_set()
    lost = len(places.bench.workers)
    places.begin("4.tif", places.now)
    places.put("4.tif", places.now)
    places.step(5)
    assert places.bench.results() == [("4.tif", "ok")]
    assert len(places.bench.workers) == lost
    hangs.set()
    asking = places.bench.journey._former._probes[str(places.before)]._asking
    assert asking is not None
    asking.join()
    for name in ("1.tif", "2.tif", "3.tif"):
        places.put(name, places.before)
        places.bench.answers[name] = judged
    places.step(4)
    assert sorted(places.bench.results()[1:]) == [("1.tif", "ok"), ("2.tif", "ok"), ("3.tif", "ok")]


def test_what_an_older_version_took_in_lies_in_the_folder_that_was_configured_at_its_end(places: Places) -> None:
    """It did not write down where; the first start that can does."""
    ledger = places.bench.ledger
    places.bench.begin("1.tif")
    assert ledger.folders.with_waiting("top") == {""}
    ledger.folders.note("top", str(places.before))
    assert ledger.folders.with_waiting("top") == {str(places.before)}
