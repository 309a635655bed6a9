"""Tell a person what any ONNX file is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # stubs are a package of their own

from agent.contract.model import PREFIX, check_model
from agent.errors import Reject
from tools.exporter.errors import ExportError
from tools.exporter.session import describe, open_session, prove_golden, run_strip
from tools.exporter.strips import feed, made_up_strips

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_VALUE = 200
RUNTIME_MIB = 50  # the interpreter and onnxruntime before any model is loaded, measured
COPIES = 2.2  # of the weights while onnxruntime loads and lays them out anew, measured on both precisions
FLAT = 0.05  # a heatmap that moves less than this over strips that differ a lot says nothing


def inspect_model(content: bytes) -> Iterator[str]:
    """Yield lines about a model: size, opset, nodes, ports, metadata, contract, golden strip, input scale, memory."""
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise ExportError("This is not an ONNX file (it cannot be parsed): give one that an exporter wrote.") from error
    if not model.graph.node:
        raise ExportError("This is not an ONNX file (it has no nodes): give one that an exporter wrote.")
    opsets = ", ".join(f"{opset.domain or 'default'} {opset.version}" for opset in model.opset_import)
    maker = model.producer_name or "nobody who says so"
    yield f"size      {len(content) / 1e6:.1f} MB, opset {opsets}, file version {model.ir_version}, by {maker}"
    weights = sum(_weight_bytes(graph) for graph in _graphs(model.graph))
    histogram = Counter(node.op_type for graph in _graphs(model.graph) for node in graph.node)
    yield f"weights   {weights / 1e6:.1f} MB"
    yield "nodes     " + ", ".join(f"{count} {op}" for op, count in histogram.most_common())
    memory = RUNTIME_MIB + COPIES * weights / 2**20 + _activations_mib(model)
    yield f"memory    about {memory:.0f} MiB while it is loaded and run"
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    for key, value in sorted(metadata.items()):
        shown = value if len(value) <= LONGEST_VALUE else f"{value[:60]}... ({len(value)} characters)"
        yield f"metadata  {key.removeprefix(PREFIX)} = {shown}"
    yield from _run(content)


def _run(content: bytes) -> Iterator[str]:
    session = open_session(content)
    description = describe(session)
    for port in (*description.inputs, *description.outputs):
        yield f"port      {port.name} {port.dtype} {list(port.shape)}"
    try:
        facts = check_model(description)
        yield f"contract  met{'' if facts.labelled else ', but without metadata'}"
        difference = prove_golden(session, facts)
    except Reject as refused:
        yield f"contract  NOT met ({refused.reason}): {refused.detail}"
        return
    if difference is None:
        yield "golden    none: a box cannot prove this file"
    else:
        verdict = "reproduced" if difference <= (facts.golden_tolerance or 0) else "NOT reproduced"
        yield f"golden    {verdict} here: off by {difference:.1e}, allowed is {facts.golden_tolerance:g}"
    strips = made_up_strips((facts.height, facts.width))[:2]
    for scale in ("unit", "gray8"):
        heat = np.stack([run_strip(session, feed(strip, scale)) for strip in strips])
        spread = float(heat.max() - heat.min())
        says = "flat: probably not this scale" if spread < FLAT else "reacts"
        yield f"scale     {scale}: heatmap from {heat.min():.3f} to {heat.max():.3f}, {says}"
    if facts.labelled:
        yield f"scale     the metadata says {facts.input_scale}"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _weight_bytes(graph: onnx.GraphProto) -> int:
    return sum(len(initializer.raw_data) or initializer.ByteSize() for initializer in graph.initializer)


def _activations_mib(model: onnx.ModelProto) -> float:
    """Guess: three tensors of the widest layer at full size, of one patch when there is a loop."""
    shapes = [list(initializer.dims) for graph in _graphs(model.graph) for initializer in graph.initializer]
    widest = max((shape[0] for shape in shapes if shape), default=1)
    looped = any(node.op_type == "Loop" for node in model.graph.node)
    pixels = 128 * 128 if looped else 976 * 176
    return 3 * min(widest, 64) * pixels * 4 / 2**20
