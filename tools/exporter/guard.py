"""The guard: what a model must show in onnxruntime, against torch, before its file gets its final name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.contract.model import CHANNELS, INPUT_NAME, OUTPUT_NAME, check_model
from agent.errors import Reject
from agent.worker.model import describe
from tools.exporter.errors import ExportError, told_apart
from tools.exporter.matching import match_regions
from tools.exporter.session import BATCHES, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime

    from agent.contract.model import ModelFacts
    from tools.exporter.graph import Array

REGION_PX = 20
SMALLEST_IOU = 0.8
SUSPECT_SHARE = 0.5  # of what is allowed: beyond it a strip is looked at in double precision, too
SMALLEST = 1e-12  # a limit of 0 can be asked for
FAINT_FACTOR = 2.5  # a score of a faint defect may change by so much more: there the logistic function is steepest
# Mean change of the heatmap of shapes that no calibration has seen: measured 0.01 after a good one, 0.05 to 0.1 after
# one on a strip of constant grey.
UNKNOWN_MEAN_CHANGE = 0.03


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed on each strip, all in 0..1; verdicts never flip and regions are always found again.

    `rim_px` says how far the rim of a defect may move: a pixel has changed only where its value lies outside of what
    the other heatmap has within so many pixels. There the probability climbs from 0 to 1 within a pixel or two, and a
    move by a tenth of one changes single pixels by more than a faint defect is worth.
    """

    score_change: float
    heat_change: float
    rim_px: int = 0
    overlap: float = 0.0  # least weighted overlap of a region and its surroundings


@dataclass(frozen=True, slots=True)
class Comparison:
    """One strip in torch and in onnxruntime. `worst_iou` is 1 when there is no region of REGION_PX pixels."""

    name: str
    score_torch: float
    score_onnx: float
    heat_change: float  # largest of any pixel, beyond what rims may move
    mean_change: float
    regions: int  # of REGION_PX pixels or more, in torch
    worst_iou: float
    overlap: float  # the least of all regions, weighted by the heat: sum of minima over sum of maxima
    flipped: bool
    faint: bool = False  # the exporter blended a faint defect into it

    @property
    def score_change(self) -> float:
        """Absolute change of the score."""
        return abs(self.score_onnx - self.score_torch)

    def problem(self, limits: Limits) -> str:
        """Say what is beyond the limits; "" when nothing is."""
        if self.flipped:
            return f"its verdict flips (score {self.score_torch:.3f} in torch, {self.score_onnx:.3f} in the file)"
        allowed = limits.score_change * (FAINT_FACTOR if self.faint else 1)
        if not self.score_change <= allowed:
            return "its score changes by {}, allowed is {}".format(*told_apart(self.score_change, allowed))
        if not self.heat_change <= limits.heat_change:
            shown = told_apart(self.heat_change, limits.heat_change)
            return "a pixel of its heatmap changes by {}, allowed is {}".format(*shown)
        if self.worst_iou < SMALLEST_IOU:
            shown = told_apart(self.worst_iou, SMALLEST_IOU)
            return "a defect region is found again with an IoU of {} only, {} is needed".format(*shown)
        if not self.overlap >= limits.overlap:
            shown = told_apart(self.overlap, limits.overlap)
            return "a defect region has an overlap of {} with itself, {} is needed".format(*shown)
        return ""

    def is_suspect(self, limits: Limits, threshold: float) -> bool:
        """Tell whether the same file might be beyond the limits in another processor's arithmetic."""
        half = Limits(
            limits.score_change * SUSPECT_SHARE,
            limits.heat_change * SUSPECT_SHARE,
            limits.rim_px,
            1 - (1 - limits.overlap) * SUSPECT_SHARE,
        )
        at_threshold = abs(self.score_onnx - threshold) <= limits.score_change
        return bool(self.problem(half)) or at_threshold or self.worst_iou < 1 - (1 - SMALLEST_IOU) * SUSPECT_SHARE

    def badness(self, limits: Limits) -> tuple[bool, bool, float]:
        """Order comparisons: flips first, then problems, then the share of the limits that is used up."""
        score_limit, heat_limit = max(limits.score_change, SMALLEST), max(limits.heat_change, SMALLEST)
        used = max(self.score_change / score_limit, self.heat_change / heat_limit)
        return self.flipped, bool(self.problem(limits)), used


