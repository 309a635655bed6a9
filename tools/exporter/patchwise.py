"""The network on single patches: in single precision to watch it, in double precision to decide by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from tools.exporter.crops import Crops
from tools.exporter.exact import exact_network
from tools.exporter.exact_operators import NotExactError
from tools.exporter.graph import Graph, float_info, make_model
from tools.exporter.layout import Layout, Window
from tools.exporter.quantise import quantisable_layers, tensors_to_watch
from tools.exporter.reference import digest_of, patches_of
from tools.exporter.side_by_side import side_by_side
from tools.exporter.source import STRIDE
from tools.exporter.windows import whole_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tools.exporter.graph import Array
    from tools.exporter.quantise import QuantisationPlan
    from tools.exporter.reference import Seen
    from tools.exporter.source import Source


def one_patch(layout: Layout) -> Layout:
    """Lay one patch over a strip that is as large; all of it is kept."""
    height, width = layout.patch_height, layout.patch_width
    return Layout(height, width, height, width, (Window(0, 0, height),), (Window(0, 0, width),))


def cut_patches(inputs: Array, layout: Layout) -> Iterator[Array]:
    """Cut what the network takes, (channels, H, W), into (1, channels, h, w) for each patch of the layout."""
    for row, column in layout.windows:
        bottom, right = row.start + layout.patch_height, column.start + layout.patch_width
        yield inputs[None, :, row.start : bottom, column.start : right]


def patch_model(source: Source, layout: Layout, opset: int, plan: QuantisationPlan | None) -> bytes:
    """Write the network alone, `patch` (N, channels, h, w) -> heat (N, 1, h, w), for patches of this layout."""
    layout = one_patch(layout)
    graph = Graph(opset)
    heat = source.emit(graph, "patch", Crops(graph, layout, ""), plan)
    return _close(source, graph, layout, opset, [heat])


def watched_network(source: Source, layout: Layout, opset: int) -> tuple[list[str], bytes]:
    """Write the network in float so that it gives the tensors whose ranges are needed, and name these."""
    layout = one_patch(layout)
    graph = Graph(opset)
    source.emit(graph, "patch", Crops(graph, layout, ""))
    names = tensors_to_watch(graph)
    return names, _close(source, graph, layout, opset, names)


def layers_of(source: Source, layout: Layout, opset: int) -> list[str]:
    """Name the layers that can be quantised, in order."""
    graph = Graph(opset)
    source.emit_float(graph, "patch", Crops(graph, one_patch(layout), ""), integer=True)
    return quantisable_layers(graph)


def exact_heatmaps(
    source: Source,
    layout: Layout,
    plan: QuantisationPlan | None,
    looks: Sequence[tuple[Array, Array | None]],
    *,
    window: str,
    opset: int,
) -> list[Array]:
    """Compute what the file gives in double precision, the same on every processor.

    `looks` are strips, (3, H, W) in 0..1, each with the pixels to look at, (H, W) bool, or None for all. Gives their
    heatmaps, (H, W); patches that none of these pixels is kept from are NaN.
    """
    windows = whole_layout(layout, STRIDE) if window == "whole" else layout
    below, right = windows.height - layout.height, windows.width - layout.width
    network = exact_network(patch_model(source, windows, opset, plan))
    heatmaps = [np.full((layout.height, layout.width), np.nan) for _ in looks]

    def fill(task: tuple[Array, Array, Window, Window]) -> None:
        target, patch, row, column = task
        target[...] = network(patch)[0][0, 0][row.keep_start : row.keep_stop, column.keep_start : column.keep_stop]

    tasks = []
    for heatmap, (strip, pixels) in zip(heatmaps, looks, strict=True):
        inputs = np.pad(source.inputs_of(strip), ((0, 0), (0, below), (0, right)), mode="reflect")
        for (row, column), patch in zip(windows.windows, cut_patches(inputs, windows), strict=True):
            kept = windows.kept(row, column)
            if pixels is None or pixels[kept].any():
                tasks.append((heatmap[kept], patch, row, column))
    side_by_side(fill, tasks, "closer look")
    return heatmaps


def exact_heat(source: Source, layout: Layout, opset: int, title: str = "") -> Callable[[Array], Array]:
    """Give what `torch_heat` gives, patches (N, 3, h, w) in 0..1 -> heat (N, h, w), in double precision."""
    network = exact_network(patch_model(source, layout, opset, None))

    def heat(patch: Array) -> Array:
        found: Array = network(source.inputs_of(patch)[None])[0][0, 0].astype(np.float32)
        return found

    return lambda patches: np.stack(side_by_side(heat, list(patches), title))


def settle(source: Source, layout: Layout, opset: int, looks: Sequence[tuple[Array, Array | None]], seen: Seen) -> None:
    """Compute patches anew, the same on every processor: `seen` gives them so from then on.

    `looks` are strips, (3, H, W) float32 in 0..1, each with the pixels whose patches are meant, (H, W) bool, or None
    for all.
    """
    chosen = {
        digest_of(patch): patch
        for strip, pixels in looks
        for (row, column), patch in zip(layout.windows, patches_of(strip, layout), strict=True)
        if pixels is None or pixels[layout.kept(row, column)].any()
    }
    if chosen:
        seen.update(
            zip(chosen, exact_heat(source, layout, opset, "closer look")(np.stack(list(chosen.values()))), strict=True)
        )


def can_be_exact(source: Source, layout: Layout, opset: int) -> bool:
    """Tell whether double precision can compute the network: always those that are known, nearly always others."""
    return not why_not_exact(source, layout, opset)


def why_not_exact(source: Source, layout: Layout, opset: int) -> str:
    """Say why double precision cannot compute the network; "" when it can."""
    if source.known:
        return ""
    example = np.zeros((1, len(source.channels), layout.patch_height, layout.patch_width))
    try:
        exact_network(patch_model(source, layout, opset, None))(example)
    except NotExactError as error:
        return str(error)
    return ""


def _close(source: Source, graph: Graph, layout: Layout, opset: int, outputs: Sequence[str]) -> bytes:
    shape = ("batch", len(source.channels), layout.height, layout.width)
    inputs = [float_info("patch", shape)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    model: bytes = make_model(graph.finish("patch", inputs, infos), opset).SerializeToString()
    return model
