"""What a second judgement says otherwise than a first one, strip by strip. Pure functions of what was said.

`tools/export.py compare` asks it of two models, `strip-agent replay` of a model and what was published.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Verdict = Literal["ok", "anomalous", "invalid"]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What was said of one strip, first and then; `scores` are None where it was not judged.

    `defective` is what is true of it, None where nobody knows.
    """

    name: str
    verdicts: tuple[Verdict, Verdict]
    scores: tuple[float | None, float | None]
    defective: bool | None = None

    @property
    def flips(self) -> bool:
        """Whether the verdict changes."""
        return self.verdicts[0] != self.verdicts[1]

    @property
    def mends(self) -> bool:
        """Whether the verdict becomes what is true."""
        return self.flips and self.verdicts[1] == self._truth

    @property
    def breaks(self) -> bool:
        """Whether the verdict was what is true and is so no longer, or was wrong and becomes none at all."""
        return self.flips and self.defective is not None and self.verdicts[1] != self._truth

    @property
    def shift(self) -> float | None:
        """By how much the score changes; None where there are not two."""
        before, after = self.scores
        return None if before is None or after is None else after - before

    @property
    def _truth(self) -> Verdict | None:
        return None if self.defective is None else "anomalous" if self.defective else "ok"


@dataclass(frozen=True, slots=True)
class Change:
    """What changes over all strips. The shifts are None where no strip has two scores."""

    strips: int
    known: int  # of how many somebody knows what is true
    flips: int
    kinds: dict[str, int]  # "ok to anomalous": how many
    mended: int  # flips to what is true
    broken: int  # flips away from it
    median_shift: float | None
    largest_shift: float | None

    @property
    def flipped_share(self) -> float:
        """Share of the strips whose verdict changes, 0..1."""
        return self.flips / self.strips if self.strips else 0.0


def verdict_at(score: float, threshold: float) -> Verdict:
    """Judge a score as a box does: at the threshold is anomalous."""
    return "anomalous" if score >= threshold else "ok"


def change_of(pairs: Sequence[Verdicts]) -> Change:
    """Sum up what changes."""
    flips = [pair for pair in pairs if pair.flips]
    shifts = [pair.shift for pair in pairs if pair.shift is not None]
    return Change(
        strips=len(pairs),
        known=sum(pair.defective is not None for pair in pairs),
        flips=len(flips),
        kinds=dict(sorted(Counter(" to ".join(pair.verdicts) for pair in flips).items())),
        mended=sum(pair.mends for pair in pairs),
        broken=sum(pair.breaks for pair in pairs),
        median_shift=statistics.median(shifts) if shifts else None,
        largest_shift=max(shifts, key=abs) if shifts else None,
    )


def most_changed_first(pairs: Iterable[Verdicts]) -> list[Verdicts]:
    """Order by what matters: flips away from what is true, other flips, then by the change of the score."""
    return sorted(pairs, key=lambda pair: (not pair.breaks, not pair.flips, -abs(pair.shift or 0.0)))


def change_rows(change: Change) -> list[tuple[str, str]]:
    """Give it as rows of text: name, value."""
    known = f": {change.mended} become right, {change.broken} become wrong" if change.known else ""
    rows = [("strips", str(change.strips)), ("verdicts that change", f"{change.flips}{known}")]
    rows += [(f"from {kind}", str(number)) for kind, number in change.kinds.items()]
    for name, shift in (("median", change.median_shift), ("largest", change.largest_shift)):
        if shift is not None:
            rows.append((f"change of the score, {name}", f"{shift:+.4f}"))
    return rows
