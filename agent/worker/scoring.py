"""From a heatmap to a score and the regions that are defects. Everything here is a function of its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from agent.records import Region

if TYPE_CHECKING:
    from agent.config import ScoringSection

Heatmap = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int32]]
Method = Literal["max", "top_k_mean", "area"]

MAX_REGIONS = 1000


@dataclass(frozen=True, slots=True)
class Scored:
    """What a heatmap says; rows and columns are pixels of the strip."""

    score: float  # 0..1, pixels for `area`
    anomaly_area_px: int  # pixels >= pixel_threshold in regions of at least min_area_px
    defect_count: int  # such regions, all of them
    peak_row: int  # of the heatmap's maximum, the first in reading order
    peak_col: int
    regions: tuple[Region, ...]  # the largest MAX_REGIONS of them, largest first


def score_heatmap(heatmap: Heatmap, scoring: ScoringSection) -> Scored:
    """Score a heatmap, (height, width) float32 in 0..1; the verdict is the caller's."""
    labels, stats = _label(heatmap, scoring.pixel_threshold, scoring.min_area_px)
    area_px = int(stats[:, cv2.CC_STAT_AREA].sum())
    peak_row, peak_col = divmod(int(heatmap.argmax()), heatmap.shape[1])
    return Scored(
        score(heatmap, area_px, method=scoring.method, top_k=scoring.top_k),
        area_px,
        int(np.count_nonzero(stats[:, cv2.CC_STAT_AREA])),
        peak_row,
        peak_col,
        _describe(heatmap, labels, stats),
    )


def score(heatmap: Heatmap, anomaly_area_px: int, *, method: Method, top_k: int) -> float:
    """Return the maximum, the mean of the `top_k` highest pixels (of all, if there are fewer), or the area."""
    if method == "area":
        return float(anomaly_area_px)
    if method == "max":
        return float(heatmap.max())
    kept = min(top_k, heatmap.size)
    return float(np.partition(heatmap, heatmap.size - kept, axis=None)[-kept:].mean(dtype=np.float64))


def _label(heatmap: Heatmap, pixel_threshold: float, min_area_px: int) -> tuple[Integers, Integers]:
    """Return each pixel's region (0: none) and OpenCV's statistics of each region; one that is too small has area 0.

    Pixels that touch at a corner belong together.
    """
    mask = (heatmap >= pixel_threshold).view(np.uint8)
    _, found, found_stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    labels, stats = np.asarray(found, np.int32), np.asarray(found_stats, np.int32)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    areas[areas < min_area_px] = 0
    return labels, stats


def _describe(heatmap: Heatmap, labels: Integers, stats: Integers) -> tuple[Region, ...]:
    """Describe the largest regions, those of the same area in reading order."""
    tops, lefts, areas = stats[:, cv2.CC_STAT_TOP], stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_AREA]
    order = np.lexsort((lefts, tops, -areas))[: min(MAX_REGIONS, np.count_nonzero(areas))]
    return tuple(_region(heatmap, labels, label, stats[label].tolist()) for label in order.tolist())


def _region(heatmap: Heatmap, labels: Integers, label: int, stats: list[int]) -> Region:
    left, top, width, height, area = stats
    box = np.s_[top : top + height, left : left + width]
    inside = np.where(labels[box] == label, heatmap[box], np.float32(-1))
    row, col = divmod(int(inside.argmax()), width)
    return Region(top, left, top + height, left + width, area, float(inside[row, col]), top + row, left + col)
