"""A sketch of how one measure was spread over a day: number, mean, variance, and a histogram of 128 steps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.contract.measures import Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPS = 128
RANGES: dict[Kind, tuple[float, float]] = {  # on the scale of `on_scale`; what lies outside falls into the last step
    "level": (math.log(8), math.log(256)),
    "contrast": (math.log(2), math.log(128)),
    "noise": (math.log(0.5), math.log(128)),
    "sharpness": (math.log(0.02), math.log(1.4)),
    "shift": (-16.0, 16.0),
    "unlike": (0.0, 2.0),
    "score": (-9.3, 9.3),
}


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is kept of a measure's values; `steps` is how often each step occurs, those that do not are missing."""

    n: int
    mean: float
    m2: float  # sum of the squared distances from the mean
    steps: Mapping[int, int]

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return math.sqrt(max(self.m2, 0.0) / (self.n - 1)) if self.n > 1 else 0.0

    def middle(self, measure: str, below: float | None = None) -> float | None:
        """Return the median of the values below a limit, as if those of a step were spread evenly; None without any."""
        limit = math.inf if below is None else below
        kept = [(step, count) for step, count in sorted(self.steps.items()) if _lower_end(measure, step + 0.5) < limit]
        half = sum(count for _, count in kept) / 2
        for step, count in kept:
            if half <= count:
                return _lower_end(measure, step + half / count)
            half -= count
        return None

    def share_from(self, measure: str, limit: float) -> float:
        """Return the share of the values at or above a limit, to the step."""
        above = sum(count for step, count in self.steps.items() if _lower_end(measure, step + 0.5) >= limit)
        return above / self.n if self.n else 0.0


def step_of(measure: str, value: float) -> int:
    """Return the step of a measure's histogram that a value falls into."""
    low, high = RANGES[kind_of(measure)]
    return max(0, min(STEPS - 1, int((value - low) / (high - low) * STEPS)))


def _lower_end(measure: str, step: float) -> float:
    low, high = RANGES[kind_of(measure)]
    return low + (high - low) * step / STEPS


def parse_steps(text: str) -> dict[int, int]:
    """Read a histogram as the ledger keeps it. Raises ValueError for anything else."""
    try:
        return {int(step): int(count) for step, count in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no histogram: {text[:40]!r}") from error
