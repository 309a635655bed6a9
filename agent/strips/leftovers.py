"""What is left below the heatmap folder of strips whose worker died, and that no result names.

A loop of its own removes it: the heatmap folder may be a share that hangs for ever, and strips go on meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from agent.files import remove_temporary_files
from agent.heatmap_names import HEATMAP_SUFFIXES, heatmap_stem

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent.records import HeatmapFiles, Strip

log = logging.getLogger(__name__)

KEPT_IN_MIND = 10_000
AGAIN_SECONDS = 10.0
EVERYWHERE_EVERY_SECONDS = 3600.0


class Leftovers:
    """`of_...` only remember, for any thread; `step` removes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stems: deque[tuple[str, Collection[str]]] = deque(maxlen=KEPT_IN_MIND)  # and the endings that have to go
        self._bell = threading.Event()
        self._everywhere_at = time.monotonic()

    def of_lost_worker(self, strip: Strip) -> None:
        """Have the files removed that the lost worker was in the middle of writing."""
        self._remember(strip, ())

    def of_committed(self, strip: Strip, named: HeatmapFiles) -> None:
        """Have the files removed that an earlier try of the same revision wrote, and that its result does not name."""
        kept = zip(HEATMAP_SUFFIXES, (named.tiff_path, named.png_path, named.state == "saved"), strict=True)
        unnamed = [suffix for suffix, is_kept in kept if not is_kept]
        if unnamed:
            self._remember(strip, unnamed)

    def step(self, timeout_seconds: float) -> None:
        """Remove what was left; wait up to `timeout_seconds` where there is nothing."""
        if not self._stems:
            self._bell.wait(timeout_seconds)
            self._bell.clear()
        while self._stems:
            stem, suffixes = self._stems.popleft()
            try:
                self._remove(stem, suffixes)
            except OSError as error:
                log.warning("cannot remove what is left of %s yet: %s", stem, error)
                self._stems.append((stem, suffixes))
                self._bell.clear()
                self._bell.wait(min(timeout_seconds, AGAIN_SECONDS))
                return
        if time.monotonic() >= self._everywhere_at:  # of workers that nobody could blame
            self._everywhere_at = time.monotonic() + EVERYWHERE_EVERY_SECONDS
            remove_temporary_files(self._folder)

    def _remember(self, strip: Strip, suffixes: Collection[str]) -> None:
        stem = heatmap_stem(strip.camera, strip.identity.mtime_ns, strip.path, strip.strip_id, strip.revision)
        self._stems.append((stem, suffixes))
        self._bell.set()

    def _remove(self, stem: str, suffixes: Collection[str]) -> None:
        heatmap = self._folder / stem
        if not suffixes:
            remove_temporary_files(heatmap.parent)
            return
        removed = 0
        for suffix in suffixes:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                heatmap.with_name(f"{heatmap.name}{suffix}").unlink()
                removed += 1
        if removed:
            log.info("removed %d heatmap files of %s that no result names", removed, stem)
