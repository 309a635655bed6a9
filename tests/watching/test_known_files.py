"""What the ledger answers, and what it cannot take yet."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.records import FileIdentity, SettledFile
from agent.watching import watcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

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

    def failing(files: Sequence[SettledFile]) -> set[str]:
        failures[0] += 1
        if failures[0] % 2:
            raise OSError("database is locked")
        return line.known(files)

    line.watcher._known = failing
    while not line.watcher.first_scan_done:
        with contextlib.suppress(OSError):
            line.turn()
    assert sorted(line.paths) == sorted(f"{number}.tif" for number in range(450))
    assert failures[0] > 5
