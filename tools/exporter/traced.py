"""Layer 1 of a user's own network: torch exports it, its nodes are copied into the graph."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper, version_converter

from tools.exporter.errors import ExportError, reason_of
from tools.exporter.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tools.exporter.graph import Graph

TORCHSCRIPT_UP_TO = 17  # torch's newer exporter writes 18 and later, its older one what comes before
PREFIX = "net/"  # the same in every graph: ranges of tensors are known by these names
REDUCING = {f"Reduce{kind}" for kind in ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")}
CONV_AXES = 4  # outputs, inputs, height, width
CONV_INPUTS = 3  # features, weights, biases
PORTS: dict[str, Any] = {"input_names": ["patches"], "output_names": ["logits"]}


def export_layer(network: torch.nn.Module, shape: tuple[int, ...], opset: int) -> onnx.ModelProto:
    """Let torch export layer 1 for `shape` (B, channels, h, w) at this very opset; ExportError with torch's reasons.

    torch has two exporters, and some networks pass through one of them only: where the one that writes this opset
    fails, the other is tried and its result converted. A batch of 1 would be taken for a constant.
    """
    example = torch.zeros(shape)
    attempts: list[tuple[str, Callable[[], onnx.ModelProto]]] = [
        ("older", lambda: _trace(network, example, min(opset, TORCHSCRIPT_UP_TO))),
        ("newer", lambda: _capture(network, example)),
    ]
    reasons = []
    for name, export in attempts if opset <= TORCHSCRIPT_UP_TO else attempts[::-1]:
        try:
            layer = _at_opset(export(), opset)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds, some of them its own
            cause: BaseException = error
            while cause.__cause__ is not None:  # the newer exporter wraps what happened in advice
                cause = cause.__cause__
            reasons.append(f"{name} exporter: {reason_of(cause)}")
        else:
            if reasons:
                say(f"torch's {name} exporter was used, the other one failed ({reasons[0]})")
            return layer
    raise ExportError(f"Opset {opset} cannot carry this network ({'; '.join(reasons)}): try another --opset.")


def _trace(network: torch.nn.Module, example: torch.Tensor, opset: int) -> onnx.ModelProto:
    written = io.BytesIO()
    axes = {"patches": {0: "batch"}, "logits": {0: "batch"}}
    torch_export: Any = torch.onnx.export  # its annotations leave out the file objects that it takes
    with _quiet():
        torch_export(network, (example,), written, dynamo=False, opset_version=opset, dynamic_axes=axes, **PORTS)
    return onnx.load_from_string(written.getvalue())


def _capture(network: torch.nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    options: dict[str, Any] = {"external_data": False, "verbose": False, "dynamic_shapes": (batch,), **PORTS}
    torch_export: Any = torch.onnx.export
    with _quiet():
        program = torch_export(network, (example,), dynamo=True, opset_version=TORCHSCRIPT_UP_TO + 1, **options)
    layer: onnx.ModelProto = program.model_proto
    return layer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's announcements and its views of the graph to itself; its errors are told."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    unread = io.StringIO()
    sys.stdout.flush()
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # torch's native part prints as well
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
            warnings.simplefilter("ignore")
            yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)
        logging.disable(disabled)


def _at_opset(layer: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    found = next(imported.version for imported in layer.opset_import if imported.domain in ("", "ai.onnx"))
    if found == opset:
        return layer
    converted: onnx.ModelProto = version_converter.convert_version(layer, opset)
    for node in converted.graph.node if opset <= TORCHSCRIPT_UP_TO else ():
        if node.op_type in REDUCING:  # the converter leaves an attribute behind that came with 18
            kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return converted


def inline(graph: Graph, layer: onnx.ModelProto, patches: str) -> str:
    """Copy the nodes of an exported layer, without anything that tells of the exporting machine; gives the heat."""
    used = {opset.domain: opset.version for opset in layer.opset_import if opset.domain in ("", "ai.onnx")}
    if list(used.values()) != [graph.opset] or any(node.domain not in ("", "ai.onnx") for node in layer.graph.node):
        raise ExportError(f"torch exported this network at {used}, not at opset {graph.opset}: try another --opset.")
    shapes = {stored.name: tuple(stored.dims) for stored in layer.graph.initializer}
    weights = {node.input[1] for node in layer.graph.node if _has_plain_weights(node, shapes)}
    names: dict[str, str] = {"": ""}  # an input that is left out
    for initializer in layer.graph.initializer:
        array = numpy_helper.to_array(initializer)
        keep_outside = initializer.name in weights
        names[initializer.name] = graph.weight(array) if keep_outside else graph.constant(array)
    graph.add("Identity", [patches], outputs=[_renamed(layer.graph.input[0].name, names)])
    for node in layer.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        _rename(copied, names)
        if node.op_type == "Conv" and node.input[1] in weights and len(node.input) < CONV_INPUTS:
            copied.input.append(graph.constant(np.zeros(shapes[node.input[1]][0], np.float32)))  # it had no bias
        graph.nodes.append(copied)
    logits = _renamed(layer.graph.output[0].name, names)
    background, defect = (graph.cut(logits, 1, channel, channel + 1) for channel in (0, 1))
    return graph.add("Sigmoid", [graph.add("Sub", [defect, background])])


def _has_plain_weights(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell layers that can be quantised: those of images or of vectors, with weights and biases that are stored."""
    if node.op_type == "Conv":
        bias_stored = all(name in shapes for name in node.input[2:] if name)
        return len(shapes.get(node.input[1], ())) == CONV_AXES and bias_stored
    return node.op_type == "MatMul" and len(shapes.get(node.input[1], ())) == 2  # noqa: PLR2004 - rows and columns


def _renamed(name: str, names: Mapping[str, str]) -> str:
    return names.get(name, PREFIX + name)


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename all that a node and those of its branches read and write, and forget where they come from."""
    del node.metadata_props[:]
    node.doc_string = ""
    node.name = PREFIX + node.name
    node.input[:] = [_renamed(name, names) for name in node.input]
    node.output[:] = [_renamed(name, names) for name in node.output]
    for branch in _branches(node):
        del branch.value_info[:]
        branch.doc_string = ""
        for inner in branch.node:
            _rename(inner, names)
        for value in (*branch.input, *branch.output, *branch.initializer):
            value.name = _renamed(value.name, names)


def _branches(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
