"""The figures of a model on strips whose truth is known, each with an interval of 95 %. Pure functions.

Rates (recall, false alarms) have the exact interval of Clopper and Pearson, "The use of confidence or fiducial limits",
Biometrika 26 (1934). Rankings (AUROC, average precision) have percentile bootstrap intervals, Efron and Tibshirani, "An
Introduction to the Bootstrap" (1993), good and defective strips drawn apart; where no pair of strips is in the wrong
order the bootstrap sees no spread at all, and the lower end is what so few strips can rule out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tools.evaluating.judging import Outcome, Pixels

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Truths = np.ndarray[Any, np.dtype[np.bool_]]

LEVEL = 0.95
RESAMPLES = 1000
FEW_STRIPS = 30  # of one kind: below it an interval is wider than most decisions can bear
IOUS = (0.1, 0.3, 0.5)
SIZES_PX = (("small", 0, 32), ("medium", 32, 128), ("large", 128, 1 << 62))  # from, to (excluded)
DETECTIONS_KEPT = (30, 50, 150, 500)
NEAR_PX = 3.0  # a detection so near to the point of the truth has found it


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval, and of how many it was taken."""

    value: float
    low: float
    high: float
    count: int

    def describe(self, digits: int = 3) -> str:
        """Say it in one line."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Verdicts at one threshold."""

    threshold: float
    found: int  # defective and anomalous
    missed: int
    passed: int  # good and ok
    false_alarms: int

    @property
    def recall(self) -> Figure:
        """Share of the defective strips that are anomalous."""
        return rate(self.found, self.found + self.missed)

    @property
    def false_alarms_per_1000(self) -> Figure:
        """Of 1,000 good strips."""
        share = rate(self.false_alarms, self.false_alarms + self.passed)
        return Figure(1000 * share.value, 1000 * share.low, 1000 * share.high, share.count)


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it; None where the truth does not say enough."""

    strips: int
    defective: int
    auroc: Figure | None
    average_precision: Figure | None
    confusion: Confusion
    defects: dict[str, Figure]  # "IoU 0.1", "IoU 0.1, small", ...: share of the defects that were found so well
    pixel_auroc: float | None
    pixel_average_precision: float | None
    recall_at: dict[int, Figure]  # of the K best detections of all strips: share of the points that were found
    warnings: tuple[str, ...]


def evaluate(outcomes: Sequence[Outcome], pixels: Pixels | None, threshold: float) -> Figures:
    """Compute all figures of one model at one threshold of its scores."""
    from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415 - takes a second to load

    truth = np.array([one.defective for one in outcomes], np.bool_)
    scores = np.array([one.score for one in outcomes], np.float64)
    defective, good = int(truth.sum()), int((~truth).sum())
    both = bool(defective and good)
    return Figures(
        strips=len(outcomes),
        defective=defective,
        auroc=ranking(truth, scores, roc_auc_score) if both else None,
        average_precision=ranking(truth, scores, average_precision_score) if both else None,
        confusion=confusion(truth, scores, threshold),
        defects=defects_found(outcomes),
        pixel_auroc=float(roc_auc_score(pixels.defective, pixels.heat)) if pixels else None,
        pixel_average_precision=float(average_precision_score(pixels.defective, pixels.heat)) if pixels else None,
        recall_at=recall_at(outcomes),
        warnings=_warnings(good, defective),
    )


def rate(hits: int, count: int) -> Figure:
    """Return hits / count with its exact interval; with nothing counted it may be anything from 0 to 1."""
    from scipy.stats import binomtest  # noqa: PLC0415 - takes half a second to load

    if not count:
        return Figure(float("nan"), 0.0, 1.0, 0)
    interval = binomtest(hits, count).proportion_ci(LEVEL, method="exact")
    return Figure(hits / count, float(interval.low), float(interval.high), count)


def ranking(truth: Truths, scores: Numbers, measure: Callable[[Truths, Numbers], float]) -> Figure:
    """Measure how well scores rank defective strips above good ones; at least one of each is needed."""
    value = float(measure(truth, scores))
    random = np.random.default_rng(0)  # the same figures for the same strips
    bad, good = scores[truth], scores[~truth]
    known = np.repeat([True, False], [len(bad), len(good)])
    drawn = [
        float(measure(known, np.concatenate([random.choice(bad, len(bad)), random.choice(good, len(good))])))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    fewest = min(len(bad), len(good))
    if value > 1 - 1e-12:  # no pair is in the wrong order
        low = min(low, ((1 - LEVEL) / 2) ** (1 / fewest))
    return Figure(value, float(low), float(high), len(scores))


def confusion(truth: Truths, scores: Numbers, threshold: float) -> Confusion:
    """Count verdicts; a score at the threshold is anomalous, as on a box."""
    anomalous = scores >= threshold
    return Confusion(
        float(threshold),
        found=int((truth & anomalous).sum()),
        missed=int((truth & ~anomalous).sum()),
        passed=int((~truth & ~anomalous).sum()),
        false_alarms=int((~truth & anomalous).sum()),
    )


def confusion_of(outcomes: Sequence[Outcome], threshold: float) -> Confusion:
    """Count the verdicts of judged strips at a threshold."""
    truth = np.array([one.defective for one in outcomes], np.bool_)
    return confusion(truth, np.array([one.score for one in outcomes], np.float64), threshold)


def defects_found(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    """Return the share of the defects that were found with each IoU, all of them and by size."""
    defects = [defect for one in outcomes for defect in one.defects]
    found: dict[str, Figure] = {}
    for iou in IOUS if defects else ():
        found[f"IoU {iou:g}"] = rate(sum(defect.iou >= iou for defect in defects), len(defects))
        for size, smallest, largest in SIZES_PX:
            of_size = [defect for defect in defects if smallest <= defect.area_px < largest]
            if of_size:
                found[f"IoU {iou:g}, {size}"] = rate(sum(defect.iou >= iou for defect in of_size), len(of_size))
    return found


def recall_at(outcomes: Sequence[Outcome]) -> dict[int, Figure]:
    """Rank the detections of all strips together; of the best K, which found the point of their strip."""
    points = sum(any(np.isfinite(distance) for _, distance in one.detections) for one in outcomes)
    if not points:
        return {}
    ranked = sorted(
        ((score, number, distance) for number, one in enumerate(outcomes) for score, distance in one.detections),
        key=lambda detection: -detection[0],
    )
    return {
        kept: rate(len({number for _, number, distance in ranked[:kept] if distance <= NEAR_PX}), points)
        for kept in DETECTIONS_KEPT
    }


def _warnings(good: int, defective: int) -> tuple[str, ...]:
    few = [f"{count} {kind}" for count, kind in ((good, "good"), (defective, "defective")) if count < FEW_STRIPS]
    if not few:
        return ()
    return (f"only {' and '.join(few)} strips: the intervals are wide, do not decide by the figures alone",)
