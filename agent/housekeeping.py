"""What is tidied, on its own timer and never because a strip came by: files of cameras, old heatmaps, old rows."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

from agent.disposal import dispose
from agent.errors import Retry
from agent.files import HEATMAP_SUFFIXES, heatmap_stem, remove_temporary_files
from agent.ledger.strips import now_ms
from agent.records import FileIdentity, show_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.records import Strip

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
BUILT_MS = 1_767_225_600_000  # 2026-01-01: while the clock is before it, nothing is old
BATCH = 200
HEATMAPS_EVERY_SECONDS = 10.0  # to add up the sizes of a million heatmaps takes 50 ms
ROWS_EVERY_SECONDS = 3600.0
DISPOSAL_PAUSE_SECONDS = 10.0


class Housekeeping:
    """One step disposes of files that are due, and from time to time removes what is too old or too much."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        *,
        folder_is_away: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._cameras = {camera.name: camera for camera in config.cameras}
        self._folder_is_away = folder_is_away
        self._clock = clock
        self._wall_ms = wall_ms
        self._heatmaps_at = self._rows_at = clock()
        self._dispose_at: dict[str, float] = {}  # camera -> not before, after an error
        self._dispose_after: dict[str, int] = {}  # camera -> the row that could not be disposed of

    def step(self) -> None:
        """Do what is due; raises Retry where the ledger cannot."""
        self._dispose()
        if self._clock() >= self._heatmaps_at:
            self._heatmaps_at = self._clock() + HEATMAPS_EVERY_SECONDS
            self.remove_old_heatmaps()
        if self._clock() >= self._rows_at:
            self._rows_at = self._clock() + ROWS_EVERY_SECONDS
            remove_temporary_files(self._config.heatmap_folder)
            self.forget_old_rows()

    def _dispose(self) -> None:
        for camera in self._cameras.values():
            paused = self._clock() < self._dispose_at.get(camera.name, 0.0)
            if camera.when_done == "keep" or paused or self._folder_is_away(camera.name):
                continue
            after = self._dispose_after.pop(camera.name, 0)
            for strip, digest in self._ledger.strips.due_for_disposal(camera.name, after, BATCH):
                try:
                    outcome = dispose(camera.folder, strip, digest, camera.done_folder)
                except OSError as error:
                    name = show_name(strip.path)
                    log.warning("camera %s: cannot %s %s: %s", camera.name, camera.when_done, name, error)
                    self._dispose_at[camera.name] = self._clock() + DISPOSAL_PAUSE_SECONDS
                    self._dispose_after[camera.name] = strip.row  # the next ones may work
                    break
                self._ledger.strips.disposed(strip.row, outcome)

    def remove_old_heatmaps(self) -> int:
        """Remove heatmaps that are too old, or the oldest while there are too many bytes.

        Only files whose names the ledger knows are touched, and only of results that the broker has. Return the number
        of results that lost theirs.
        """
        limits = self._config.heatmaps
        now = self._wall_ms()
        oldest_kept_ms = now - limits.keep_days * DAY_MS if limits.keep_days and now >= BUILT_MS else float("-inf")
        excess = self._ledger.purge.heatmap_bytes() - (limits.keep_gib or float("inf")) * 2**30
        excess = max(excess, self._missing_free_bytes())
        removed = 0
        while batch := self._ledger.purge.oldest_heatmaps(BATCH):
            gone = []
            for saved in batch:
                if saved.committed_ms >= oldest_kept_ms and excess <= 0:
                    break
                stem = heatmap_stem(saved.camera, saved.mtime_ns, saved.path, saved.strip_id, saved.revision)
                heatmap = self._config.heatmap_folder / stem
                for suffix in HEATMAP_SUFFIXES:
                    heatmap.with_name(f"{heatmap.name}{suffix}").unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other heatmaps of that day, or somebody's files, are in it
                    heatmap.parent.rmdir()
                excess -= saved.size_bytes
                gone.append(saved.seq)
            self._ledger.purge.heatmaps_removed(gone)
            removed += len(gone)
            if len(gone) < BATCH:
                break
        return removed

    def _missing_free_bytes(self) -> float:
        """Return how much has to go once the free space is below the floor: up to a quarter above it."""
        floor = self._config.heatmaps.min_free_gib * 2**30
        try:
            stats = os.statvfs(self._config.heatmap_folder)
        except OSError:
            return 0.0
        free = stats.f_bavail * stats.f_frsize
        return floor * 1.25 - free if free < floor else 0.0

    def forget_old_rows(self) -> int:
        """Forget finished strips that are old and whose files are gone; return how many."""
        now = self._wall_ms()
        if now < BUILT_MS:
            return 0
        before = int(now - self._config.ledger.keep_days * DAY_MS)
        forgotten, row = 0, 0
        while batch := self._ledger.purge.old_strips(before, row, BATCH):
            row = batch[-1].row
            gone = [strip.row for strip in batch if self._file_is_gone(strip)]
            self._ledger.purge.forget(gone)
            forgotten += len(gone)
        self._ledger.purge.forget_events(before)
        return forgotten

    def _file_is_gone(self, strip: Strip) -> bool:
        """Look whether a scan could find the strip again; a camera that is not configured any more has no files."""
        camera = self._cameras.get(strip.camera)
        if camera is None:
            return True
        if self._folder_is_away(strip.camera):
            return False
        try:
            found = FileIdentity.of(os.lstat(camera.folder / strip.path))
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return not found.same_content_expected(strip.identity)


def run_step(housekeeping: Housekeeping) -> None:
    """Take one step; what the box cannot do now is tried again."""
    try:
        housekeeping.step()
    except (Retry, OSError) as error:
        log.warning("housekeeping: %s", error)
