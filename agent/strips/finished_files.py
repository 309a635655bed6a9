"""One camera's files once their strips are done: moved or removed, and their rows forgotten when they are gone.

Each camera has a loop of its own for this: its folder may be a share that hangs for ever.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from agent.clock import BUILT_MS, DAY_MS, now_ms
from agent.records import FileIdentity, show_name
from agent.strips.disposal import dispose

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Camera
    from agent.ledger import Ledger
    from agent.records import Strip

log = logging.getLogger(__name__)

BATCH = 200
ROWS_EVERY_SECONDS = 3600.0
PAUSE_SECONDS = 10.0


class CameraFiles:
    """One step disposes of some files that are due, and from time to time looks through some old rows."""

    def __init__(
        self,
        camera: Camera,
        ledger: Ledger,
        *,
        keep_days: float,
        folder_is_away: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._camera = camera
        self._ledger = ledger
        self._keep_days = keep_days
        self._folder_is_away = folder_is_away
        self._clock = clock
        self._wall_ms = wall_ms
        self._dispose_at = self._rows_at = clock()
        self._disposed_up_to = 0  # row; after an error the next ones may work
        self._looked_up_to = 0  # row

    def step(self) -> None:
        """Do what is due; raises Retry where the ledger cannot."""
        if self._folder_is_away(self._camera.name):
            return
        if self._camera.when_done != "keep" and self._clock() >= self._dispose_at:
            self._dispose()
        if self._clock() >= self._rows_at:
            if self._camera.when_done == "keep":  # it may have been another word before
                self._ledger.strips.keep_files(self._camera.name)
            self.forget_old_rows()

    def _dispose(self) -> None:
        camera = self._camera
        after, self._disposed_up_to = self._disposed_up_to, 0
        for strip, digest in self._ledger.strips.due_for_disposal(camera.name, after, BATCH):
            try:
                outcome = dispose(camera.folder, strip, digest, camera.done_folder)
            except OSError as error:
                log.warning("camera %s: cannot %s %s: %s", camera.name, camera.when_done, show_name(strip.path), error)
                self._dispose_at = self._clock() + PAUSE_SECONDS
                self._disposed_up_to = strip.row
                return
            if outcome == "gone" and self._folder_proves_nothing():
                self._dispose_at = self._clock() + PAUSE_SECONDS
                return
            if outcome != "done":
                log.warning("camera %s: %s stays: its file is %s", camera.name, show_name(strip.path), outcome)
            self._ledger.strips.disposed(strip.row, outcome)

    def forget_old_rows(self) -> int:
        """Look through a batch of old rows and forget those whose files are gone; return how many that were."""
        now = self._wall_ms()
        before = int(now - self._keep_days * DAY_MS)
        if now < BUILT_MS or self._folder_is_away(self._camera.name):
            self._rows_at = self._clock() + PAUSE_SECONDS
            return 0
        if self._camera.when_done == "keep" and self._folder_proves_nothing():
            self._rows_at = self._clock() + ROWS_EVERY_SECONDS
            return 0
        batch = self._ledger.purge.old_strips(self._camera.name, before, self._looked_up_to, BATCH)
        gone = [strip.row for strip in batch if self._file_is_gone(strip)]
        self._ledger.purge.forget(gone)
        self._looked_up_to = batch[-1].row if batch else 0
        if not batch:
            self._rows_at = self._clock() + ROWS_EVERY_SECONDS
        return len(gone)

    def _folder_proves_nothing(self) -> bool:
        """Say whether the folder is empty: then it may be the place of a share that is not mounted."""
        try:
            with os.scandir(self._camera.folder) as entries:
                return next(entries, None) is None
        except OSError:
            return True

    def _file_is_gone(self, strip: Strip) -> bool:
        """Look whether a scan could find the strip again."""
        try:
            found = FileIdentity.of(os.lstat(self._camera.folder / strip.path))
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return not found.same_content_expected(strip.identity)
