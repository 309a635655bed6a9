"""Write what a judgement leaves on disk: the float heatmap, the picture and the regions, all or none of them."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from dataclasses import asdict
from io import BytesIO
from typing import TYPE_CHECKING

import tifffile

from agent.files import free_bytes, make_folder, write_all_atomically
from agent.records import HeatmapFiles
from agent.worker.picture import draw

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import HeatmapsSection
    from agent.worker.checks import Pixels
    from agent.worker.scoring import Heatmap, Scored

log = logging.getLogger(__name__)

GIB = 1 << 30
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_heatmaps(
    folder: Path,
    stem: str,
    heatmap: Heatmap,
    pixels: Pixels,
    scored: Scored,
    *,
    threshold: float,
    anomalous: bool,
    settings: HeatmapsSection,
) -> HeatmapFiles:
    """Write `<stem>.tiff`, `<stem>.png` and `<stem>.json` below `folder`, as far as `settings` ask for them.

    `heatmap` is (height, width) float32 in 0..1, `pixels` (3 or 4, height, width) as stored; `stem` comes from
    `heatmap_stem`. All of them are on the disk when this returns, or none is and `state` says why: a heatmap is never
    a reason not to publish a score. The same input gives the same bytes.
    """
    wanted = {"all"} | ({"anomalous"} if anomalous else set())
    contents: dict[str, bytes] = {}
    if settings.tiff in wanted:
        contents[".tiff"] = _encode_tiff(heatmap)
    if settings.png in wanted:
        name = stem.rpartition("/")[2]
        contents[".png"] = draw(heatmap, pixels, scored, threshold=threshold, anomalous=anomalous, name=name)
    if not contents:
        return HeatmapFiles(state="by_rule")
    contents[".json"] = _encode_regions(heatmap, scored, threshold, anomalous=anomalous)
    try:
        parent = (folder / stem).parent
        make_folder(parent)
        if free_bytes(parent) < settings.min_free_gib * GIB:
            return HeatmapFiles(state="no_space")
        files = [(folder / (stem + suffix), content) for suffix, content in contents.items()]
        try:
            write_all_atomically(files)
        except FileNotFoundError:  # housekeeping has just removed the folder, which was empty
            make_folder(parent)
            write_all_atomically(files)
    except OSError as error:
        log.warning("heatmaps of %s were not written: %s", stem, error)  # to standard error: the supervisor logs it
        return HeatmapFiles(state="no_space" if error.errno in _DISK_FULL else "failed")
    return HeatmapFiles(
        tiff_path=f"{stem}.tiff" if ".tiff" in contents else "",
        tiff_sha256=hashlib.sha256(contents[".tiff"]).hexdigest() if ".tiff" in contents else "",
        png_path=f"{stem}.png" if ".png" in contents else "",
        state="saved",
        bytes_written=sum(len(content) for content in contents.values()),
    )


def _encode_tiff(heatmap: Heatmap) -> bytes:
    """Uncompressed: a heatmap's low bits are noise, and the best compression saves a fifth for 20 times the time."""
    file = BytesIO()
    tifffile.imwrite(file, heatmap, photometric="minisblack", metadata=None, software=False)
    return file.getvalue()


def _encode_regions(heatmap: Heatmap, scored: Scored, threshold: float, *, anomalous: bool) -> bytes:
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
        "regions": [asdict(region) for region in scored.regions],
    }
    return (json.dumps(facts, allow_nan=False, indent=1) + "\n").encode()
