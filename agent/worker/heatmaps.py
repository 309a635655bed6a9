"""What a judgement leaves on disk: the float heatmap, the picture and the regions, all or none of them.

Strips never wait for the folder for long: it may be on a share that hangs for ever, or is slow.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import threading
import time
from dataclasses import asdict
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import tifffile

from agent.files import free_bytes, make_folder, write_all_atomically
from agent.records import HeatmapFiles
from agent.worker.picture import draw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import HeatmapsSection
    from agent.worker.checks import Pixels
    from agent.worker.ignored import Mask
    from agent.worker.scoring import Heatmap, Scored

log = logging.getLogger(__name__)

GIB = 1 << 30
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
PAUSES_FOR_EACH_WAIT = 9


def encode_heatmaps(
    heatmap: Heatmap,
    pixels: Pixels,
    scored: Scored,
    *,
    threshold: float,
    anomalous: bool,
    settings: HeatmapsSection,
    name: str,
    ignored: Mask | None = None,
) -> dict[str, bytes]:
    """Make what `settings` ask for: the bytes of each file by its ending, `.json` with any of the others.

    `heatmap` is (height, width) float32 in 0..1, `pixels` (3 or 4, height, width) as stored; `ignored` says where the
    heatmap was blanked; `name` stands on the picture. The same input gives the same bytes.
    """
    wanted = {"all"} | ({"anomalous"} if anomalous else set())
    contents: dict[str, bytes] = {}
    if settings.tiff in wanted:
        contents[".tiff"] = _encode_tiff(heatmap)
    if settings.png in wanted:
        contents[".png"] = draw(heatmap, pixels, scored, ignored, threshold=threshold, anomalous=anomalous, name=name)
    if contents:
        contents[".json"] = _encode_regions(heatmap, scored, ignored, threshold, anomalous=anomalous)
    return contents


class HeatmapWriter:
    """Writes one judgement's files after the other below `folder`. For one thread.

    A thread of its own writes them, and is not waited for longer than `patience_seconds`. What has been given up then
    is removed should it get there all the same. Until the thread has come back, and for nine times as long as was
    waited in vain, nothing is written: a folder that hangs or is slow costs heatmaps, and a tenth of the time at most.
    """

    def __init__(
        self,
        folder: Path,
        min_free_gib: float,
        patience_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._min_free_gib = min_free_gib
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._last: _Attempt | None = None
        self._again_at = float("-inf")

    def write(self, stem: str, contents: dict[str, bytes]) -> HeatmapFiles:
        """Write `<stem><ending>` for each of `contents`; `stem` comes from `heatmap_stem`.

        All of them are on the disk when this returns, or `state` says why not: a heatmap is never a reason not to
        publish a score.
        """
        return self.begin(stem, contents)()

    def begin(self, stem: str, contents: dict[str, bytes]) -> Callable[[], HeatmapFiles]:
        """Begin to write, and return what waits until it is done and says what `write` does; to be called once."""
        if not contents:
            return partial(HeatmapFiles, state="by_rule")
        if (self._last is not None and self._last.is_alive()) or self._clock() < self._again_at:
            return partial(HeatmapFiles, state="failed")
        self._last = _Attempt(self._folder, stem, contents, self._min_free_gib)
        try:
            self._last.start()
        except RuntimeError as error:  # no threads left, or no memory for one
            log.warning("heatmaps of %s were not written: %s", stem, error)
            self._last = None
            return partial(HeatmapFiles, state="failed")
        return partial(self._finish, self._last, stem)

    def _finish(self, attempt: _Attempt, stem: str) -> HeatmapFiles:
        attempt.join(self._patience_seconds)
        files = attempt.files_so_far()
        if files is None:
            pause_seconds = PAUSES_FOR_EACH_WAIT * self._patience_seconds
            self._again_at = self._clock() + pause_seconds
            log.warning(
                "heatmaps of %s were not written: %s has not taken them within %g s; no others for %g s",
                stem, self._folder, self._patience_seconds, pause_seconds,
            )  # fmt: skip
            return HeatmapFiles(state="failed")
        return files


class _Attempt(threading.Thread):
    """Writes the files of one judgement; removes them when nobody waits for them any more."""

    def __init__(self, folder: Path, stem: str, contents: dict[str, bytes], min_free_gib: float) -> None:
        super().__init__(name="heatmaps", daemon=True)
        self._arguments = folder, stem, contents, min_free_gib
        self._lock = threading.Lock()
        self._files: HeatmapFiles | None = None
        self._given_up = False

    def files_so_far(self) -> HeatmapFiles | None:
        """Return what was written; None where it is under way, and is given up by that."""
        with self._lock:
            self._given_up = self._files is None
            return self._files

    def run(self) -> None:
        """Write."""
        folder, stem, contents, _ = self._arguments
        files = _write(*self._arguments)
        with self._lock:
            self._files = files
            if not self._given_up:
                return
        for ending in contents:
            with contextlib.suppress(OSError):
                (folder / (stem + ending)).unlink(missing_ok=True)


def _write(folder: Path, stem: str, contents: dict[str, bytes], min_free_gib: float) -> HeatmapFiles:
    try:
        parent = (folder / stem).parent
        make_folder(parent)
        if free_bytes(parent) < min_free_gib * GIB:
            return HeatmapFiles(state="no_space")
        files = [(folder / (stem + ending), content) for ending, content in contents.items()]
        try:
            write_all_atomically(files)
        except FileNotFoundError:  # retention has just removed the folder, which was empty
            make_folder(parent)
            write_all_atomically(files)
    except (OSError, MemoryError) as error:
        log.warning("heatmaps of %s were not written: %s", stem, error)  # to standard error: the supervisor logs it
        full = isinstance(error, OSError) and error.errno in _DISK_FULL
        return HeatmapFiles(state="no_space" if full else "failed")
    return HeatmapFiles(
        tiff_path=f"{stem}.tiff" if ".tiff" in contents else "",
        tiff_sha256=_digest(contents, ".tiff"),
        png_path=f"{stem}.png" if ".png" in contents else "",
        png_sha256=_digest(contents, ".png"),
        state="saved",
        bytes_written=sum(len(content) for content in contents.values()),
    )


def _digest(contents: dict[str, bytes], ending: str) -> str:
    return hashlib.sha256(contents[ending]).hexdigest() if ending in contents else ""


def _encode_tiff(heatmap: Heatmap) -> bytes:
    """Uncompressed: a heatmap's low bits are noise, and the best compression saves a fifth for 20 times the time."""
    file = BytesIO()
    tifffile.imwrite(file, heatmap, photometric="minisblack", metadata=None, software=False)
    return file.getvalue()


def _encode_regions(
    heatmap: Heatmap, scored: Scored, ignored: Mask | None, threshold: float, *, anomalous: bool
) -> bytes:
    facts = {
        "schema": "regions/1",
        "height": heatmap.shape[0],
        "width": heatmap.shape[1],
        "score": scored.score,
        "threshold": threshold,
        "anomalous": anomalous,
        "anomaly_area_px": scored.anomaly_area_px,
        "defect_count": scored.defect_count,
        "peak_row": scored.peak_row,
        "peak_col": scored.peak_col,
        "ignored_px": 0 if ignored is None else int(ignored.sum()),
        "regions": [asdict(region) for region in scored.regions],
        "detections": [asdict(detection) for detection in scored.detections],
    }
    return (json.dumps(facts, allow_nan=False, indent=1) + "\n").encode()
