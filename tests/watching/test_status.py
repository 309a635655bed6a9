"""What others are told about the watching, and scans that hang or fail."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from agent.watching.links import open_folder
from agent.watching.scan import Found, Scan
from tests.watching.line import DEADLINE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.watching.line import Start


def test_a_share_that_hangs_is_called_unreachable_by_others(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step hangs; the status can be read all the same and says so after three intervals."""
    line = start(root, watch="poll", rescan_seconds=600.0).ready()
    gate, entered = threading.Event(), threading.Event()

    def hang(*_: object) -> list[Found]:
        entered.set()
        gate.wait(DEADLINE_SECONDS)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(Scan, "read", hang)
        thread = threading.Thread(target=lambda: line.until(gate.is_set))
        thread.start()
        line.watcher.request_scan()
        assert entered.wait(DEADLINE_SECONDS)
        assert line.watcher.status(time.monotonic() + 60.0).state == "polling"
        assert line.watcher.status(time.monotonic() + 1801.0).state == "unreachable"
        gate.set()
        thread.join()
    line.until(lambda: line.state == "polling")


def test_a_scan_that_fails_in_the_middle_is_tried_again(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An I/O error in one folder: the others are read, the status names it, the next scan brings its files."""
    for name in ("bad", "good"):
        (root / name).mkdir()
        (root / name / "a.tif").write_bytes(b"1")

    def failing(root: str, folder: str, flags: int) -> int:
        if folder == "bad":
            raise OSError(5, "Input/output error")
        return open_folder(root, folder, flags)

    with monkeypatch.context() as patch:
        patch.setattr("agent.watching.scan.open_folder", failing)
        line = start(root, watch="poll", rescan_seconds=0.1).ready()
        assert line.paths == ["good/a.tif"]
        assert line.watcher.status().error == "bad: Input/output error"
    line.until_paths("good/a.tif", "bad/a.tif")
    line.until(lambda: line.watcher.status().error == "")


def test_request_scan_wakes_the_waiting_thread(root: Path, start: Start) -> None:
    """From any thread, at once."""
    line = start(root, watch="poll").ready()
    (root / "a.tif").write_bytes(b"1")
    timer = threading.Timer(0.05, line.watcher.request_scan)
    timer.start()
    line.until_paths("a.tif")
    timer.join()
