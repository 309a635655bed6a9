"""How the calibration strips look: what a box compares its own strips with, to say what has changed on the line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.contract.exposure import WHITE
from agent.contract.measures import FEWEST_STRIPS, Reference, make_reference
from agent.contract.threshold import DEFAULT_THRESHOLD
from agent.worker.measuring import measure
from tools.exporter.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.exporter.graph import Array
    from tools.exporter.strips import NamedStrip


def reference_of(strips: Sequence[NamedStrip], heatmaps: Sequence[Array], threshold: float | None) -> Reference | None:
    """Measure strips, (3, H, W) grey levels, whose heatmaps (H, W) are known; None where they are too few.

    Where some were stretched and some not only the more frequent kind counts: they cannot be compared with each other.
    `threshold` tells good strips from others.
    """
    stretched = 2 * sum(strip.stretched for strip in strips) > len(strips)
    measured = [
        measure(strip.pixels, WHITE, float(heatmap.max()))
        for strip, heatmap in zip(strips, heatmaps, strict=True)
        if strip.stretched == stretched
    ]
    good_below = DEFAULT_THRESHOLD if threshold is None else threshold
    reference = make_reference(measured, stretched=stretched, good_below=good_below)
    if reference is None:
        say(
            f"{len(measured)} calibration strips do not show how strips vary, {FEWEST_STRIPS} do: a box takes its own "
            "first strips to see later changes by."
        )
    return reference
