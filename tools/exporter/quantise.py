"""Static INT8: write QuantizeLinear and DequantizeLinear pairs around what onnxruntime can then run in 8 bits.

Activations are unsigned with one scale for each tensor, weights signed with one scale for each output channel. Tensors
that are only moved (pooled, cut, upsampled, joined) share the scale of what they are made of, so that moving them costs
nothing but the copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx

    from tools.exporter.graph import Carried, Graph

MOVING = (
    "MaxPool",
    "Resize",
    "Slice",
    "Transpose",
    "Identity",
)  # the first input passes through, its values stay what they are
LEVELS = 255
WEIGHT_LEVELS = 127


@dataclass(frozen=True, slots=True)
class QuantisationPlan:
    """Ranges of tensors by name, (lowest, highest), and the layers, by the name of their output, left in float."""

    ranges: Mapping[str, tuple[float, float]]
    float_layers: frozenset[str] = field(default_factory=frozenset)


def quantise_nodes(graph: Graph, first: int, plan: QuantisationPlan) -> None:
    """Rewrite the nodes of `graph` from number `first` on; needs opset 13."""
    nodes = graph.nodes[first:]
    del graph.nodes[first:]
    groups = _share_scales(nodes)
    ranges = _join_ranges(groups, plan)
    writer = _Writer(graph, groups, ranges)
    graph.carried = [writer.carried_before(one) for one in graph.carried]
    relu_of = {node.input[0]: node.output[0] for node in nodes if node.op_type == "Relu"}
    for node in nodes:
        if node.op_type == "Conv" and node.output[0] not in plan.float_layers and _is_weight(graph, node.input[1]):
            writer.quantised_conv(node, relu_of.get(node.output[0], node.output[0]))
        elif node.op_type == "MatMul" and node.output[0] not in plan.float_layers and _is_weight(graph, node.input[1]):
            writer.quantised_matmul(node)
        else:
            writer.other(node)
    graph.carried = [writer.carried_now(one) for one in graph.carried]


def moved_inputs(node: onnx.NodeProto) -> list[str]:
    """Give the inputs whose values the node only moves."""
    if node.op_type == "Concat":
        return list(node.input)
    return [node.input[0]] if node.op_type in MOVING else []


def quantisable_layers(graph: Graph) -> list[str]:
    """Name the layers that can be quantised, by their outputs, in order."""
    return [
        node.output[0]
        for node in graph.nodes
        if node.op_type in ("Conv", "MatMul") and _is_weight(graph, node.input[1])
    ]


def layers_reading(nodes: Sequence[onnx.NodeProto], tensor: str) -> frozenset[str]:
    """Name the layers, by their outputs, that read `tensor` itself or after it was only moved."""
    same, layers = {tensor}, set()
    for node in nodes:
        if node.op_type in ("Conv", "MatMul") and node.input[0] in same:
            layers.add(node.output[0])
        elif same & set(moved_inputs(node)):
            same.add(node.output[0])
    return frozenset(layers)


def tensors_to_watch(graph: Graph) -> list[str]:
    """Name the tensors whose ranges are needed: results of layers, and whatever layers read that is not only moved."""
    producers = {node.output[0]: node for node in graph.nodes}
    layers = set(quantisable_layers(graph))
    wanted: dict[str, None] = {}

    def add(name: str) -> None:
        node = producers.get(name)
        if node is not None and (moved := moved_inputs(node)):
            for source in moved:
                add(source)
        elif node is not None:
            wanted[name] = None

    for node in graph.nodes:
        if node.output[0] in layers:
            add(node.input[0])
            wanted[node.output[0]] = None
        elif node.op_type == "Relu":
            wanted[node.output[0]] = None
    return list(wanted)


def _is_weight(graph: Graph, name: str) -> bool:
    return name in graph.weights


def _share_scales(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """Map each tensor to the representative of those that share its scale (a union-find, flattened at the end)."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for node in nodes:
        for name in moved_inputs(node):
            leader[find(name)] = find(node.output[0])
    return {name: find(name) for name in list(leader)}


def _join_ranges(groups: Mapping[str, str], plan: QuantisationPlan) -> dict[str, tuple[float, float]]:
    joined: dict[str, tuple[float, float]] = {}
    for name, (low, high) in plan.ranges.items():
        group = groups.get(name, name)
        other = joined.get(group, (low, high))
        joined[group] = min(low, other[0]), max(high, other[1])
    return joined


