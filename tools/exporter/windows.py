"""The full-strip graph: a loop over the patches around one copy of the network, then the stitch.

One copy of the network keeps the file small, and one patch at a time keeps the memory small; both also keep the
activations of a patch in the processor's caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from agent.contract.model import CHANNELS, INPUT_NAME, OUTPUT_NAME
from tools.exporter.channels import Channels, emit_channels
from tools.exporter.crops import Crops
from tools.exporter.graph import Graph, float_info, make_model
from tools.exporter.layout import Layout, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from tools.exporter.graph import Carried

    Emit = Callable[[Graph, str, Crops], str]  # graph, patches, crops -> heat

WHITE = 255.0  # the grey level that is 1.0


def build_model(
    emit: Emit, layout: Layout, *, opset: int, input_scale: str, image_size: tuple[int, int], channels: Channels
) -> onnx.ModelProto:
    """Build the model of the contract for strips of `image_size`, (height, width); without metadata.

    `layout` is either the windows on that strip, or one patch that holds all of it (`whole_layout`). `emit` appends the
    network: (N, channels, h, w) -> what is kept, (N, 1, ...).
    """
    outer = Graph(opset)
    strip = emit_channels(
        outer, INPUT_NAME, channels
    )  # of grey levels where those are fed: their differences are exact
    if input_scale == "gray8":
        strip = outer.add("Mul", [strip, outer.constant(1 / WHITE, np.float32)])
    if len(layout.windows) == 1:
        below, right = layout.height - image_size[0], layout.width - image_size[1]
        if below or right:
            strip = outer.add("Pad", [strip, outer.ints(0, 0, 0, 0, 0, 0, below, right)], mode="reflect")
        heatmap = emit(outer, strip, Crops(outer, layout, ""))
    else:
        body = Graph(opset, "patch/", outer)
        heat_of_all = _loop(outer, body, _patch_body(body, emit, layout, strip), len(layout.windows), strip)
        heatmap = _stitch(outer, heat_of_all, layout)
    _pad_to_output(outer, heatmap)
    shape = ("batch", CHANNELS, *image_size)
    graph = outer.finish("strip", [float_info(INPUT_NAME, shape)], [float_info(OUTPUT_NAME, shape)])
    return make_model(graph, opset)


def whole_layout(layout: Layout, stride: int) -> Layout:
    """Lay one patch over the whole strip, its sides multiples of `stride`; the strip is what is kept of it."""
    height, width = (-(-side // stride) * stride for side in (layout.height, layout.width))
    rows, columns = (Window(0, 0, layout.height),), (Window(0, 0, layout.width),)
    return Layout(height, width, height, width, rows, columns)


def _loop(outer: Graph, body: Graph, written: onnx.GraphProto, rounds: int, strip: str) -> str:
    """Append the loop over the patches; what its body carries from patch to patch begins with no columns."""
    inputs = [outer.constant(rounds, np.int64), outer.constant(True)]  # noqa: FBT003 - a tensor's value
    if body.carried:
        batch = outer.cut(outer.add("Shape", [strip]), 0, 0, 1)
    for carried in body.carried:
        shape = outer.add("Concat", [batch, outer.ints(carried.height, 0, carried.channels)], axis=0)
        nothing = numpy_helper.from_array(np.zeros(1, np.uint8))
        inputs.append(outer.add("ConstantOfShape", [shape], value=nothing))
    outputs = [outer.name("carried") for _ in body.carried] + [outer.name("loop")]
    outer.add("Loop", inputs, outputs=outputs, body=written)
    return outputs[-1]


def _patch_body(body: Graph, emit: Emit, layout: Layout, strip: str) -> onnx.GraphProto:
    index, go_on = body.name("index"), body.name("go_on")
    starts = np.array([(row.start, column.start) for row, column in layout.windows], np.int64)
    start = body.add("Gather", [body.constant(starts), index], axis=0)
    stop = body.add("Add", [start, body.ints(layout.patch_height, layout.patch_width)])
    patch = body.slice(strip, start, stop, body.ints(2, 3))
    crops = Crops(body, layout, index)
    heat = crops.pad_to_largest(emit(body, patch, crops))
    crops.look_up()
    going_on = body.add("Identity", [go_on])
    inputs = [
        helper.make_tensor_value_info(index, TensorProto.INT64, []),
        helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
        *(_carried_info(carried.before, carried) for carried in body.carried),
    ]
    outputs = [
        helper.make_tensor_value_info(going_on, TensorProto.BOOL, []),
        *(_carried_info(carried.now, carried) for carried in body.carried),
        float_info(heat, (None, 1, None, None)),
    ]
    return body.finish("patch", inputs, outputs)


def _carried_info(name: str, carried: Carried) -> onnx.ValueInfoProto:
    shape = [None, carried.height, None, carried.channels]
    return helper.make_tensor_value_info(name, TensorProto.UINT8, shape)


def _stitch(outer: Graph, heat_of_all: str, layout: Layout) -> str:
    """(patches, B, 1, h, w) -> (B, 1, H, W): join what the patches keep, columns first, then rows."""
    count = len(layout.columns)
    bands = []
    for number, row in enumerate(layout.rows):
        band = outer.cut(heat_of_all, 0, number * count, (number + 1) * count)
        parts = []
        for position, column in enumerate(layout.columns):
            starts = outer.ints(position, 0, 0)
            stops = outer.ints(position + 1, row.keep_stop - row.keep_start, column.keep_stop - column.keep_start)
            parts.append(outer.squeeze(outer.slice(band, starts, stops, outer.ints(0, 3, 4)), 0))
        bands.append(outer.add("Concat", parts, axis=3) if len(parts) > 1 else parts[0])
    return outer.add("Concat", bands, axis=2) if len(bands) > 1 else bands[0]


def _pad_to_output(outer: Graph, heatmap: str) -> None:
    """Add the two channels of zeros."""
    outer.add("Pad", [heatmap, outer.ints(0, 0, 0, 0, 0, CHANNELS - 1, 0, 0)], outputs=[OUTPUT_NAME])