def compare(
    name: str, expected: Array, found: Array, threshold: float, *, rim_px: int = 0, faint: bool = False
) -> Comparison:
    """Compare two heatmaps, (H, W) in 0..1; `threshold` is that of scores and of pixels, `rim_px` that of `Limits`."""
    score_torch, score_onnx = float(expected.max()), float(found.max())
    matches = match_regions(expected >= threshold, found >= threshold, REGION_PX)
    count, worst = len(matches), min((match.iou for match in matches), default=1.0)
    flipped = (score_torch >= threshold) != (score_onnx >= threshold)
    mean = float(np.abs(found - expected).mean())
    change = float(change_beyond_rims(expected, found, rim_px).max())
    overlap = _least_overlap(expected, found, threshold)
    return Comparison(name, score_torch, score_onnx, change, mean, count, worst, overlap, flipped, faint)


def pixels_to_look_at(expected: Array, found: Array, threshold: float, limits: Limits) -> Array:
    """(H, W) bool: the pixels that can bring a strip beyond `limits` in another processor's arithmetic.

    Those that change by more than a share of what is allowed, those that the score may come from, and the regions.
    """
    changed = change_beyond_rims(expected, found, limits.rim_px) > limits.heat_change * SUSPECT_SHARE
    near = limits.score_change * FAINT_FACTOR
    hottest = (expected >= expected.max() - near) | (found >= found.max() - near)
    regions = (expected >= threshold) | (found >= threshold)
    found_near: Array = cv2.dilate((changed | hottest | regions).astype(np.uint8), np.ones((5, 5), np.uint8))
    return found_near.astype(bool)


def change_beyond_rims(expected: Array, found: Array, rim_px: int) -> Array:
    """(H, W): how far each value lies outside of what the other heatmap has within `rim_px`, in either direction."""
    if rim_px == 0:
        plain: Array = np.abs(found - expected)
        return plain
    around = np.ones((2 * rim_px + 1, 2 * rim_px + 1), np.uint8)

    def outside(values: Array, other: Array) -> Array:
        beyond: Array = np.maximum(values - cv2.dilate(other, around), cv2.erode(other, around) - values)
        return beyond

    change: Array = np.maximum(outside(expected, found), outside(found, expected))
    return np.where(np.isfinite(found), np.maximum(change, 0), np.inf)


def _least_overlap(expected: Array, found: Array, threshold: float) -> float:
    """Return the least overlap of the regions of REGION_PX or more, each with two pixels around it."""
    count, labels, facts, _ = cv2.connectedComponentsWithStats((expected >= threshold).astype(np.uint8), connectivity=8)
    least = 1.0
    for label in range(1, count):
        if facts[label, cv2.CC_STAT_AREA] < REGION_PX:
            continue
        near = cv2.dilate((labels == label).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        common = np.minimum(expected[near], found[near]).sum() / np.maximum(expected[near], found[near]).sum()
        least = min(least, float(common))
    return least


def judge(comparisons: Sequence[Comparison], limits: Limits) -> tuple[Comparison, str]:
    """Give the worst comparison and its problem, "" when all are within the limits."""
    worst = max(comparisons, key=lambda comparison: comparison.badness(limits))
    return worst, worst.problem(limits)


def check_contract(model: bytes) -> tuple[onnxruntime.InferenceSession, ModelFacts]:
    """Load the model and check names, axes, dtypes, shapes, metadata; ExportError names what is wrong."""
    session = open_session(model)
    try:
        return session, check_model(describe(session))
    except Reject as refused:
        raise ExportError(
            f"The exported graph breaks the contract ({refused.detail}): report this as a fault."
        ) from refused


def check_batches(
    session: onnxruntime.InferenceSession, fed: Sequence[Array], heatmaps: Sequence[Array], tolerance: float
) -> None:
    """Run batches of 1, 2 and 4 strips: each must give its own heatmap again, channels 1 and 2 of the output are 0."""
    for batch in BATCHES:
        chosen = [index % len(fed) for index in range(batch)]
        together: Array = session.run([OUTPUT_NAME], {INPUT_NAME: np.stack([fed[index] for index in chosen])})[0]
        if together.shape != (batch, CHANNELS, *fed[0].shape[1:]):
            raise ExportError(f"A batch of {batch} gives an output of {together.shape}: report this as a fault.")
        if together[:, 1:].any():
            raise ExportError("Channels 1 and 2 of the output are not zero: report this as a fault.")
        for place, index in enumerate(chosen):
            difference = float(np.abs(heatmaps[index] - together[place, 0]).max())
            if not difference <= tolerance:
                raise ExportError(
                    f"Strip {place} of a batch of {batch} differs by {difference:.2g} from itself alone: "
                    "the network mixes the strips of a batch, export it in evaluation mode."
                )
