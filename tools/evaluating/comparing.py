"""Two models on the same strips: what the second one says otherwise. Pure functions of what was judged."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import comparing
from agent.comparing import Change, Verdicts, change_of, verdict_at
from tools.evaluating.figures import IOUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.evaluating.judging import Outcome

FOUND_IOU = IOUS[0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What would change; verdicts are those at each model's own threshold, `pairs` those that change most first."""

    change: Change
    pairs: list[Verdicts]  # named by the path of the strip's file
    defects_won: int
    defects_lost: int
    time_ratio: float  # the second one's seconds by the first one's, medians


def compare(before: Sequence[Outcome], after: Sequence[Outcome], thresholds: tuple[float, float]) -> Comparison:
    """Compare what two models say of the same strips, in the same order; `thresholds` are of both."""
    pairs, won, lost = [], 0, 0
    for old, new in zip(before, after, strict=True):
        for was, now in zip(old.defects, new.defects, strict=True):
            won += was.iou < FOUND_IOU <= now.iou
            lost += now.iou < FOUND_IOU <= was.iou
        verdicts = verdict_at(old.score, thresholds[0]), verdict_at(new.score, thresholds[1])
        pairs.append(Verdicts(str(old.path), verdicts, (old.score, new.score), new.defective))
    return Comparison(
        change_of(pairs),
        comparing.most_changed_first(pairs),
        won,
        lost,
        time_ratio=statistics.median(one.seconds for one in after) / statistics.median(one.seconds for one in before),
    )


def change_rows(found: Comparison) -> list[tuple[str, str]]:
    """Give what changes as rows of text."""
    return [
        *comparing.change_rows(found.change),
        (f"defects won, lost (IoU {FOUND_IOU:g})", f"{found.defects_won}, {found.defects_lost}"),
        ("time for a strip, against the first", f"{found.time_ratio:.2f}"),
    ]
