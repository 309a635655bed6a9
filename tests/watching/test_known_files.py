"""What the ledger answers, and what it cannot take yet."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from agent.records import FileIdentity, SettledFile
from agent.watching import scans, watcher
from tests.watching.line import DEADLINE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watching.line import Start


def test_finished_files_cost_one_question_in_chunks_and_no_memory(root: Path, start: Start) -> None:
    """After a restart nothing that the ledger knows is handed out, or even looked at twice."""
    for number in range(700):
        (root / f"{number}.tif").write_bytes(b"1")
    line = start(root)
    line.ledger = {path.name: FileIdentity.of(path.lstat()) for path in root.iterdir()}
    (root / "new.tif").write_bytes(b"1")
    line.ready()
    assert line.paths == ["new.tif"]
    assert max(line.asked) <= 500
    assert line.watcher.status().waiting == 0
    assert line.watcher.status().files_seen_last_scan == 701


def test_files_given_back_come_again(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger could not begin them: they come back with the same flags, and the first scan is not done before."""
    monkeypatch.setattr(watcher, "RETURN_SECONDS", 0.05)
    (root / "old.tif").write_bytes(b"1")
    line = start(root, first_scan_ever=True, backlog="none")
    line.until(lambda: line.handed_out)
    first = line.handed_out.pop()
    line.ledger.clear()
    line.watcher.give_back([first])
    line.turn()
    assert not line.watcher.first_scan_done
    line.until(lambda: line.handed_out)
    assert line.handed_out == [first]
    assert first.skip
    line.ready()


def test_a_ledger_that_fails_while_it_is_asked_loses_nothing(root: Path, start: Start) -> None:
    """Its error comes out of step; the steps after it go on where it stopped."""
    for number in range(450):
        (root / f"{number}.tif").write_bytes(b"1")
    line = start(root)
    failures = [0]

    def every_second_time() -> bool:
        failures[0] += 1
        return failures[0] % 2 == 1

    line.fails = every_second_time
    while not line.watcher.first_scan_done:
        with contextlib.suppress(OSError):
            line.turn()
    assert sorted(line.paths) == sorted(f"{number}.tif" for number in range(450))
    assert failures[0] > 5


def test_what_has_settled_is_not_lost_where_the_ledger_fails_over_a_scan(root: Path, start: Start) -> None:
    """A scan that has not had its turn for a while gets it in the step that would hand the files out."""
    now = [1000.0]
    (root / "a.tif").write_bytes(b"1")
    line = start(root, watch="poll", first_scan_ever=True, backlog="none", clock=lambda: now[0])
    line.until(lambda: line.watcher.status().waiting == 1)
    (root / "b.tif").write_bytes(b"1")
    line.watcher.request_scan()
    now[0] += 10 * watcher.STARVED_SECONDS
    asked = itertools.count(1)
    line.fails = lambda: next(asked) == 2
    with pytest.raises(OSError, match="locked"):
        line.turn()
    for _ in range(2):
        now[0] += 1.0
        line.turn()
    assert sorted((file.path, file.skip) for file in line.handed_out) == [("a.tif", True), ("b.tif", False)]


def test_what_is_held_while_nothing_can_be_begun_is_bounded(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger whose disk is full takes nothing for hours: one batch is tried again and again, the rest waits."""
    monkeypatch.setattr(watcher, "MAX_WAITING", 300)
    monkeypatch.setattr(watcher, "HAND_OUT", 50)
    monkeypatch.setattr(watcher, "RETURN_SECONDS", 0.2)
    for number in range(3000):
        (root / f"{number}.tif").write_bytes(b"1")
    line = start(root, settle_seconds=0.0)
    most, batches, began = 0, 0, time.monotonic()
    while batches < 6 or most < 300:
        line.watcher.wait(0.05)
        before = line.watcher._clock()
        files = line.watcher.step()
        batches += bool(files)
        line.watcher.give_back(files)
        if line.watcher._holds_back() and not line.watcher._has_room():
            assert line.watcher._next_due() > before - 0.2, "it would turn without a pause"
        most = max(most, len(line.watcher._settling) + len(line.watcher._returned))
        assert line.watcher.status().waiting == len(line.watcher._settling) + len(line.watcher._returned)
    assert most < 300 + scans.SLICE_ENTRIES + 2 * 50
    assert batches <= (time.monotonic() - began) / 0.2 + 2
    line.until(lambda: len(line.paths) == 3000)
    assert len(set(line.paths)) == 3000


def test_a_file_given_back_comes_again_however_many_more_are_given_back(root: Path, start: Start) -> None:
    """A camera whose every strip fails for a while must not keep the first one from its turn."""
    line = start(root).ready()
    (root / "first.tif").write_bytes(b"1")
    line.until(lambda: line.handed_out)
    line.ledger.clear()
    first = line.handed_out.pop()
    line.watcher.give_back([first])
    began = time.monotonic()
    while "first.tif" not in line.paths:
        line.turn()
        line.watcher.give_back([SettledFile("top", "gone.tif", first.identity)])
        assert time.monotonic() < began + DEADLINE_SECONDS


def test_a_single_file_that_cannot_be_read_yet_holds_nothing_else_up(root: Path, start: Start) -> None:
    """It comes back after a second; the others go on."""
    now = [1000.0]
    line = start(root, settle_seconds=0.0, clock=lambda: now[0]).ready()
    (root / "locked.part").write_bytes(b"1")
    (root / "locked.part").rename(root / "locked.tif")  # one event, which is over: a later one would bring it again
    line.until(lambda: line.handed_out)
    line.watcher.give_back([line.handed_out.pop()])
    line.ledger.clear()
    (root / "next.tif").write_bytes(b"1")
    line.until(lambda: line.paths == ["next.tif"])
    now[0] += watcher.RETURN_SECONDS
    line.until_paths("next.tif", "locked.tif")
