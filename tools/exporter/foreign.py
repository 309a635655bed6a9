"""Surgery on somebody else's ONNX graph: one file, the contract's names, a dynamic batch, two channels of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # stubs are a package of their own
from onnx import TensorProto, helper, inliner, numpy_helper

from agent.contract.model import CHANNELS, INPUT_NAME, OUTPUT_NAME
from tools.exporter.errors import ExportError, reason_of, short
from tools.exporter.graph import float_info

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLOATS: dict[int, type[np.floating[Any]]] = {
    TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64
}  # fmt: skip
AXES = 4  # batch, channel, row, column
INNER = "adopted/"  # before every name of the file's own, so that none is one of the contract's
OLDEST_IR = 4  # since then weights need not be inputs


def read_merged(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and the weights that lie in files beside it; ExportError when one is missing."""
    try:
        model: onnx.ModelProto = inliner.inline_local_functions(onnx.load(path))
    except DecodeError as error:
        raise ExportError(f"{path.name} is no ONNX file, or it is damaged or cut off: copy it again.") from error
    except Exception as error:  # onnx raises its own kinds, and the system's
        raise ExportError(
            f"{path.name} cannot be read with the weights that belong to it ({reason_of(error)}): put the .onnx.data "
            "file beside it, under the name that it had."
        ) from error
    return model


def find_ports(model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """Give the input and the output; ExportError when there are several, or they are not of images in floats."""
    stored = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]  # old files list weights as inputs
    for what, values in (("input", inputs), ("output", list(model.graph.output))):
        if len(values) != 1:
            names = ", ".join(short(value.name) for value in values) or "none"
            raise ExportError(f"The file has {len(values)} {what}s ({names}), one is needed: export it with one.")
        kind = values[0].type.tensor_type.elem_type
        if kind not in FLOATS:
            name = TensorProto.DataType.Name(kind).lower() if kind else "no tensor"
            raise ExportError(f"Its {what} is of the type {name}: export it with float32.")
    shape = sides(inputs[0])
    if len(shape) != AXES or shape[1] not in (CHANNELS, None):
        shown = ", ".join("?" if side is None else str(side) for side in shape)
        raise ExportError(f"Its input is ({shown}), it must be (batch, 3, height, width): export it so.")
    return inputs[0], model.graph.output[0]


def sides(value: onnx.ValueInfoProto) -> list[int | None]:
    """Give the lengths of a tensor's axes; None for those that are not fixed."""
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]


def float_type(value: onnx.ValueInfoProto) -> type[np.floating[Any]]:
    """Give numpy's type of a port that `find_ports` has found."""
    return FLOATS[value.type.tensor_type.elem_type]


def adapt(model: onnx.ModelProto, image_size: tuple[int, int], channel: int, *, each_alone: bool) -> onnx.ModelProto:
    """Give the model with the contract's ports, for strips of `image_size` (height, width), without metadata.

    `channel` of its output is the heatmap. With `each_alone` the strips of a batch go through it one by one, for graphs
    that hold a batch of 1 somewhere inside.
    """
    strip, heat = find_ports(model)
    kind = strip.type.tensor_type.elem_type
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    _prefix(graph)
    weights = list(graph.initializer), list(graph.sparse_initializer)
    constants = {
        "one_row": np.array([-1, 1, *image_size], np.int64), "channel": np.array([channel], np.int64),
        "first": np.array(0, np.int64), "single": np.array([1], np.int64), "go": np.array(True),  # noqa: FBT003
    }  # fmt: skip
    fed = "one_strip" if each_alone else INPUT_NAME
    nodes = [
        helper.make_node("Cast", [fed], [INNER + strip.name], to=kind),
        *graph.node,
        helper.make_node("Cast", [INNER + heat.name], ["as_float"], to=TensorProto.FLOAT),
    ]
    if len(sides(heat)) == AXES:
        nodes.append(helper.make_node("Gather", ["as_float", "channel"], ["chosen"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["as_float"], ["chosen"]))
    nodes.append(helper.make_node("Reshape", ["chosen", "one_row"], ["alone" if each_alone else "heat"]))
    if each_alone:
        nodes = _one_by_one(nodes)
    nodes += [
        helper.make_node("Sub", ["heat", "heat"], ["zeros"]),
        helper.make_node("Concat", ["heat", "zeros", "zeros"], [OUTPUT_NAME], axis=1),
    ]
    shape = ("batch", CHANNELS, *image_size)
    ports = [float_info(INPUT_NAME, shape)], [float_info(OUTPUT_NAME, shape)]
    stored = [*weights[0], *(numpy_helper.from_array(values, name) for name, values in constants.items())]
    made = helper.make_graph(nodes, "adopted", *ports, initializer=stored, sparse_initializer=weights[1])
    adapted: onnx.ModelProto = helper.make_model(made, opset_imports=model.opset_import, producer_name="strip-agent")
    adapted.ir_version = max(model.ir_version, OLDEST_IR)
    return adapted


def _one_by_one(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Put the nodes into a loop over the batch: (B, 3, H, W) strip by strip -> `heat` (B, 1, H, W)."""
    take = [
        helper.make_node("Reshape", ["number", "single"], ["place"]),
        helper.make_node("Gather", [INPUT_NAME, "place"], ["one_strip"], axis=0),
    ]
    going_on = helper.make_node("Identity", ["go_on"], ["going_on"])
    body = helper.make_graph(
        [*take, *nodes, going_on],
        "strip",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            float_info("alone", (None, None, None, None)),
        ],
    )
    return [
        helper.make_node("Shape", [INPUT_NAME], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["strips"], axis=0),
        helper.make_node("Loop", ["strips", "go"], ["stacked"], body=body),
        helper.make_node("Reshape", ["stacked", "one_row"], ["heat"]),
    ]


def _prefix(graph: onnx.GraphProto) -> None:
    """Put INNER before every name, in branches and loops too; forget shapes, and what tells of where it was made."""
    for value in (*graph.input, *graph.output, *graph.initializer, *(one.values for one in graph.sparse_initializer)):
        value.name = INNER + value.name
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [INNER + name if name else "" for name in node.input]
        node.output[:] = [INNER + name if name else "" for name in node.output]
        for inner in _graphs(node):
            _prefix(inner)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
