"""From a heatmap to a score and the regions that are defects. Everything here is a function of its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from agent.records import Region

if TYPE_CHECKING:
    from agent.config import DetectionsSection, ScoringSection

Heatmap = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int32]]

MAX_REGIONS = 1000


@dataclass(frozen=True, slots=True)
class Detection:
    """One of the strip's highest pixels, and how high it is around it."""

    row: int
    col: int
    score: float  # 0..1


@dataclass(frozen=True, slots=True)
class Scored:
    """What a heatmap says; rows and columns are pixels of the strip."""

    score: float  # 0..1, pixels for `area`
    anomaly_area_px: int  # pixels >= pixel_threshold in regions of at least min_area_px
    defect_count: int  # such regions, all of them; for `detections` the number of detections
    peak_row: int  # of the heatmap's maximum, the first in reading order; for `detections` of the best one
    peak_col: int
    regions: tuple[Region, ...]  # the largest MAX_REGIONS of them, largest first
    detections: tuple[Detection, ...] = ()  # for `detections` alone, in the order in which they were found


def score_heatmap(heatmap: Heatmap, scoring: ScoringSection) -> Scored:
    """Score a heatmap, (height, width) float32 in 0..1; the verdict is the caller's."""
    labels, stats = _label(heatmap, scoring.pixel_threshold, scoring.min_area_px)
    area_px = int(stats[:, cv2.CC_STAT_AREA].sum())
    regions = _describe(heatmap, labels, stats)
    if scoring.method == "detections":
        detections = find_detections(heatmap, scoring.detections)
        best = max(detections, key=lambda detection: detection.score)  # the first found of equal ones
        return Scored(best.score, area_px, len(detections), best.row, best.col, regions, detections)
    peak_row, peak_col = divmod(int(heatmap.argmax()), heatmap.shape[1])
    return Scored(
        _score(heatmap, area_px, scoring.method, scoring.top_k),
        area_px,
        int(np.count_nonzero(stats[:, cv2.CC_STAT_AREA])),
        peak_row,
        peak_col,
        regions,
    )


def _score(heatmap: Heatmap, anomaly_area_px: int, method: Literal["max", "top_k_mean", "area"], top_k: int) -> float:
    """Return the maximum, the mean of the `top_k` highest pixels, or the area."""
    if method == "area":
        return float(anomaly_area_px)
    return float(heatmap.max()) if method == "max" else _mean_of_highest(heatmap, top_k)


def _mean_of_highest(pixels: Heatmap, count: int) -> float:
    """Of `count` of them; of all, if there are fewer."""
    kept = min(count, pixels.size)
    return float(np.partition(pixels, pixels.size - kept, axis=None)[-kept:].mean(dtype=np.float64))


def find_detections(heatmap: Heatmap, rule: DetectionsSection) -> tuple[Detection, ...]:
    """Take the highest pixel (of equal ones the first in reading order), blank what is near it, and again.

    Only pixels at or above the percentile that `top_percent` leaves are taken; so there is one detection at least.
    Windows are cut off at the edges, and see the heatmap as it was before anything was blanked.
    """
    height, width = heatmap.shape
    above = int((heatmap.size - 1) * rule.top_percent / 100 + 1e-9)  # pixels above the percentile, if all differ
    lowest = np.partition(heatmap, heatmap.size - 1 - above, axis=None)[heatmap.size - 1 - above]
    left = np.where(heatmap >= lowest, heatmap, np.float32(-1))
    radius, half = rule.radius_px, rule.window_px // 2
    detections: list[Detection] = []
    while len(detections) < rule.max_detections:
        row, col = divmod(int(left.argmax()), width)
        if left[row, col] < 0:
            break
        window = heatmap[max(0, row - half) : row + half + 1, max(0, col - half) : col + half + 1]
        detections.append(Detection(row, col, _mean_of_highest(window, rule.top_k)))
        top, start = max(0, row - radius), max(0, col - radius)
        rows, cols = np.ogrid[top : min(height, row + radius + 1), start : min(width, col + radius + 1)]
        near = left[top : row + radius + 1, start : col + radius + 1]
        near[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2] = -1
    return tuple(detections)


def _label(heatmap: Heatmap, pixel_threshold: float, min_area_px: int) -> tuple[Integers, Integers]:
    """Return each pixel's region (0: none) and OpenCV's statistics of each region; one that is too small has area 0.

    Pixels that touch at a corner belong together.
    """
    reached = heatmap >= pixel_threshold
    if not reached.any():  # as on most strips: OpenCV would take a millisecond to find that there is nothing
        return np.zeros((1, 1), np.int32), np.zeros((1, cv2.CC_STAT_MAX), np.int32)
    mask = reached.view(np.uint8)
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
