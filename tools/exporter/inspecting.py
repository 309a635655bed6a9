"""Tell a person what any ONNX file is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # stubs are a package of their own

from agent.contract.file_kind import tell_what_it_is
from agent.contract.model import INPUT_SCALES, PREFIX
from agent.errors import Reject, Retry
from agent.worker.model import load_model
from agent.worker.sight import Sight
from agent.worker.trial import allowed_difference, prove, try_to_look
from tools.exporter.errors import ExportError
from tools.exporter.expected import tell_expected

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_VALUE = 200
RUNTIME_MIB = 50  # the interpreter and onnxruntime before any model is loaded, measured
COPIES = 2.2  # of the weights while onnxruntime loads and lays them out anew, measured on both precisions


def inspect_model(content: bytes) -> Iterator[str]:
    """Yield lines about a model: size, opset, nodes, ports, metadata, memory, and what a box's trial says of it."""
    wrong = tell_what_it_is(content)
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise ExportError(f"This is not an ONNX file: {wrong or 'it cannot be parsed'}.") from error
    if not model.graph.node:
        raise ExportError(f"This is not an ONNX file: {wrong or 'it has no nodes'}.")
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
    for port in (*model.graph.input, *model.graph.output):
        yield f"port      {port.name} {_shape(port)}"
    try:
        yield from _try(content)
    except Retry as later:
        raise ExportError(f"It cannot be tried here ({later.detail}): free some memory.") from later


def _try(content: bytes) -> Iterator[str]:
    """Load and try it as a box does."""
    try:
        model = load_model(content, threads=None, unlabelled_input_scale="auto")
        yield f"contract  met{'' if model.facts.labelled else ', but without metadata'}"
    except Reject as refused:
        yield f"contract  NOT met ({refused.reason}): {refused.detail}"
        return
    for scale in INPUT_SCALES:
        sight = try_to_look(model, scale)
        if isinstance(sight, Sight):
            found = f"{sight.describe()}: {'tells them apart' if sight.sees else 'no threshold tells them apart'}"
        else:
            found = f"breaks the contract ({sight.reason}): {sight.detail}"
        yield f"scale     {scale}: {found}"
    if model.facts.labelled:
        yield f"scale     the metadata says {model.facts.input_scale}"
    try:
        model, proof = prove(model)
    except Reject as refused:
        yield f"trial     a box REFUSES it ({refused.reason}): {refused.detail}"
        return
    if proof.golden_difference is None:
        yield "golden    none: a box cannot prove this file"
    else:
        allowed = allowed_difference(model.facts)
        yield f"golden    reproduced here: off by {proof.golden_difference:.1e}, allowed is {allowed:g}"
    yield f"trial     a box takes it, and feeds it {model.facts.input_scale}; a strip takes {proof.run_ms:.0f} ms here"
    yield f"expected  {tell_expected(content, (model.facts.height, model.facts.width))}"


def _shape(port: onnx.ValueInfoProto) -> str:
    tensor = port.type.tensor_type
    sides = ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in tensor.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} ({sides})"


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
