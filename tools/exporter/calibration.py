"""Find out how to quantise: the range of every tensor, the best way to choose ranges, the layers that stay float."""

from __future__ import annotations

import itertools
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
BINS = 2048
METHODS = {"minmax": 0.0, "percentile 99.999": 1e-5, "percentile 99.99": 1e-4}  # share that is clipped on each side
SAMPLE_PATCHES = 16
MAX_FLOAT_LAYERS = 4
GOOD_ENOUGH = 0.3  # of the guard's limit: no layer has to stay float below it


@dataclass(frozen=True, slots=True)
class Calibration:
    """The plan and how it was found; errors are the largest change of a pixel over sampled patches, 0..1."""

    plan: QuantisationPlan
    method: str
    method_errors: Mapping[str, float]
    sensitivity: Mapping[str, float]  # by layer: error that goes away when this layer alone stays float
    error: float


def calibrate(source: Source, layout: Layout, strips: Sequence[Array], opset: int, limit: float) -> Calibration:
    """Calibrate on `strips`, (3, H, W) in 0..1; layers are left float while the error is near `limit`."""
    patch_layout = _one_patch(layout)
    patches = [patch for strip in strips for patch in _patches(source.inputs_of(strip), layout)]
    names, watched = _watched_network(source, patch_layout, opset)
    extremes = _extremes(watched, names, patches)
    histograms = _histograms(watched, names, patches, extremes)
    sample, truth = _sample(_float_network(source, patch_layout, opset), patches)

    def error_of(plan: QuantisationPlan) -> float:
        session = open_session(_patch_model(source, patch_layout, opset, plan))
        return max(float(np.abs(_run(session, patch) - heat).max()) for patch, heat in zip(sample, truth, strict=True))

    plans = {method: QuantisationPlan(_ranges(histograms, extremes, tail)) for method, tail in METHODS.items()}
    errors = {method: error_of(plan) for method, plan in progress(list(plans.items()), "calibration methods")}
    method = min(errors, key=lambda name: errors[name])
    plan, error = plans[method], errors[method]
    layers = _layers(source, patch_layout, opset)
    sensitivity: dict[str, float] = {}
    for layer in progress(layers, "sensitivity of layers"):
        alone = QuantisationPlan(plan.ranges, frozenset({layer}))
        sensitivity[layer] = error - error_of(alone)
    for layer in sorted(layers, key=lambda name: -sensitivity[name])[:MAX_FLOAT_LAYERS]:
        if error <= GOOD_ENOUGH * limit or sensitivity[layer] <= 0:
            break
        candidate = QuantisationPlan(plan.ranges, plan.float_layers | {layer})
        candidate_error = error_of(candidate)
        if candidate_error < error:
            plan, error = candidate, candidate_error
    return Calibration(plan, method, errors, sensitivity, error)


def quantise_everything(source: Source, layout: Layout, strips: Sequence[Array], opset: int) -> Calibration:
    """Quantise all layers by plain extremes, without measuring anything: what the guard is there to catch."""
    names, watched = _watched_network(source, _one_patch(layout), opset)
    extremes = _extremes(
        watched, names, [patch for strip in strips for patch in _patches(source.inputs_of(strip), layout)]
    )
    return Calibration(QuantisationPlan(extremes), "minmax", {}, {}, float("nan"))


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


def _histograms(
    session: onnxruntime.InferenceSession,
    names: Sequence[str],
    patches: Sequence[Array],
    extremes: Mapping[str, tuple[float, float]],
) -> dict[str, Array]:
    counts = {name: np.zeros(BINS) for name in names}
    for patch in progress(patches[::2], "histograms"):
        for name, values in zip(names, session.run(names, {"patch": patch}), strict=True):
            counts[name] += np.histogram(values, BINS, extremes[name])[0]
    return counts


def _ranges(
    histograms: Mapping[str, Array], extremes: Mapping[str, tuple[float, float]], tail: float
) -> dict[str, tuple[float, float]]:
    """Cut the share `tail` off each end of every tensor's histogram."""
    ranges = dict(extremes)
    for name, counts in histograms.items():
        low, high = extremes[name]
        edges = np.linspace(low, high, BINS + 1)
        share = np.cumsum(counts) / max(counts.sum(), 1)
        first = int(np.searchsorted(share, tail)) if tail else 0
        last = int(np.searchsorted(share, 1 - tail)) if tail else BINS - 1
        ranges[name] = float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])
    return ranges


def _run(session: onnxruntime.InferenceSession, patch: Array) -> Array:
    heat: Array = session.run(None, {"patch": patch})[0]
    return heat


def _sample(session: onnxruntime.InferenceSession, patches: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Take the patches with the most undecided heat and as many evenly spread ones, and their heat in float."""
    heats = [_run(session, patch) for patch in progress(patches, "choosing patches")]
    undecided = [float((heat * (1 - heat)).sum()) for heat in heats]
    telling = sorted(range(len(patches)), key=lambda index: -undecided[index])[: SAMPLE_PATCHES // 2]
    spread = range(0, len(patches), max(1, len(patches) // (SAMPLE_PATCHES // 2)))
    chosen = sorted(set(itertools.chain(telling, spread)))[:SAMPLE_PATCHES]
    return [patches[index] for index in chosen], [heats[index] for index in chosen]
