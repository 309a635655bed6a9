"""What is tidied on this box's own disk, on its own timer and never because a strip came by."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from typing import TYPE_CHECKING

from agent.clock import DAY_MS, now_ms
from agent.files import HEATMAP_SUFFIXES, free_bytes, heatmap_stem, remove_temporary_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.ledger.purge import SavedHeatmap

log = logging.getLogger(__name__)

HEATMAPS_EVERY_SECONDS = 10.0
ROWS_EVERY_SECONDS = 3600.0
BATCH = 200


class Housekeeping:
    """From time to time a step removes what is too old or too much."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._clock = clock
        self._wall_ms = wall_ms
        self._heatmaps_at = self._rows_at = clock()

    def step(self) -> None:
        """Do what is due; raises Retry where the ledger cannot."""
        if self._clock() >= self._heatmaps_at:
            self._heatmaps_at = self._clock() + HEATMAPS_EVERY_SECONDS
            self.remove_old_heatmaps()
        if self._clock() >= self._rows_at:
            self._rows_at = self._clock() + ROWS_EVERY_SECONDS
            remove_temporary_files(self._config.heatmap_folder)
            self.forget_old_rows()

    def remove_old_heatmaps(self) -> int:
        """Remove heatmaps that are too old, or the oldest while there are too many bytes.

        Only files whose names the ledger knows are touched, and only of results that the broker has. Return the number
        of results that lost theirs.
        """
        limits = self._config.heatmaps
        now = self._age_now()
        oldest_kept_ms = now - limits.keep_days * DAY_MS if limits.keep_days and now else float("-inf")
        excess = self._ledger.purge.heatmap_bytes() - (limits.keep_gib or float("inf")) * 2**30
        excess = max(excess, self._missing_free_bytes())
        if excess <= 0 and self._ledger.purge.oldest_heatmap_ms() >= oldest_kept_ms:
            return 0
        removed = 0
        while batch := self._ledger.purge.oldest_heatmaps(BATCH):
            gone = []
            for saved in batch:
                if saved.committed_ms >= oldest_kept_ms and excess <= 0:
                    break
                self._remove(saved)
                excess -= saved.size_bytes
                gone.append(saved.seq)
            self._ledger.purge.heatmaps_removed(gone)
            removed += len(gone)
            if len(gone) < BATCH:
                break
        return removed

    def _remove(self, saved: SavedHeatmap) -> None:
        """Remove one result's heatmaps; one that cannot be removed is left behind, and does not stop the others.

        Raises OSError where the disk takes no changes: then all of them are tried again later.
        """
        stem = heatmap_stem(saved.camera, saved.mtime_ns, saved.path, saved.strip_id, saved.revision)
        heatmap = self._config.heatmap_folder / stem
        for suffix in HEATMAP_SUFFIXES:
            try:
                heatmap.with_name(f"{heatmap.name}{suffix}").unlink(missing_ok=True)
            except OSError as error:
                if error.errno in {errno.EROFS, errno.EIO}:
                    raise
                log.warning("cannot remove an old heatmap: %s", error)
        with contextlib.suppress(OSError):  # other heatmaps of that day, or somebody's files, are in it
            heatmap.parent.rmdir()

    def _missing_free_bytes(self) -> float:
        """Return how much has to go once the free space is below the floor: up to a quarter above it."""
        floor = self._config.heatmaps.min_free_gib * 2**30
        try:
            free = free_bytes(self._config.heatmap_folder)
        except OSError:
            return 0.0
        return floor * 1.25 - free if free < floor else 0.0

    def _age_now(self) -> int:
        return self._ledger.purge.age_now(self._wall_ms(), self._clock())

    def forget_old_rows(self) -> None:
        """Forget old events, and old strips of cameras that are not configured any more: nobody can find them again."""
        now = self._age_now()
        if not now:
            return
        before = int(now - self._config.ledger.keep_days * DAY_MS)
        configured = {camera.name for camera in self._config.cameras}
        for camera in {balance.camera for balance in self._ledger.report.balances()} - configured:
            self._ledger.strips.keep_files(camera)
            while batch := self._ledger.purge.old_strips(camera, before, 0, BATCH):
                self._ledger.purge.forget([strip.row for strip in batch])
        self._ledger.purge.forget_events(before)
