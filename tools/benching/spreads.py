"""How much figures differ between rounds of the same kind, so that a reader can tell a difference from noise."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds' figures, the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Sum up one figure for each round."""
        return cls(statistics.median(figures), min(figures), max(figures))

    def tell(self, digits: int, sign: str = "") -> str:
        """Write `0.252 (0.249 to 0.260)`; `sign` is "+" for differences."""
        median, lowest, highest = (f"{value:{sign}.{digits}f}" for value in (self.median, self.lowest, self.highest))
        return f"{median} ({lowest} to {highest})"


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that this share of all values lies below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def differences(rounds: Sequence[Sequence[float]], others: Sequence[Sequence[float]], share: float) -> list[float]:
    """Give how much higher that percentile is in each round than in the one of `others` that it took turns with."""
    pairs = zip(rounds, others, strict=True)
    return [percentile(one, share) - percentile(other, share) for one, other in pairs]
