"""Judge strips whose truth is known: scores as on a box, which defects were found, what was found besides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.records import show_name
from agent.worker.scoring import find_detections, score_heatmap
from tools.evaluating.subject import timed
from tools.evaluating.truth import read_mask
from tools.exporter.errors import ExportError
from tools.exporter.matching import match_regions
from tools.exporter.progress import progress, say
from tools.exporter.strips import WHITE, read_strip, read_strip_and_fourth

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.config import ScoringSection
    from agent.records import Region
    from tools.evaluating.subject import Subject
    from tools.evaluating.truth import Box, Truth
    from tools.exporter.graph import Array
    from tools.exporter.strips import NamedStrip

SMALLEST_PX = 1  # of a region of the truth
PIXEL_STRIPS = 48  # whose pixels are ranked: 8 million of them


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect of the truth and how well it was found; IoU with the regions that touch it, of boxes between boxes."""

    area_px: int
    iou: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One strip: its truth, its score, and what was found. `peak` is the heatmap's highest pixel, (row, column)."""

    path: Path
    defective: bool
    score: float
    peak: tuple[int, int]
    regions: tuple[Region, ...]
    defects: tuple[Defect, ...]
    detections: tuple[tuple[float, float], ...]  # (score, distance in pixels to the nearest point of the truth)
    seconds: float


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of strips that have a mask, or none because they are good: value and truth of each, in one row."""

    heat: Array
    defective: np.ndarray[Any, np.dtype[np.bool_]]
    strips: int


@dataclass(frozen=True, slots=True)
class Judged:
    """All strips of a folder."""

    outcomes: list[Outcome]
    pixels: Pixels | None
    passed_over: list[str] = field(default_factory=list)  # files that a box would not judge, with the reason


def judge_strips(subject: Subject, truths: Sequence[Truth], scoring: ScoringSection) -> Judged:
    """Run the model on every strip that can be judged; ExportError where none can."""
    outcomes, passed = [], []
    heats: list[Array] = []
    masks: list[Array] = []
    ranked = _evenly(truths, PIXEL_STRIPS)
    for truth in progress(truths, "strips"):
        try:
            strip, mask = read_with_mask(truth, subject)
        except ExportError as error:
            passed.append(str(error))
            say(f"passed over: {error}")
            continue
        heatmap, seconds = timed(subject, strip)
        if mask is not None and truth in ranked:
            heats.append(heatmap.ravel())
            masks.append(mask.ravel())
        outcomes.append(_outcome(truth, mask, heatmap, scoring, seconds))
    if not outcomes:
        raise ExportError(f"No strip could be judged; the first: {passed[0]}")
    pixels = Pixels(np.concatenate(heats), np.concatenate(masks), len(heats)) if any(m.any() for m in masks) else None
    return Judged(outcomes, pixels, passed)


def read_with_mask(truth: Truth, subject: Subject) -> tuple[NamedStrip, Array | None]:
    """Read a strip and the pixels of its defects, (height, width); None where they are not known."""
    size = (subject.height, subject.width)
    if truth.mask_in_channel_4:
        strip, fourth = read_strip_and_fourth(truth.path, size)
        return strip, fourth > 0
    strip = read_strip(truth.path, size)
    if truth.mask is not None:
        return strip, read_mask(truth.mask, *size)
    return strip, None if truth.defective else np.zeros(size, np.bool_)


def _evenly(truths: Sequence[Truth], count: int) -> list[Truth]:
    """Take `count` of them, evenly, good ones and defective ones in the same proportion."""
    in_order = sorted(truths, key=lambda truth: truth.defective)
    steps = np.linspace(0, len(in_order) - 1, min(count, len(in_order)))
    return [in_order[int(step)] for step in steps]


def _outcome(truth: Truth, mask: Array | None, heatmap: Array, scoring: ScoringSection, seconds: float) -> Outcome:
    scored = score_heatmap(heatmap, scoring)
    defective = truth.defective or (mask is not None and bool(mask.any()))
    defects: list[Defect] = []
    if mask is not None and mask.any():
        found = heatmap >= scoring.pixel_threshold
        defects = [Defect(match.area_px, match.iou) for match in match_regions(mask, found, SMALLEST_PX)]
    elif truth.boxes:
        defects = [Defect(_area(box), _best_iou(box, scored.regions)) for box in truth.boxes]
    detections = find_detections(heatmap, scoring.detections)
    return Outcome(
        truth.path,
        defective,
        scored.score,
        (scored.peak_row, scored.peak_col),
        scored.regions,
        tuple(defects),
        tuple((one.score, _nearest(truth, one.row, one.col)) for one in detections),
        seconds,
    )


def _nearest(truth: Truth, row: int, col: int) -> float:
    return min((float(np.hypot(row - at[0], col - at[1])) for at in truth.points), default=np.inf)


def _area(box: Box) -> int:
    return (box.bottom - box.top) * (box.right - box.left)


def _best_iou(box: Box, regions: Sequence[Region]) -> float:
    """Return the best IoU of a box of the truth with the box around any region."""
    best = 0.0
    for region in regions:
        rows = min(box.bottom, region.bottom) - max(box.top, region.top)
        columns = min(box.right, region.right) - max(box.left, region.left)
        if rows > 0 and columns > 0:
            common = rows * columns
            own = (region.bottom - region.top) * (region.right - region.left)
            best = max(best, common / (_area(box) + own - common))
    return best


def to_grey(strip: NamedStrip) -> Array:
    """Give the target of a strip as a picture, (height, width) uint8."""
    grey: Array = np.clip(strip.pixels[0], 0, WHITE).astype(np.uint8)
    return grey


def shown_name(path: Path) -> str:
    """Name a strip for people: its folder and its file."""
    return show_name(f"{path.parent.name}/{path.name}")