class _Writer:
    """Writes nodes again, quantised where both ends of an edge have a range."""

    def __init__(self, graph: Graph, groups: Mapping[str, str], ranges: Mapping[str, tuple[float, float]]) -> None:
        self.graph = graph
        self.groups = groups
        self.ranges = ranges
        self.moved: set[str] = set()  # made of what is in 8 bits, and not rounded anew
        self.stored: dict[str, str] = {}
        self.dequantised: dict[str, str] = {}

    def carried_before(self, carried: Carried) -> Carried:
        """Read what the round before has left in 8 bits."""
        stored = self.graph.name("carried")
        turned = self.graph.add("Transpose", [stored], perm=[0, 3, 1, 2])
        self.dequantised[carried.before] = self.graph.add(
            "DequantizeLinear", [turned, *self._constants(carried.before)]
        )
        return replace(carried, before=stored)

    def carried_now(self, carried: Carried) -> Carried:
        """Leave it in 8 bits for the next round."""
        return replace(carried, now=self.graph.add("Transpose", [self.stored[carried.now]], perm=[0, 2, 3, 1]))

    def quantised_conv(self, node: onnx.NodeProto, result: str) -> None:
        graph = self.graph
        scale_x, _ = self._parameters(node.input[0])
        weight = graph.weights[node.input[1]]
        bias = numpy_helper.to_array(graph.initializers[node.input[2]])
        largest = np.abs(weight).reshape(len(weight), -1).max(1)
        scales = np.maximum(largest / WEIGHT_LEVELS, 1e-8).astype(np.float32)
        whole = np.clip(np.rint(weight / scales[:, None, None, None]), -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8)
        bias_scales = (scales * np.float32(scale_x)).astype(np.float32)
        whole_bias = np.clip(np.rint(bias / bias_scales), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        zeros = np.zeros(len(weight), np.int8)
        inputs = [
            self._quantised(node.input[0]),
            graph.add("DequantizeLinear", [graph.shared(whole), graph.constant(scales), graph.constant(zeros)], axis=0),
            graph.add(
                "DequantizeLinear",
                [graph.constant(whole_bias), graph.constant(bias_scales), graph.constant(zeros.astype(np.int32))],
                axis=0,
            ),
        ]
        self._append(node, inputs)
        if result == node.output[0]:
            self._quantise_result(result)

    def quantised_matmul(self, node: onnx.NodeProto) -> None:
        """Whole numbers in, float out: nothing is rounded behind the sum."""
        weight = self.graph.weights[node.input[1]]
        scales = np.maximum(np.abs(weight).max(0) / WEIGHT_LEVELS, 1e-8).astype(np.float32)
        whole = np.rint(weight / scales).astype(np.int8)
        names = [
            self.graph.shared(whole),
            self.graph.constant(scales),
            self.graph.constant(np.zeros(len(scales), np.int8)),
        ]
        self._append(node, [self._quantised(node.input[0]), self.graph.add("DequantizeLinear", names, axis=1)])

    def other(self, node: onnx.NodeProto) -> None:
        first, result = node.input[0], node.output[0]
        inputs = [self.dequantised.get(name, name) for name in node.input]
        if node.op_type == "Shape":
            inputs = list(node.input)  # it reads no values
        if node.op_type in MOVING and (first in self.dequantised or first in self.moved):
            self.moved.add(result)
        # A part of what is fed may be joined for a layer in float: that stays as it is.
        joined = node.op_type == "Concat" and self._known(result) and not self._is_float(node)
        if joined:
            inputs = [self._quantised(name) for name in node.input]
        self._append(node, inputs)
        if joined or (node.op_type in ("Relu", "Mul") and self._known(result)):
            self._quantise_result(result)

    def _is_float(self, node: onnx.NodeProto) -> bool:
        return not any(name in self.dequantised or name in self.moved for name in node.input)

    def _known(self, tensor: str) -> bool:
        return self.groups.get(tensor, tensor) in self.ranges

    def _append(self, node: onnx.NodeProto, inputs: Iterable[str]) -> None:
        del node.input[:]
        node.input.extend(inputs)
        self.graph.nodes.append(node)

    def _quantised(self, tensor: str) -> str:
        if tensor not in self.dequantised:
            self._quantise_result(tensor)
        return self.dequantised[tensor]

    def _quantise_result(self, tensor: str) -> None:
        names = self._constants(tensor)
        self.stored[tensor] = self.graph.add("QuantizeLinear", [tensor, *names])
        self.dequantised[tensor] = self.graph.add("DequantizeLinear", [self.stored[tensor], *names])

    def _constants(self, tensor: str) -> list[str]:
        scale, zero = self._parameters(tensor)
        return [self.graph.constant(np.float32(scale)), self.graph.constant(np.uint8(zero))]

    def _parameters(self, tensor: str) -> tuple[float, int]:
        """Scale and zero point; 0 is always representable, because convolutions pad with it."""
        low, high = self.ranges[self.groups.get(tensor, tensor)]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-8) / LEVELS
        return scale, int(np.clip(np.rint(-low / scale), 0, LEVELS))
