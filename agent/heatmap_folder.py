"""The heatmap folder, on the supervisor's side: is it there, what is too old in it or too much.

It may be a share that is away, or hangs for ever: then it costs heatmaps and nothing else. A loop of its own calls
`step`; but for `strips/leftovers.py`, which has one as well, nobody else in this process touches the folder.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.clock import DAY_MS, now_ms
from agent.files import free_bytes, make_folder
from agent.heatmap_names import HEATMAP_SUFFIXES, heatmap_stem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.ledger.purge import SavedHeatmap

log = logging.getLogger(__name__)

RETENTION_EVERY_SECONDS = 10.0
HANGS_AFTER_SECONDS = 10.0
BATCH = 200
OF_ONE_FILE = {errno.EPERM, errno.EACCES, errno.EBUSY, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""Errors that say nothing of other files. Some file systems that are full, or above a quota, refuse removals too."""


@dataclass(frozen=True, slots=True)
class FolderState:
    """What is known of the folder: unreachable is one that is missing or takes no files, and `detail` says why."""

    state: Literal["there", "unreachable", "hang"]
    detail: str = ""
    free_bytes: int = 0


class HeatmapFolder:
    """From time to time a step looks at the folder, and removes what is too old or too much."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.config = config  # a reload may set another one, at any time
        self._folder = config.heatmap_folder
        self._ledger = ledger
        self._clock = clock
        self._wall_ms = wall_ms
        self._waits_since: float | None = None  # for an answer of the folder
        self._found = FolderState("there", free_bytes=int(config.heatmaps.min_free_gib * 2**30))  # until it is known
        self._retention_at = clock()

    def state(self) -> FolderState:
        """Say how the folder is. For any thread."""
        since = self._waits_since
        if since is not None and self._clock() - since > HANGS_AFTER_SECONDS:
            return FolderState("hang", f"{self._folder} has not answered for {self._clock() - since:.0f} s")
        return self._found

    def step(self) -> None:
        """Look, and do what is due; raises Retry where the ledger cannot."""
        with self._waiting():
            found = self._look()
        if found.state != "there" and found.detail != self._found.detail:
            log.warning("no heatmaps are written: %s", found.detail)
        self._found = found
        if found.state != "there":
            return
        if self._clock() >= self._retention_at:
            self._retention_at = self._clock() + RETENTION_EVERY_SECONDS
            self.remove_old_heatmaps()

    def remove_old_heatmaps(self) -> int:
        """Remove heatmaps that are too old, or the oldest while there are too many bytes.

        Only files whose names the ledger knows are touched, and only of results that the broker has. Return the number
        of results that lost theirs.
        """
        limits = self.config.heatmaps
        now = self._ledger.purge.age_now(self._wall_ms(), self._clock())
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
                with self._waiting():
                    self._remove(saved)
                excess -= saved.size_bytes
                gone.append(saved.seq)
            self._ledger.purge.heatmaps_removed(gone)
            removed += len(gone)
            if len(gone) < BATCH:
                break
        return removed

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self._waits_since = self._clock()
        try:
            yield
        finally:
            self._waits_since = None

    def _look(self) -> FolderState:
        try:
            make_folder(self._folder)
            free = free_bytes(self._folder)
        except OSError as error:
            return FolderState("unreachable", f"{self._folder}: {error.strerror or error}")
        if not os.access(self._folder, os.W_OK | os.X_OK):
            return FolderState("unreachable", f"{self._folder} cannot be written to", free)
        return FolderState("there", free_bytes=free)

    def _remove(self, saved: SavedHeatmap) -> None:
        """Remove one result's heatmaps; one that cannot be removed is left behind, and does not stop the others.

        Raises OSError where the disk takes no changes: then all of them are tried again later.
        """
        stem = heatmap_stem(saved.camera, saved.mtime_ns, saved.path, saved.strip_id, saved.revision)
        heatmap = self._folder / stem
        for suffix in HEATMAP_SUFFIXES:
            try:
                heatmap.with_name(f"{heatmap.name}{suffix}").unlink(missing_ok=True)
            except OSError as error:
                if error.errno not in OF_ONE_FILE:
                    raise
                log.warning("cannot remove an old heatmap: %s", error)
        with contextlib.suppress(OSError):  # other heatmaps of that day, or somebody's files, are in it
            heatmap.parent.rmdir()

    def _missing_free_bytes(self) -> float:
        """Return how much has to go once the free space is below the floor: up to a quarter above it."""
        floor = self.config.heatmaps.min_free_gib * 2**30
        try:
            with self._waiting():
                free = free_bytes(self._folder)
        except OSError:
            return 0.0
        return floor * 1.25 - free if free < floor else 0.0
