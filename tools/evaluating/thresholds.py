"""Propose a threshold: for so many false alarms or such a recall, or from good strips alone. Pure functions.

From good strips alone the tail of their scores is carried on: of the logit of the scores, the part above a high
quantile follows a generalised Pareto distribution (Pickands, "Statistical inference using extreme order statistics",
Annals of Statistics 3, 1975), fitted by probability-weighted moments (Hosking and Wallis, "Parameter and quantile
estimation for the generalized Pareto distribution", Technometrics 29, 1987). How far that reaches is said by a
bootstrap over the strips, and it reaches as far as the strips are many: 50 strips say little about one in 1,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.evaluating.figures import LEVEL
from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

Numbers = np.ndarray[Any, np.dtype[np.float64]]

TAIL = 0.2  # share of the good strips, those with the highest scores, that the tail is fitted to
FEWEST_IN_TAIL = 8
FEWEST_GOOD = 20
RESAMPLES = 400
LARGEST_SHAPE = 0.5  # so few strips show no heavier tail, nor where it ends
SMALLEST = 1e-6  # scores nearer to 0 or 1 are taken as that near


@dataclass(frozen=True, slots=True)
class Proposal:
    """A threshold, the interval in which it might as well lie, and how it was found."""

    threshold: float
    low: float
    high: float
    how: str
    warnings: tuple[str, ...] = ()


def for_false_alarms(good: Sequence[float], per_1000: float) -> Proposal:
    """Find the threshold that `per_1000` of 1,000 good strips reach, from the scores of good strips alone."""
    scores = np.asarray(good, np.float64)
    if len(scores) < FEWEST_GOOD:
        raise ExportError(f"{len(scores)} good strips are too few for a threshold, {FEWEST_GOOD} are needed: add some.")
    share = per_1000 / 1000
    random = np.random.default_rng(0)
    value = _quantile_of_tail(scores, share)
    drawn = [_quantile_of_tail(random.choice(scores, len(scores)), share) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    warnings = []
    if share * len(scores) < 1:
        needed = int(np.ceil(1 / share))
        warnings.append(
            f"{per_1000:g} in 1,000 is rarer than anything {len(scores)} strips can show: the tail is carried on "
            f"beyond them; {needed} good strips would show it"
        )
    how = f"the tail of {len(scores)} good strips, carried on to {per_1000:g} in 1,000"
    return Proposal(value, float(min(low, value)), float(max(high, value)), how, tuple(warnings))


def for_recall(defective: Sequence[float], recall: float) -> Proposal:
    """Find the highest threshold at which the share `recall` of the defective strips is anomalous."""
    if not defective:
        raise ExportError(
            "No strip has a defect, so no threshold can be found for a recall: add some, or ask for less."
        )
    scores = np.sort(np.asarray(defective, np.float64))
    random = np.random.default_rng(0)

    def lowest_found(values: Numbers) -> float:
        missed = int((1 - recall) * len(values) + 1e-9)
        return float(np.sort(values)[missed])

    value = lowest_found(scores)
    drawn = [lowest_found(random.choice(scores, len(scores))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    how = f"{recall:.0%} of {len(scores)} defective strips reach it"
    return Proposal(value, float(min(low, value)), float(max(high, value)), how)


def _quantile_of_tail(scores: Numbers, share: float) -> float:
    """Return the score that the given share of strips reaches, 0..1, carried on beyond the highest one."""
    logits = np.sort(_logit(scores))
    count = max(FEWEST_IN_TAIL, int(TAIL * len(logits)))
    if share >= count / len(logits):
        return float(_back(np.quantile(logits, 1 - share)))
    start = logits[-count - 1]
    excess = logits[-count:] - start
    if not np.any(excess > 0):
        return float(_back(start))
    shape, scale = _fit_tail(excess)
    rest = share * len(logits) / count
    beyond = -scale * np.log(rest) if abs(shape) < SMALLEST else scale / shape * (rest**-shape - 1)
    return float(_back(start + beyond))


def _fit_tail(excess: Numbers) -> tuple[float, float]:
    """Return shape and scale by probability-weighted moments; `excess` is sorted and not all zero."""
    mean = float(excess.mean())
    weighted = float((excess * np.linspace(1, 0, len(excess))).mean())
    shape = 2 - mean / (mean - 2 * weighted) if mean > 2 * weighted else LARGEST_SHAPE
    shape = float(np.clip(shape, -LARGEST_SHAPE, LARGEST_SHAPE))
    return shape, mean * (1 - shape)


def _logit(scores: Numbers) -> Numbers:
    inside = np.clip(scores, SMALLEST, 1 - SMALLEST)
    result: Numbers = np.log(inside / (1 - inside))
    return result


def _back(logit: Any) -> Any:
    return 1 / (1 + np.exp(-logit))
