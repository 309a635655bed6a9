"""Find out how to quantise: the range of every tensor, and the layers that stay float."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from tools.exporter.crops import Crops
from tools.exporter.graph import Graph, float_info, make_model
from tools.exporter.layout import Layout, Window
from tools.exporter.progress import progress
from tools.exporter.quantise import QuantisationPlan, quantisable_layers, tensors_to_watch
from tools.exporter.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnxruntime

    from tools.exporter.graph import Array
    from tools.exporter.source import Source

QUANTISED_OPSET = 13  # scales for each channel came with it
MAX_FLOAT_LAYERS = 4  # beyond the first layer, which is cheap and would lose the fractions of grey levels
HARD_PATCHES = 8
RANGE_STEP = 1 / 64  # ranges are widened to a grid, so that the last bits of a processor's sums do not reach the file


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
    names, watched = _watched_network(source, _one_patch(layout), opset)
    extremes = _extremes(
        watched, names, [patch for strip in strips for patch in _patches(source.inputs_of(strip), layout)]
    )
    ranges = {name: widened(low, high) for name, (low, high) in extremes.items()}
    first = frozenset(_layers(source, _one_patch(layout), opset)[:1])
    return Calibration(QuantisationPlan(ranges, first), "extremes", {})


def relieve(
    source: Source, layout: Layout, before: Calibration, hard: Sequence[tuple[Array, Array]], opset: int
) -> Calibration | None:
    """Leave one more layer in float: the one that helps most on `hard` strips; None when none helps or enough are.

    `hard` are strips (3, H, W) in 0..1 with the change of their heatmaps (H, W). The patches where it is largest are
    computed with each layer in float in turn, in the arithmetic that is the same on every processor.
    """
    if len(before.plan.float_layers) > MAX_FLOAT_LAYERS:
        return None
    one_patch = _one_patch(layout)
    patches = [patch for strip, change in hard for patch in _hardest_patches(source.inputs_of(strip), change, layout)]
    truth = _float_network(source, one_patch, opset)
    heats = [_run(truth, patch) for patch in patches]

    def error_with(float_layers: frozenset[str]) -> float:
        model = _patch_model(source, one_patch, opset, QuantisationPlan(before.plan.ranges, float_layers))
        session = open_session(model, integer=False)
        changes = [float(np.abs(_run(session, patch) - heat).max()) for patch, heat in zip(patches, heats, strict=True)]
        return float(np.sqrt(np.mean(np.square(changes))))

    error = error_with(before.plan.float_layers)
    layers = [layer for layer in _layers(source, one_patch, opset) if layer not in before.plan.float_layers]
    gains = {
        layer: error - error_with(before.plan.float_layers | {layer})
        for layer in progress(layers, "which layer to leave in float")
    }
    best = max(layers, key=lambda layer: gains[layer])
    if gains[best] <= 0:
        return None
    plan = QuantisationPlan(before.plan.ranges, before.plan.float_layers | {best})
    return Calibration(plan, before.method, gains)


def widened(low: float, high: float) -> tuple[float, float]:
    """Move both ends outwards to the grid of numbers with six bits behind the first: at most 1/32 further out."""

    def outwards(value: float) -> float:
        if not value:
            return 0.0
        unit = 2.0 ** math.floor(math.log2(abs(value))) * RANGE_STEP
        return math.copysign(math.ceil(abs(value) / unit + RANGE_STEP) * unit, value)

    return min(0.0, outwards(min(low, 0.0))), max(0.0, outwards(max(high, 0.0)))


def _hardest_patches(strip: Array, change: Array, layout: Layout) -> list[Array]:
    """Give the patches of one strip in whose kept part the heatmap changes most."""
    changes = []
    for row, column in layout.windows:
        top, left = row.start + row.keep_start, column.start + column.keep_start
        bottom, right = row.start + row.keep_stop, column.start + column.keep_stop
        changes.append(float(change[top:bottom, left:right].max()))
    patches = list(_patches(strip, layout))
    return [patches[index] for index in np.argsort(changes)[::-1][:HARD_PATCHES]]


def quantise_everything(source: Source, layout: Layout, strips: Sequence[Array], opset: int) -> Calibration:
    """Quantise all layers by plain extremes, without measuring anything: what the guard is there to catch."""
    names, watched = _watched_network(source, _one_patch(layout), opset)
    patches = [patch for strip in strips for patch in _patches(source.inputs_of(strip), layout)]
    return Calibration(QuantisationPlan(_extremes(watched, names, patches)), "extremes", {})


def _one_patch(layout: Layout) -> Layout:
    height, width = layout.patch_height, layout.patch_width
    return Layout(height, width, height, width, (Window(0, 0, height),), (Window(0, 0, width),))


def _patches(strip: Array, layout: Layout) -> Iterator[Array]:
    for row, column in layout.windows:
        bottom, right = row.start + layout.patch_height, column.start + layout.patch_width
        yield strip[None, :, row.start : bottom, column.start : right]


def _patch_graph(source: Source, layout: Layout, opset: int, plan: QuantisationPlan | None) -> tuple[Graph, str]:
    graph = Graph(opset)
    return graph, source.emit(graph, "patch", Crops(graph, layout, ""), plan)


def _close(source: Source, graph: Graph, layout: Layout, opset: int, outputs: Sequence[str]) -> bytes:
    shape = ("batch", len(source.channels), layout.patch_height, layout.patch_width)
    inputs = [float_info("patch", shape)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    model: bytes = make_model(graph.finish("patch", inputs, infos), opset).SerializeToString()
    return model


def _patch_model(source: Source, layout: Layout, opset: int, plan: QuantisationPlan | None) -> bytes:
    graph, heat = _patch_graph(source, layout, opset, plan)
    return _close(source, graph, layout, opset, [heat])


def _float_network(source: Source, layout: Layout, opset: int) -> onnxruntime.InferenceSession:
    return open_session(_patch_model(source, layout, opset, None))


def _watched_network(source: Source, layout: Layout, opset: int) -> tuple[list[str], onnxruntime.InferenceSession]:
    """Build a float network that also gives the tensors whose ranges are needed."""
    graph, _ = _patch_graph(source, layout, opset, None)
    names = tensors_to_watch(graph)
    return names, open_session(_close(source, graph, layout, opset, names))


def _layers(source: Source, layout: Layout, opset: int) -> list[str]:
    graph = Graph(opset)
    source.emit_float(graph, "patch", Crops(graph, layout, ""), integer=True)
    return quantisable_layers(graph)


def _extremes(
    session: onnxruntime.InferenceSession, names: Sequence[str], patches: Sequence[Array]
) -> dict[str, tuple[float, float]]:
    found = dict.fromkeys(names, (np.inf, -np.inf))
    for patch in progress(patches, "ranges"):
        for name, values in zip(names, session.run(names, {"patch": patch}), strict=True):
            low, high = found[name]
            found[name] = min(low, float(values.min())), max(high, float(values.max()))
    return found


def _run(session: onnxruntime.InferenceSession, patch: Array) -> Array:
    heat: Array = session.run(None, {"patch": patch})[0]
    return heat
