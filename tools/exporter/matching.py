"""Regions of two heatmaps, or of a heatmap and the truth: which is found again, and how well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from tools.exporter.graph import Array


@dataclass(frozen=True, slots=True)
class Match:
    """One expected region: its size, and its IoU with all found regions that touch it, taken together, 0..1."""

    area_px: int
    iou: float


def match_regions(expected: Array, found: Array, smallest_px: int) -> list[Match]:
    """Match each region of `expected` that has `smallest_px` or more; both are (H, W), not zero inside of regions.

    Pixels that touch at a corner belong together. All found regions that overlap an expected one count as one answer.
    """
    count, labels, facts, _ = cv2.connectedComponentsWithStats(expected.astype(np.uint8), connectivity=8)
    _, found_labels = cv2.connectedComponents(found.astype(np.uint8), connectivity=8)
    matches = []
    for label in range(1, count):
        area = int(facts[label, cv2.CC_STAT_AREA])
        if area < smallest_px:
            continue
        region = labels == label
        overlapping = np.isin(found_labels, np.setdiff1d(found_labels[region], [0]))
        union = int((region | overlapping).sum())
        matches.append(Match(area, int((region & overlapping).sum()) / union))
    return matches
