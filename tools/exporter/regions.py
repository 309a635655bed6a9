"""Which part of each decoder stage a patch really needs, given what the stitch keeps of it. Pure arithmetic.

Convolutions run over a region with zeros around it. Where the region's edge is the patch's edge that is what the
network does; where it is a cut, each convolution spoils one more pixel inward, so a region is larger than what is
needed of it by the number of convolutions. The upsampling between two regions is exact: its coordinates are those of
the whole patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.exporter.graph import Array
    from tools.exporter.layout import Window

WORTH_CUTTING = 0.97  # a region that is nearly everything costs more to cut out than it saves


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
