"""Compute a graph in double precision, so that what is decided and written does not depend on the processor.

onnxruntime adds up in single precision, in an order that differs between processors. In a quantised graph one sum that
comes to lie on the other side of a rounding step changes what follows: heatmaps of the same file, computed in float on
two kinds of processors, differ by a hundredth. In double precision sums still differ in their last bits, but a value
within them of a rounding step is one in ten thousand million.

It takes ten times as long, so nothing is computed twice. A step of the graph is known by what it does and by where its
inputs come from; graphs that differ in one layer share the steps before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tools.exporter.exact_operators import OWN_OPS, NotExactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tools.exporter.graph import Array

Found = dict[str, tuple["Array", ...]]  # results of steps, by their keys
SINGLE = (TensorProto.FLOAT, TensorProto.FLOAT16)
INPUT = "the input"  # its key


@dataclass(frozen=True, slots=True)
class _Step:
    """A node, and what is known of it."""

    node: Any
    key: str  # the same for what gives the same
    done_with: list[str] = field(default_factory=list)  # tensors that nothing reads after it


def exact_network(model: bytes, constants: Found | None = None) -> Callable[..., list[Array]]:
    """Read a model of one input; the function gives all of its outputs in float64. NotExactError when it cannot.

    `constants` is where graphs that have weights in common keep what follows from weights alone. The function takes
    patches, `known`: results of another graph on the same patches that need not be computed again, and `keep`: where
    the results of this one are kept for that.
    """
    read = onnx.load_from_string(model)
    _widen(read.graph)
    name, outputs = read.graph.input[0].name, [one.name for one in read.graph.output]
    constants = {} if constants is None else constants
    try:
        evaluator: Any = ReferenceEvaluator(read, new_ops=OWN_OPS)
        if any(node.need_context() for node in evaluator.rt_nodes_):  # branches see every tensor
            return _whole(evaluator, name)
        given, steps = _prepare(evaluator, name, outputs, constants)
    except Exception as error:  # onnx's errors have no common base
        raise _cannot(error) from error
    del read, evaluator  # and with them the weights that only constants were made of

    def run(patches: Array, known: Found | None = None, keep: Found | None = None) -> list[Array]:
        tensors = {**given, name: patches.astype(np.float64)}
        for step in steps:
            found = (known or {}).get(step.key)
            if found is None:
                found = _run(step.node, tensors)
            if keep is not None:
                keep[step.key] = found
            tensors.update(zip(step.node.output, found, strict=False))
            for done in step.done_with:
                del tensors[done]
        results: list[Any] = [tensors[output] for output in outputs]
        return results

    return run


def _whole(evaluator: Any, name: str) -> Callable[..., list[Array]]:
    def run(patches: Array, known: Found | None = None, keep: Found | None = None) -> list[Array]:  # noqa: ARG001
        try:
            found: list[Array] = evaluator.run(None, {name: patches.astype(np.float64)})
        except Exception as error:  # onnx's errors have no common base
            raise _cannot(error) from error
        return found

    return run


def _prepare(
    evaluator: Any, name: str, outputs: Iterable[str], constants: Found
) -> tuple[dict[str, Array | None], list[_Step]]:
    """Compute what follows from weights alone; returns these tensors, and the steps that the input is needed for."""
    tensors: dict[str, Any] = {"": None, **evaluator.rt_inits_}
    keys = {name: INPUT} | {tensor: _digest_of(value) for tensor, value in tensors.items()}
    steps: list[_Step] = []
    for node in evaluator.rt_nodes_:
        key = _digest(_what_it_does(node.onnx_node), *(keys[tensor].encode() for tensor in node.input))
        keys.update({tensor: f"{key} {number}" for number, tensor in enumerate(node.output)})
        if all(tensor in tensors for tensor in node.input):
            if key not in constants:
                constants[key] = _run(node, tensors)
            tensors.update(zip(node.output, constants[key], strict=False))
        else:
            steps.append(_Step(node, key))
    last_read: dict[str, int] = {tensor: at for at, step in enumerate(steps) for tensor in step.node.output}
    last_read |= {tensor: at for at, step in enumerate(steps) for tensor in step.node.input}
    for tensor, at in last_read.items():
        if tensor not in tensors and tensor not in outputs:
            steps[at].done_with.append(tensor)
    needed = {tensor for step in steps for tensor in step.node.input} | set(outputs)
    return {tensor: value for tensor, value in tensors.items() if tensor in needed}, steps


def _run(node: Any, tensors: dict[str, Any]) -> tuple[Array, ...]:
    try:
        found: tuple[Array, ...] = node.run(*(tensors[tensor] for tensor in node.input))
    except Exception as error:  # onnx's errors have no common base
        raise _cannot(error) from error
    return found


def _what_it_does(node: onnx.NodeProto) -> bytes:
    nameless = onnx.NodeProto()
    nameless.CopyFrom(node)
    for names in ("input", "output", "name", "doc_string"):
        nameless.ClearField(names)
    what: bytes = nameless.SerializeToString(deterministic=True)
    return what


def _digest_of(value: Array | None) -> str:
    if value is None:
        return "nothing"
    return _digest(str((value.dtype, value.shape)).encode(), value.tobytes())


def _digest(*parts: bytes) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.hexdigest()


def _widen(graph: onnx.GraphProto) -> None:
    """Make all that is stored or made as float a double, in branches too."""
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    for stored in [*graph.initializer, *(one.t for one in attributes if one.HasField("t"))]:
        if stored.data_type in SINGLE:
            stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored).astype(np.float64), stored.name))
    for attribute in attributes:
        if attribute.name == "to" and attribute.i in SINGLE:
            attribute.i = TensorProto.DOUBLE
        if attribute.HasField("g"):
            _widen(attribute.g)


def _cannot(error: Exception) -> NotExactError:
    if isinstance(error, NotExactError) and str(error).startswith("The network"):
        return error
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160].removesuffix(".")
    return NotExactError(f"The network cannot be computed in double precision: {reason}.")
