"""A file is handed out when it stands still, by the real clock and by one that only the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.watching.line import Line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watching.line import Start


def test_a_growing_file_waits_until_it_stands_still(root: Path, start: Start) -> None:
    """Written in pieces over a multiple of the settle time: handed out once, whole."""
    now = [1000.0]
    line = start(root, settle_seconds=0.2, clock=lambda: now[0]).ready()
    with (root / "a.tif").open("wb") as file:
        for _ in range(8):
            file.write(b"x" * 1000)
            file.flush()
            line.until(lambda: line.watcher.status().waiting == 1)
            for _ in range(3):
                now[0] += 0.06
                line.turn()
        assert line.paths == []
    now[0] += 0.2
    line.until_paths("a.tif")
    assert line.handed_out[0].identity.size_bytes == 8000


def test_a_file_that_vanishes_is_counted_and_the_next_one_comes(root: Path, start: Start) -> None:
    """Gone before it settled: a number in the status, and nothing else."""
    now = [1000.0]
    line = start(root, settle_seconds=0.2, clock=lambda: now[0]).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: line.watcher.status().waiting == 1)
    (root / "a.tif").unlink()
    (root / "b.tif").write_bytes(b"1")
    line.until(lambda: "b.tif" in line.watcher._settling)
    now[0] += 0.2
    line.until_paths("b.tif")
    line.until(lambda: line.watcher.status().vanished_before_settle == 1)


def test_settle_zero(root: Path, start: Start) -> None:
    """Allowed for cameras that rename into place."""
    line = start(root, settle_seconds=0.0).ready()
    (root / "a.tmp").write_bytes(b"1")
    (root / "a.tmp").rename(root / "a.tif")
    line.until_paths("a.tif")


def test_wait_returns_exactly_when_the_second_look_is_due(root: Path) -> None:
    """Nothing polls: the pause ends at first look + settle_seconds, by a clock that only the test moves."""
    now = [1000.0]
    (root / "a.tif").write_bytes(b"1")
    line = Line(root, watch="poll", settle_seconds=0.5, clock=lambda: now[0])
    assert line.watcher.step() == []
    assert line.watcher._next_due() == 1000.5
    now[0] = 1000.4999
    assert line.watcher.step() == []
    now[0] = 1000.5
    assert [file.path for file in line.watcher.step()] == ["a.tif"]
    line.watcher.close()
