"""Find out how to quantise: the range of every tensor, and the layers that stay float.

All of it must come out the same on every processor, so what is close to a decision is computed in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tools.exporter.exact import exact_network
from tools.exporter.patchwise import can_be_exact, cut_patches, layers_of, patch_model, watched_network
from tools.exporter.progress import progress
from tools.exporter.quantise import QuantisationPlan
from tools.exporter.session import open_session
from tools.exporter.side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tools.exporter.exact import Found
    from tools.exporter.graph import Array
    from tools.exporter.layout import Layout
    from tools.exporter.source import Source

QUANTISED_OPSET = 13  # scales for each channel came with it
MAX_FLOAT_LAYERS = 4  # beyond the first layer, which is cheap and would lose the fractions of grey levels
HARD_PATCHES = 2  # of each hard strip
RANGE_STEP = 1 / 64  # ranges are widened to a grid, so that the last bits of a processor's sums do not reach the file
NOISE = 1e-5  # relative; a range that so little would move to another place of the grid is computed exactly


@dataclass(frozen=True, slots=True)
class Calibration:
    """The plan and how it was found."""

    plan: QuantisationPlan
    method: str
    sensitivity: Mapping[str, float]  # by layer: error of the hardest patches that goes when it alone stays float, 0..1


def calibrate(source: Source, layout: Layout, strips: Sequence[Array], opset: int) -> Calibration:
    """Take the ranges of all tensors from `strips`, (3, H, W) in 0..1; the first layer stays float.

    Nothing is clipped: where ranges leave out the rarest values, the rims of strong defects move.
    """
    first = frozenset(layers_of(source, layout, opset)[:1])
    return Calibration(QuantisationPlan(_ranges(source, layout, strips, opset), first), "extremes", {})


def quantise_everything(source: Source, layout: Layout, strips: Sequence[Array], opset: int) -> Calibration:
    """Quantise all layers, the first one too, without measuring anything: what the guard is there to catch."""
    return Calibration(QuantisationPlan(_ranges(source, layout, strips, opset)), "extremes", {})


def relieve(
    source: Source, layout: Layout, before: Calibration, hard: Sequence[tuple[Array, Array]], opset: int
) -> Calibration | None:
    """Leave one more layer in float: the one that helps most on `hard` strips; None when none helps or enough are.

    `hard` are strips (3, H, W) in 0..1 with the change of their heatmaps (H, W). The patches where it is largest are
    computed with each layer in float in turn.
    """
    if len(before.plan.float_layers) > MAX_FLOAT_LAYERS:
        return None
    patches = [patch for strip, change in hard for patch in _hardest_patches(source.inputs_of(strip), change, layout)]
    constants: Found = {}
    truth = exact_network(patch_model(source, layout, opset, None), constants)

    def network_with(float_layers: frozenset[str]) -> Callable[..., list[Array]]:
        plan = QuantisationPlan(before.plan.ranges, float_layers)
        return exact_network(patch_model(source, layout, opset, plan), constants)

    now = network_with(before.plan.float_layers)
    layers = [layer for layer in layers_of(source, layout, opset) if layer not in before.plan.float_layers]
    networks = {layer: network_with(before.plan.float_layers | {layer}) for layer in layers}
    squares, squares_with = [], []
    for number, patch in enumerate(patches, start=1):
        heat = truth(patch)[0]
        same: Found = {}
        squares.append(_square(now(patch, keep=same)[0], heat))

        def square_with(layer: str, patch: Array = patch, heat: Array = heat, same: Found = same) -> float:
            return _square(networks[layer](patch, same)[0], heat)

        title = f"which layer to leave in float, on patch {number} of {len(patches)}"
        squares_with.append(side_by_side(square_with, layers, title))
    errors = np.sqrt(np.mean(squares_with, axis=0))
    gains = {layer: float(np.sqrt(np.mean(squares)) - error) for layer, error in zip(layers, errors, strict=True)}
    best = max(layers, key=lambda layer: gains[layer])
    if gains[best] <= 0:
        return None
    plan = QuantisationPlan(before.plan.ranges, before.plan.float_layers | {best})
    return Calibration(plan, before.method, gains)


def _square(found: Array, expected: Array) -> float:
    """Square of the largest change of any pixel."""
    return float(np.abs(found - expected).max()) ** 2


def widened(low: float, high: float) -> tuple[float, float]:
    """Move both ends outwards to the grid of numbers with six bits behind the first: at most 1/32 further out."""

    def outwards(value: float) -> float:
        if not value:
            return 0.0
        unit = 2.0 ** math.floor(math.log2(abs(value) * (1 + RANGE_STEP))) * RANGE_STEP  # of where it will be
        return math.copysign(math.ceil(abs(value) / unit + RANGE_STEP) * unit, value)

    return min(0.0, outwards(min(low, 0.0))), max(0.0, outwards(max(high, 0.0)))


def _hardest_patches(inputs: Array, change: Array, layout: Layout) -> list[Array]:
    """Give the patches of one strip in whose kept part the heatmap changes most."""
    changes = [float(change[layout.kept(row, column)].max()) for row, column in layout.windows]
    patches = list(cut_patches(inputs, layout))
    return [patches[index] for index in np.argsort(changes, kind="stable")[::-1][:HARD_PATCHES]]


def _ranges(source: Source, layout: Layout, strips: Sequence[Array], opset: int) -> dict[str, tuple[float, float]]:
    """Watch every tensor on every patch of `strips`, (3, H, W) in 0..1, and widen what it reaches to the grid."""
    names, model = watched_network(source, layout, opset)
    every = (patch for strip in strips for patch in cut_patches(source.inputs_of(strip), layout))
    patches = list({patch.tobytes(): patch for patch in every}.values())  # a spot in a strip changes few of its patches
    session = open_session(model)
    low, high = (np.empty((len(patches), len(names))) for _ in range(2))
    for place, patch in enumerate(progress(patches, "ranges")):
        found = session.run(names, {"patch": patch})
        low[place], high[place] = [one.min() for one in found], [one.max() for one in found]
    near_low, near_high = _near_a_step(low, low.min(0)), _near_a_step(high, high.max(0))
    doubtful = np.flatnonzero((near_low | near_high).any(0))
    if len(doubtful) and can_be_exact(source, layout, opset):
        exact = exact_network(model)
        for place in progress(np.flatnonzero((near_low | near_high).any(1)).tolist(), "ranges near a step"):
            found = exact(patches[place])
            low[place, doubtful] = [found[number].min() for number in doubtful]
            high[place, doubtful] = [found[number].max() for number in doubtful]
    return {
        name: widened(float(low[:, number].min()), float(high[:, number].max())) for number, name in enumerate(names)
    }


def _near_a_step(values: Array, reached: Array) -> Array:
    """(patches, tensors): which values reach the end of a tensor's range where rounding moves that to another step."""

    def step(end: float) -> tuple[float, float]:
        return widened(min(end, 0.0), max(end, 0.0))

    moved = [step(end * (1 - NOISE)) != step(end * (1 + NOISE)) for end in reached.tolist()]
    near: Array = (np.abs(values - reached) <= NOISE * np.abs(reached)) & np.array(moved)
    return near
