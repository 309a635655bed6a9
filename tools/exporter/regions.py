"""Which part of each stage has to be computed for a patch, given the stitch and its neighbour. Pure arithmetic.

Convolutions run over a region with zeros around it. Where the region's edge is the patch's edge that is what the
network does; where it is a cut, each convolution spoils one more pixel inward, so a region is larger than what is
needed of it by the number of convolutions. The upsampling between two regions is exact: its coordinates are those of
the whole patch.

The encoder's first levels see little of a patch at a time, so where two patches of a row overlap they find the same,
but for the columns that see the zeros around either patch: one of the two can take them from the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.exporter.graph import Array
    from tools.exporter.layout import Window

WORTH_CUTTING = 0.97  # a region that is nearly everything costs more to cut out than it saves
WORTH_SHARING = 0.1  # of a level's columns: less costs more to put together than it saves


@dataclass(frozen=True, slots=True)
class Span:
    """Part of one axis at one stage's resolution, end excluded."""

    start: int
    stop: int

    def grown(self, margin: int, length: int) -> Span:
        """Widen on both sides, within 0..length."""
        return Span(max(0, self.start - margin), min(length, self.stop + margin))


def needed_below(span: Span, length: int) -> Span:
    """Span of the stage below (half of `length`) that bilinear upsampling with aligned corners reads for `span`."""
    low = length // 2
    first = span.start * (low - 1) // (length - 1)
    last = (span.stop - 1) * (low - 1) // (length - 1)
    return Span(first, min(low, last + 2))


def plan_axis(windows: Sequence[Window], patch: int, convolutions: Sequence[int]) -> list[list[Span]]:
    """Give for each stage, deepest first, the region of each window along one axis.

    `convolutions` counts those of each stage, deepest first, between its upsampling and its result. A stage where
    cutting saves little is whole for all windows.
    """
    stages = len(convolutions)
    lengths = [patch >> (stages - 1 - stage) for stage in range(stages)]
    needed = [Span(window.keep_start, window.keep_stop) for window in windows]
    plan: list[list[Span]] = []
    for length, margin in zip(reversed(lengths), reversed(convolutions), strict=True):
        spans = [span.grown(margin, length) for span in needed]
        if sum(span.stop - span.start for span in spans) > WORTH_CUTTING * length * len(spans):
            spans = [Span(0, length)] * len(spans)
        plan.insert(0, spans)
        needed = [needed_below(span, length) for span in spans]
    return plan


@dataclass(frozen=True, slots=True)
class Shared:
    """The columns of one encoder level that each patch of a row takes from the patch before it, by the patch's place.

    They are counted from the patch's left edge at this level's resolution. The first patch takes none: its spans are
    empty. `left_out` is what the others do not feed to the level's convolutions; the seam that this makes spoils
    columns that are taken afterwards.
    """

    length: int  # columns of a whole patch
    rim: int  # columns at either edge that see the zeros beyond it
    left_out: tuple[Span, ...]
    taken: tuple[Span, ...]
    shifts: tuple[int, ...]  # from the patch before to this one


def plan_sharing(columns: Sequence[Window], patch: int, convolutions: Sequence[int]) -> list[Shared]:
    """Give what each encoder level shares, first level first, as far as there is something worth it.

    `convolutions` counts the 3x3 ones of each level, between which columns are halved by pooling. Where the distance
    of two patches is odd their pooled columns do not lie on each other, so that nothing is shared from there on.
    """
    shifts = [later.start - earlier.start for earlier, later in pairwise(columns)]
    plan: list[Shared] = []
    rim, length = 0, patch
    for count in convolutions:
        rim += count
        taken = [Span(rim, length - rim - shift) for shift in shifts]
        left_out = [Span(span.start + count, span.stop - count) for span in taken]
        widths = [span.stop - span.start for span in left_out]
        if min(widths, default=0) < 0 or sum(widths) < WORTH_SHARING * length * len(columns):
            break
        none_left_out, none_taken = Span(rim + count, rim + count), Span(rim, rim)
        plan.append(Shared(length, rim, (none_left_out, *left_out), (none_taken, *taken), (0, *shifts)))
        if any(shift % 2 for shift in shifts):
            break
        rim, length, shifts = -(-rim // 2), length // 2, [shift // 2 for shift in shifts]
    return plan


def resize_roi(span: Span, below: Span, length: int) -> tuple[float, float]:
    """Region of interest of a Resize in `tf_crop_and_resize` from `below` to `span`, one axis.

    A coordinate beyond the last pixel by rounding would give 0, so the end is taken down until float32 arithmetic stays
    inside; the shift is a few units in the last place.
    """
    step = (length // 2 - 1) / (length - 1)
    last = below.stop - below.start - 1
    first_at, last_at = span.start * step - below.start, (span.stop - 1) * step - below.start
    start, stop = np.float32(first_at / last), np.float32(last_at / last)
    while _resize_coordinates(start, stop, last, span.stop - span.start).max() > last:
        stop = np.nextafter(stop, np.float32(0))
    return float(start), float(stop)


def _resize_coordinates(start: np.float32, stop: np.float32, last: int, count: int) -> Array:
    outputs = np.arange(count, dtype=np.float32)
    scaled: Array = start * np.float32(last) + outputs * (stop - start) * np.float32(last) / np.float32(count - 1)
    return scaled
