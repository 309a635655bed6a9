"""The strips that an export is proven on: those of the line or made-up ones, and faint defects blended into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tools.exporter.blend import FAINT, LOWEST, NOTICED, blend_defects, is_telling
from tools.exporter.errors import ExportError
from tools.exporter.patchwise import exact_heat, settle
from tools.exporter.proving import Proven, references
from tools.exporter.reference import Seen, reference_heatmap, torch_heat
from tools.exporter.separation import MOST_STRIPS, NOISE, Separation, check_separation, separate
from tools.exporter.strips import NamedStrip, feed, made_up_strips, read_folder, read_strip

if TYPE_CHECKING:
    from tools.exporter.graph import Array
    from tools.exporter.layout import Layout
    from tools.exporter.options import Options
    from tools.exporter.source import Source

SAME = 1e-3  # of a heatmap's maximum: what is within it may be the maximum on another processor
COLD = 5e-5  # heat below which no score is told from another
FEWEST_STRIPS = 8  # of the line, for int8: less do not show the ranges


def strips_of(asked: Options, layout: Layout) -> list[NamedStrip]:
    """Read the strips asked for, else make some up; the golden one last."""
    size = (layout.height, layout.width)
    fewest = FEWEST_STRIPS if asked.precision == "int8" else 1
    strips = read_folder(asked.calibration, size, fewest) if asked.calibration else made_up_strips(size)
    return strips + ([read_strip(asked.golden, size)] if asked.golden else [])


def settled(
    source: Source, layout: Layout, opset: int, strips: list[NamedStrip], seen: Seen, *, can_be_exact: bool
) -> list[Proven]:
    """Compute every strip in torch, and where it can be in double precision what decides about the file's bytes.

    That are the patches that hold the score, and those where a defect is noticed or just not.
    """
    proven = references(source, layout, strips, seen)
    if not can_be_exact:
        return proven
    looks = []
    for one in proven:
        hottest = one.expected >= max(float(one.expected.max()) * (1 - SAME), COLD)
        looks.append((feed(one.strip, "unit"), hottest | (np.abs(one.expected - NOTICED) <= NOISE)))
    settle(source, layout, opset, looks, seen)
    return references(source, layout, strips, seen)


def see_defects(
    source: Source, layout: Layout, proven: list[Proven], asked: Options, seen: Seen, *, can_be_exact: bool
) -> Separation:
    """See that the network tells defects from none, and what lies between; ExportError where it is blind.

    Where single precision might choose another threshold on another processor, all is computed again in double.
    """

    def heatmap_of(pixels: Array) -> Array:
        return reference_heatmap(source.module, layout, feed(NamedStrip("painted", pixels), "unit"), seen=seen)

    def exact_heatmap_of(pixels: Array) -> Array:
        settle(source, layout, asked.opset, [(feed(NamedStrip("painted", pixels), "unit"), None)], seen)
        return heatmap_of(pixels)

    strips, heatmaps = [one.strip.pixels for one in proven], [one.expected for one in proven]
    of_the_line = asked.calibration is not None
    found = separate(strips, heatmaps, heatmap_of, of_the_line=of_the_line)
    if can_be_exact and asked.threshold is None and not found.is_settled:
        if of_the_line:
            heatmaps[:MOST_STRIPS] = [exact_heatmap_of(pixels) for pixels in strips[:MOST_STRIPS]]
        found = separate(strips, heatmaps, exact_heatmap_of, of_the_line=of_the_line)
    if not asked.allow_blind:
        check_separation(found, asked.threshold)
    return found


def faint_defects(
    source: Source, layout: Layout, proven: list[Proven], asked: Options, seen: Seen, *, can_be_exact: bool
) -> list[Proven]:
    """Blend a faint defect into each strip; ExportError when nothing makes the network react."""
    threshold = asked.verdict_threshold
    strips, heatmaps = [one.strip for one in proven], [one.expected for one in proven]
    exactly = exact_heat(source, layout, asked.opset) if can_be_exact else None
    blended = blend_defects(strips, heatmaps, layout, torch_heat(source.module), threshold, exactly)
    computed = settled(source, layout, asked.opset, blended, seen, can_be_exact=can_be_exact)
    faint = [one for one in computed if is_telling(float(one.expected.max()), threshold)]
    if max(float(one.expected.max()) for one in proven + faint) < LOWEST:
        raise ExportError(
            "No calibration strip makes the network react, nor does a spot blended into one, so nothing can be "
            "proven on them: add strips of the line, some with defects."
        )
    return faint


def golden_strip(asked: Options, proven: list[Proven]) -> Proven:
    """Choose the strip asked for, else the most telling: most pixels that are neither 0 nor 1."""
    if asked.golden:
        return [one for one in proven if one.strip.name == asked.golden.name][-1]
    if asked.calibration:
        real = [one for one in proven if not one.strip.name.endswith(FAINT)]
        return max(real, key=lambda one: float((one.expected * (1 - one.expected)).sum(dtype=np.float64)))
    return next(one for one in proven if one.strip.name == "shapes")
