"""A small writer of ONNX graphs: nodes in order, names by counting, constants stored once, every opset from 11 on.

Writing the graph ourselves keeps it small, the same in every opset, and free of the exporting machine's paths. Its
bytes depend on nothing but the input and the versions of the libraries.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OLDEST_OPSET = 11
LARGE_WEIGHT = 2**22  # elements; only 3x3 from 1024 to 512 channels has more at width 64
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Carried:
    """A tensor that one round of a loop hands to the next, in 8 bits once the body is quantised.

    Its axes are (batch, height, width, channels) then, which is onnxruntime's order for convolutions in 8 bits, so that
    no round turns it round. In the first round it has no columns.
    """

    before: str  # as the body gets it
    now: str  # as the body gives it
    height: int
    channels: int


class Graph:
    """A graph (or the body of a loop) that is being written; tensors are known by their names."""

    def __init__(self, opset: int, prefix: str = "", outer: Graph | None = None) -> None:
        self.opset = opset
        self.prefix = prefix
        self.outer = outer
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.weights: dict[str, Array] = {}
        self.carried: list[Carried] = []
        self._known: dict[bytes, str] = {}
        self._count = 0

    def add(self, op: str, inputs: Sequence[str], *, outputs: Sequence[str] | None = None, **attributes: Any) -> str:
        """Append a node and return the name of its first output; attributes that are None are left out."""
        names = list(outputs or [self.name(op.lower())])
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(
            helper.make_node(op, list(inputs), names, name=f"{self.prefix}{op}_{len(self.nodes)}", **kept)
        )
        return names[0]

    def name(self, stem: str) -> str:
        """Make a name that no other tensor of this graph has."""
        self._count += 1
        return f"{self.prefix}{stem}_{self._count}"

    def constant(self, values: Any, dtype: Any = None) -> str:
        """Store a constant and return its name; equal constants are stored once."""
        array = np.ascontiguousarray(values, dtype)
        if np.ndim(values) == 0:
            array = array.reshape(())
        if array.dtype == np.float32:
            # Denormal weights make some processors many times slower and change no result that can be seen.
            array = np.where(np.abs(array) < np.finfo(np.float32).tiny, np.float32(0), array)
        content = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        digest = hashlib.sha256(content).digest()
        if digest not in self._known:
            name = self.name("const")
            self._known[digest] = name
            self.initializers[name] = numpy_helper.from_array(array, name)
        return self._known[digest]

    def weight(self, array: Array) -> str:
        """Store the weights of a convolution; in the body of a loop they are kept outside and reshaped inside.

        onnxruntime holds a second copy of everything that is stored in a body while it loads, but only lays out weights
        for its fastest kernels that it finds in the body. It folds the reshape away, so this gives both. Large weights
        belong to deep layers with few pixels, where those kernels gain little: they are read from outside as they are,
        which spares the memory of laying them out.
        """
        name = self.name("weight")
        self.weights[name] = array
        return name

    def shared(self, array: Array) -> str:
        """Store a constant outside of the loop when this graph is its body."""
        return (self.outer or self).constant(array)

    def ints(self, *values: int) -> str:
        """Store whole numbers as a constant vector."""
        return self.constant(np.array(values, np.int64))

    def slice(self, tensor: str, starts: str, stops: str, axes: str, steps: str | None = None) -> str:
        """Cut out a part; all arguments are names of int64 vectors."""
        return self.add("Slice", [tensor, starts, stops, axes, *([steps] if steps else [])])

    def cut(self, tensor: str, axis: int, start: int, stop: int) -> str:
        """Cut out a part along one axis."""
        return self.slice(tensor, self.ints(start), self.ints(stop), self.ints(axis))

    def squeeze(self, tensor: str, axis: int) -> str:
        """Remove an axis of length 1 (an input of the node since opset 13)."""
        if self.opset >= 13:  # noqa: PLR2004 - an opset
            return self.add("Squeeze", [tensor, self.ints(axis)])
        return self.add("Squeeze", [tensor], axes=[axis])

    def split(self, tensor: str, sizes: Sequence[int], outputs: Sequence[str]) -> None:
        """Split a vector into parts of these sizes (an input of the node since opset 13)."""
        if self.opset >= 13:  # noqa: PLR2004 - an opset
            self.add("Split", [tensor, self.ints(*sizes)], outputs=outputs, axis=0)
        else:
            self.add("Split", [tensor], outputs=outputs, axis=0, split=list(sizes))

    def _reshape(self, name: str, array: Array) -> onnx.NodeProto:
        inputs = [self.shared(array.reshape(-1)), self.ints(*array.shape)]
        return helper.make_node("Reshape", inputs, [name], name=f"{self.prefix}{name}")

    def finish(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        """Close the graph; what no node reads any more is left out."""
        read = _read(self.nodes)
        kept = {name: array for name, array in self.weights.items() if name in read}
        if self.outer is None:
            self.initializers |= {name: numpy_helper.from_array(array, name) for name, array in kept.items()}
        else:
            in_branches = read - {name for node in self.nodes for name in node.input}
            large = {
                name: self.outer.constant(array)
                for name, array in kept.items()
                if array.size >= LARGE_WEIGHT and name not in in_branches
            }
            for node in self.nodes:
                node.input[:] = [large.get(name, name) for name in node.input]
            self.nodes[:0] = [self._reshape(name, array) for name, array in kept.items() if name not in large]
        read = _read(self.nodes) | {output.name for output in outputs}
        stored = [array for name, array in self.initializers.items() if name in read]
        return helper.make_graph(self.nodes, name, inputs, outputs, initializer=stored)


def _read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Collect what nodes read, those in the bodies of loops included."""
    read: set[str] = set()
    for node in nodes:
        read.update(node.input)
        for body in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
            read |= _read(body.node) | {output.name for output in body.output}
    return read


def float_info(name: str, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    """Describe a float32 tensor."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def make_model(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    """Wrap a graph as a model of this opset, with the oldest file version that knows it."""
    check_opset(opset)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="strip-agent exporter")
    model.ir_version = helper.find_min_ir_version_for(opsets)
    return model


def newest_opset() -> int:
    """Return the newest opset that the installed onnx can write; the guard shows if onnxruntime reads it."""
    return int(onnx.defs.onnx_opset_version())


def check_opset(opset: int) -> None:
    """Refuse an opset that cannot carry the graph; ExportError says which can."""
    newest = newest_opset()
    if not OLDEST_OPSET <= opset <= newest:
        why = (
            "bilinear resizing with aligned corners needs 11"
            if opset < OLDEST_OPSET
            else "the installed onnx ends there"
        )
        raise ExportError(f"Opset {opset} cannot be written: choose --opset {OLDEST_OPSET} to {newest} ({why}).")
