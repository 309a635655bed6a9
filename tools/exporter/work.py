"""How much a model has to compute for a strip, counted in a run: multiplications in float and in int8, other values."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime

from agent.contract.model import INPUT_NAME
from agent.worker.model import make_options
from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = ("Conv", "MatMul", "Gemm", "ConvTranspose")
NO_WORK = ("Loop", "Scan", "If", "DequantizeLinear", "QuantizeLinear")  # what holds others, and what is fused away
COPIES = ("Slice", "Concat", "Split", "Transpose", "Reshape", "Gather")  # little time beside what computes
RAN = "_kernel_time"


@dataclass(frozen=True, slots=True)
class Work:
    """For one strip, in thousand millions."""

    float_multiplications: float
    int8_multiplications: float
    other_values: float  # results of what computes and is no layer: activations, pooling, upsampling

    def times(self, number: int) -> Work:
        """Give the work of so many of it."""
        return Work(self.float_multiplications * number, self.int8_multiplications * number, self.other_values * number)


def count_work(content: bytes, size: tuple[int, int]) -> Work:
    """Run a model for strips of (height, width) once as it is written, nothing fused; ExportError when that fails.

    Only a run shows the shapes: patches of one loop are cut differently.
    """
    whole = frozenset(_whole_number_layers(onnx.load_from_string(content).graph))
    options = make_options(None)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch, "run"))
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            session.run(None, {INPUT_NAME: np.zeros((1, 3, *size), np.float32)})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # onnxruntime's errors have no common base
            raise ExportError(f"It cannot be counted what this model computes: {error}") from error
    in_float = in_int8 = others = 0.0
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(RAN):
            continue
        name, operator = event["name"].removesuffix(RAN), event["args"]["op_name"]
        results = sum(map(_elements, event["args"]["output_type_shape"]))
        if operator in LAYERS:
            multiplications = results * _depth(operator, event["args"]["input_type_shape"])
            in_int8 += multiplications if name in whole else 0.0
            in_float += 0.0 if name in whole else multiplications
        elif operator not in NO_WORK and operator not in COPIES:
            others += results
    return Work(in_float / 1e9, in_int8 / 1e9, others / 1e9)


def _whole_number_layers(graph: onnx.GraphProto) -> Iterator[str]:
    """Name the layers whose weights are stored in 8 bits."""
    stored = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in graph.node:
        if node.op_type in LAYERS and node.input[1] in stored:
            yield node.name
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _whole_number_layers(attribute.g)


def _depth(operator: str, inputs: list[dict[str, list[int]]]) -> float:
    """Count the multiplications for each result."""
    first, weight = (_shape(one) for one in inputs[:2])
    if operator == "ConvTranspose":
        return float(first[1] * np.prod(weight[1:]) / weight[1])  # at a stride of 1; at a larger one some meet no value
    return float(np.prod(weight[1:])) if operator == "Conv" else float(first[-1])


def _elements(one: dict[str, list[int]]) -> float:
    return float(np.prod(_shape(one)))


def _shape(one: dict[str, list[int]]) -> Any:
    return next(iter(one.values()))
