"""The beginning of the strip's journey, for one camera: from a settled file to a row of the ledger.

From `begin` on the strip is accounted for; `journey.py` goes on from there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import Reason, Reject, Retry
from agent.records import show_name
from agent.regular_files import digest_regular_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from agent.config import Camera
    from agent.ledger import Ledger
    from agent.records import SettledFile
    from agent.watching import CameraWatcher

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Before:
    """What the ledger knows of a camera before its folder is watched."""

    was_scanned: bool  # its backlog rule has been applied
    strips_wait_in: frozenset[str]  # folders, in which their files must be; "" where it is not known in which

    @classmethod
    def of(cls, ledger: Ledger, camera: str) -> Self:
        """Ask the ledger; raises Retry where it cannot tell."""
        return cls(ledger.strips.camera_was_scanned(camera), ledger.folders.with_waiting(camera))


class Intake:
    """Steps 1 to 3, for one camera."""

    def __init__(
        self, camera: Camera, watcher: CameraWatcher, ledger: Ledger, max_file_bytes: int, before: Before | None = None
    ) -> None:
        """`before` None: the ledger is asked here."""
        self.camera = camera  # replaced by a reload that changes nothing about the watching
        self.watcher = watcher
        self._folder = str(camera.folder)
        self._ledger = ledger
        self._max_file_bytes = max_file_bytes
        before = before or Before.of(ledger, camera.name)
        self.first_scan_recorded = before.was_scanned
        self._ended = False
        if before.strips_wait_in & {"", self._folder}:
            watcher.expect_files()

    def end(self) -> None:
        """Begin nothing more: the camera is gone, or another folder is its own now. For any thread.

        A step may be under way for long, on a share that hangs; what it finds then is of no camera that there is.
        """
        self._ended = True

    def step(self) -> int:
        """Begin what has settled; return how many files that were."""
        files = self.watcher.step()
        if self._ended:
            return 0
        try:
            doubtful = self._ledger.strips.begin(files, self._folder) if files else []
            self._begin_by_digest(doubtful)
            if not self._ended and not self.first_scan_recorded and self.watcher.first_scan_done:
                self._ledger.strips.record_first_scan(self.camera.name)
                self.first_scan_recorded = True
        except Retry as error:
            # Nothing is lost: what has not been begun is handed out again, what has been is known by then.
            self.watcher.give_back(files)
            log.warning("camera %s: cannot begin %d strips yet: %s", self.camera.name, len(files), error)
            return 0
        return len(files)

    def _begin_by_digest(self, doubtful: Sequence[SettledFile]) -> None:
        for file in doubtful:
            if self._ended:
                return
            digest = ""  # of what cannot be read: as unreadable as before is the same strip
            try:
                digest = digest_regular_file(self._folder, file.path, max_bytes=self._max_file_bytes)
            except Reject as refusal:
                if refusal.reason is Reason.FILE_VANISHED:  # maybe the box itself has just moved or removed it
                    self.watcher.count_vanished()
                    continue
                log.info("camera %s: %s is not read again: %s", self.camera.name, show_name(file.path), refusal)
            except Retry as error:
                self.watcher.give_back([file])
                log.info("camera %s: %s cannot be read yet: %s", self.camera.name, show_name(file.path), error)
                continue
            if not self._ended and self._ledger.strips.begin_by_digest(file, digest, self._folder) is None:
                self._begin_if_there(file, digest)

    def _begin_if_there(self, file: SettledFile, digest: str) -> None:
        """Look again, now that the ledger says that the box has moved or removed such a file."""
        try:
            (self.camera.folder / file.path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            self.watcher.count_vanished()
        except OSError as error:
            self.watcher.give_back([file])
            log.info("camera %s: %s cannot be looked at yet: %s", self.camera.name, show_name(file.path), error)
        else:
            self._ledger.strips.begin_by_digest(file, digest, self._folder, is_there=True)
