"""The beginning of the strip's journey, for one camera: from a settled file to a row of the ledger.

From `begin` on the strip is accounted for; `journey.py` goes on from there.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from agent.errors import Reject, Retry
from agent.files import read_regular_file
from agent.records import show_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config import Camera
    from agent.ledger import Ledger
    from agent.records import SettledFile
    from agent.watching import CameraWatcher

log = logging.getLogger(__name__)


class Intake:
    """Steps 1 to 3, for one camera."""

    def __init__(self, camera: Camera, watcher: CameraWatcher, ledger: Ledger, max_file_bytes: int) -> None:
        self.camera = camera
        self.watcher = watcher
        self._ledger = ledger
        self._max_file_bytes = max_file_bytes
        self._first_scan_recorded = ledger.strips.camera_was_scanned(camera.name)
        if any(balance.camera == camera.name and balance.waiting for balance in ledger.report.balances()):
            watcher.expect_files()

    def step(self) -> int:
        """Begin what has settled; return how many files that were."""
        files = self.watcher.step()
        try:
            doubtful = self._ledger.strips.begin(files) if files else []
            self._begin_by_digest(doubtful)
            if not self._first_scan_recorded and self.watcher.first_scan_done:
                self._ledger.strips.record_first_scan(self.camera.name)
                self._first_scan_recorded = True
        except Retry as error:
            # Nothing is lost: what has not been begun is handed out again, what has been is known by then.
            self.watcher.give_back(files)
            log.warning("camera %s: cannot begin %d strips yet: %s", self.camera.name, len(files), error)
            return 0
        return len(files)

    def _begin_by_digest(self, doubtful: Sequence[SettledFile]) -> None:
        for file in doubtful:
            digest = ""  # of what cannot be read: as unreadable as before is the same strip
            try:
                data, _, _ = read_regular_file(str(self.camera.folder), file.path, max_bytes=self._max_file_bytes)
                digest = hashlib.sha256(data).hexdigest()
            except Reject as refusal:
                log.info("camera %s: %s is not read again: %s", self.camera.name, show_name(file.path), refusal)
            except Retry as error:
                self.watcher.give_back([file])
                log.info("camera %s: %s cannot be read yet: %s", self.camera.name, show_name(file.path), error)
                continue
            self._ledger.strips.begin_by_digest(file, digest)
