"""A watcher, the loop around it that the service has, and a ledger that remembers identities."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Camera
from agent.watching import CameraWatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.records import FileIdentity, SettledFile

DEADLINE_SECONDS = 120.0
SLOW_RESCAN = 3600.0  # so that nothing but an event (or an explicit scan) can have found a file

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


class Line:
    """A watcher, the loop around it that the service has, and a ledger that remembers identities."""

    def __init__(
        self,
        root: Path,
        *,
        first_scan_ever: bool = False,
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        values = {"name": "top", "folder": root, "settle_seconds": 0.05, "rescan_seconds": SLOW_RESCAN, **settings}
        self.ledger: dict[str, FileIdentity] = {}
        self.asked: list[int] = []
        self.handed_out: list[SettledFile] = []
        self.fails: Callable[[], bool] = lambda: False
        """Whether the ledger raises when it is asked."""
        self.watcher = CameraWatcher(Camera(**values), known=self.known, first_scan_ever=first_scan_ever, clock=clock)

    def known(self, files: Sequence[SettledFile]) -> set[str]:
        """Answer as the ledger does."""
        if self.fails():
            raise OSError("database is locked")
        self.asked.append(len(files))
        return {file.path for file in files if self.ledger.get(file.path) == file.identity}

    def turn(self) -> list[SettledFile]:
        """Go once around the service's loop."""
        self.watcher.wait(0.05)
        files = self.watcher.step()
        self.ledger |= {file.path: file.identity for file in files}
        self.handed_out += files
        return files

    def until(self, condition: Callable[[], object]) -> None:
        """Go around until the condition holds, or fail."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not in time; {self.watcher.status()}; have {self.paths[-20:]}"
            self.turn()

    def until_paths(self, *paths: str) -> None:
        """Go around until exactly these paths were handed out, once each."""
        self.until(lambda: set(paths) <= set(self.paths))
        assert sorted(self.paths) == sorted(paths)

    def turns(self, seconds: float) -> None:
        """Go around for a while, to see that something does not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def ready(self) -> Line:
        """Go around until the first scan is done."""
        self.until(lambda: self.watcher.first_scan_done)
        return self

    @property
    def paths(self) -> list[str]:
        """Everything that was handed out."""
        return [file.path for file in self.handed_out]

    @property
    def state(self) -> str:
        """State of the watching."""
        return self.watcher.status().state


Start = Callable[..., Line]
"""What the fixture `start` returns: makes a line for a folder and the camera's settings."""


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def watched_folders(line: Line) -> set[str]:
    """Return the folders that a line listens to, relative to the camera's."""
    listening = line.watcher._folder._events
    assert listening is not None
    return {folder for folder, _ in listening._watched.values()}
