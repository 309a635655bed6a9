"""ONNX files of every kind that other people's scripts write: the difference of target and reference as heat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (96, 64)
GAIN = 2.0
SHAPE = ("batch", 3, *SIZE)


@dataclass(frozen=True)
class Foreign:
    """A file, what lies beside it, and what adopting it must give: the input scale, or a refusal that says `says`."""

    content: bytes
    scale: str = "unit"
    says: str = ""
    beside: dict[str, bytes] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5


def expected_heat(strip: np.ndarray) -> np.ndarray:
    """(3, H, W) grey levels -> heatmap, in numpy alone."""
    heat: np.ndarray = np.clip(np.abs(strip[0] - strip[1]) * (GAIN / 255), 0, 1)
    return heat


def base(
    *,
    divisor: float = 1.0,
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    names: tuple[str, str] = ("input", "output"),
    shape: tuple[Any, ...] = SHAPE,
    out_shape: tuple[Any, ...] | None = None,
    before: Callable[[], list[onnx.NodeProto]] = list,
    tail: Callable[[], list[onnx.NodeProto]] | None = None,
    more: dict[str, Any] | None = None,
    ir: int = 8,
) -> onnx.ModelProto:
    """Build the model; `tail` turns `heat` (B, 1, H, W) into the output, `before` makes `strip` out of the input."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    consts = {
        "c0": np.array([0], np.int64), "c1": np.array([1], np.int64), "gain": np.array(GAIN / divisor, dtype),
        "one": np.array(1, dtype), "none": np.array(0, dtype),
    } | (more or {})  # fmt: skip
    source, result = names
    nodes = before() or [helper.make_node("Identity", [source], ["strip"])]
    nodes += [
        helper.make_node("Gather", ["strip", "c0"], ["target"], axis=1),
        helper.make_node("Gather", ["strip", "c1"], ["reference"], axis=1),
        helper.make_node("Sub", ["target", "reference"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["size"]),
        helper.make_node("Mul", ["size", "gain"], ["raised"]),
        helper.make_node("Min", ["raised", "one"], ["heat"]),
    ]
    zeros = [
        helper.make_node("Mul", ["heat", "none"], ["zero"]),
        helper.make_node("Concat", ["heat", "zero", "zero"], [result], axis=1),
    ]
    nodes += tail() if tail else zeros
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(source, kind, shape)],
        [helper.make_tensor_value_info(result, kind, out_shape or shape)],
        initializer=[numpy_helper.from_array(value, name) for name, value in consts.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="pytorch")
    model.ir_version = ir
    return model


def _one(op: str, inputs: list[str], **attributes: Any) -> Callable[[], list[onnx.NodeProto]]:
    return lambda: [helper.make_node(op, inputs, ["output"], **attributes)]


def _with_external_data() -> tuple[bytes, dict[str, bytes]]:
    model = base()
    gain = next(tensor for tensor in model.graph.initializer if tensor.name == "gain")
    data = gain.raw_data
    gain.ClearField("raw_data")
    gain.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "model.onnx.data"), ("offset", "16"), ("length", str(len(data)))):
        gain.external_data.add(key=key, value=value)
    return model.SerializeToString(), {"model.onnx.data": bytes(16) + data}


def _with_branch() -> onnx.ModelProto:
    branches = {
        f"{way}_branch": helper.make_graph(
            [helper.make_node("Mul", ["heat", "one" if way == "then" else "none"], [f"{way}_heat"])],
            way,
            [],
            [helper.make_tensor_value_info(f"{way}_heat", TensorProto.FLOAT, ("batch", 1, *SIZE))],
        )
        for way in ("then", "else")
    }
    nodes = [
        helper.make_node("ReduceMax", ["heat"], ["hottest"], keepdims=0),
        helper.make_node("Less", ["hottest", "two"], ["is_heat"]),
        helper.make_node("If", ["is_heat"], ["output"], **branches),
    ]
    return base(tail=lambda: nodes, more={"two": np.array(2, np.float32)}, out_shape=("batch", 1, *SIZE))


def _with_function() -> onnx.ModelProto:
    model = base(tail=lambda: [helper.make_node("Same", ["heat"], ["output"], domain="own")], out_shape=("b", 1, *SIZE))
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Same", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], opsets)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def _with_weights_as_inputs() -> onnx.ModelProto:
    model = base(opset=8, ir=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def _with_traces() -> onnx.ModelProto:
    model = base()
    for node in model.graph.node:
        node.doc_string = "/home/somebody/train.py:17"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/train.py:17")
    model.graph.value_info.append(helper.make_tensor_value_info("heat", TensorProto.FLOAT, (1, 1, *SIZE)))
    return model


def _quantised() -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["heat", "scale", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["output"]),
    ]
    more = {"scale": np.array(1 / 255, np.float32), "zero": np.array(0, np.uint8)}
    return base(tail=lambda: nodes, more=more, out_shape=("b", 1, *SIZE))


def _labelled() -> onnx.ModelProto:
    model = base()
    model.metadata_props.add(key="strip_agent.contract", value="1")
    return model


def _two(what: str) -> onnx.ModelProto:
    model = base()
    if what == "inputs":
        model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, SHAPE))
    else:
        model.graph.output.append(helper.make_tensor_value_info("heat", TensorProto.FLOAT, ("batch", 1, *SIZE)))
    return model


def adopted() -> dict[str, Foreign]:
    """Make files that can become models of the contract."""
    single, pair = ("batch", 1, *SIZE), ("batch", 2, *SIZE)
    external, data = _with_external_data()
    mixed = base(
        tail=lambda: [
            helper.make_node("ReduceMean", ["heat", "c0"], ["all"]),
            helper.make_node("Max", ["heat", "all"], ["output"]),
        ],
        out_shape=("batch", 1, *SIZE), opset=18,
    )  # fmt: skip
    made_alone: dict[str, Any] = {
        "shape": (1, 3, *SIZE), "out_shape": (1, 1, *SIZE), "more": {"fixed": np.array([1, 1, *SIZE], np.int64)},
        "tail": _one("Reshape", ["heat", "fixed"]),
    }  # fmt: skip
    shares = lambda: [  # noqa: E731 - one of many tails
        helper.make_node("Sub", ["one", "heat"], ["background"]),
        helper.make_node("Concat", ["background", "heat"], ["output"], axis=1),
    ]
    models: dict[str, tuple[onnx.ModelProto, dict[str, Any]]] = {
        "0..1": (base(), {}),
        "0..255": (base(divisor=255.0), {"scale": "gray8"}),
        "0..255, stated": (base(divisor=255.0), {"scale": "gray8", "asked": {"input_scale": "gray8"}}),
        "other names": (base(names=("images", "probabilities")), {}),
        "names swapped": (base(names=("output", "input")), {}),
        "a weight called input": (
            base(names=("x", "y"), tail=lambda: [helper.make_node("Mul", ["heat", "input"], ["y"])],
                 more={"input": np.array(1, np.float32)}, out_shape=single), {},
        ),
        "batch of one": (base(shape=(1, 3, *SIZE)), {}),
        "batch of one inside": (base(**made_alone), {}),
        "sides left open": (base(shape=("batch", 3, "h", "w")), {"asked": {"image_size": SIZE}}),
        "everything left open": (base(shape=("a", "b", "c", "d")), {"asked": {"image_size": SIZE}}),
        "one channel": (base(tail=_one("Identity", ["heat"]), out_shape=single), {}),
        "no channel axis": (
            base(tail=_one("Squeeze", ["heat", "c1"]), out_shape=("batch", *SIZE)), {},
        ),
        "shares of two classes": (base(tail=shares, out_shape=pair), {}),
        "other channels filled": (base(tail=_one("Concat", ["heat", "heat", "size"], axis=1)), {}),
        "half floats": (base(kind=TensorProto.FLOAT16), {"tolerance": 5e-3}),
        "doubles": (base(kind=TensorProto.DOUBLE), {}),
        "opset 11": (base(opset=11), {}),
        "opset 21": (base(opset=21, ir=10), {}),
        "opset 8, weights as inputs": (_with_weights_as_inputs(), {}),
        "functions of its own": (_with_function(), {}),
        "branches": (_with_branch(), {}),
        "traces of its machine": (_with_traces(), {}),
        "strips of a batch that are mixed": (mixed, {}),
        "quantised": (_quantised(), {"tolerance": 1 / 400}),
    }  # fmt: skip
    made = {name: Foreign(model.SerializeToString(), **more) for name, (model, more) in models.items()}
    made["weights beside it"] = Foreign(external, beside=data)
    return made


def refused() -> dict[str, Foreign]:
    """Make files that cannot become one, or of which nobody can know what they mean."""
    external, _ = _with_external_data()
    escaping = external.replace(b"model.onnx.data", b"../../etc/group")
    pair = ("batch", 2, *SIZE)
    single: dict[str, Any] = {"out_shape": ("batch", 1, *SIZE)}
    logits = base(tail=_one("Concat", ["raised", "heat"], axis=1), out_shape=pair)
    models: dict[str, tuple[onnx.ModelProto, str, dict[str, Any]]] = {
        "ours already": (_labelled(), "push it as it is", {}),
        "four channels": (base(shape=("batch", 4, *SIZE)), "it must be (batch, 3, height, width)", {}),
        "channels last": (base(shape=("batch", *SIZE, 3)), "it must be (batch, 3, height, width)", {}),
        "two inputs": (_two("inputs"), "2 inputs (input, mask)", {}),
        "two outputs": (_two("outputs"), "2 outputs (output, heat)", {}),
        "bytes": (base(kind=TensorProto.UINT8), "of the type uint8", {}),
        "logits of two classes": (logits, "2 channels, logits", {}),
        "half of the size": (
            base(tail=_one("MaxPool", ["heat"], kernel_shape=[2, 2], strides=[2, 2]), out_shape=("b", 1, 48, 32)),
            "it must give a heatmap of the strip's size", {},
        ),
        "the other size asked for": (base(), "--image-size says", {"image_size": (150, 96)}),
        "a batch of four": (base(shape=(4, 3, *SIZE)), "does not run on one strip", {}),
        "everything is cold": (base(tail=_one("Mul", ["heat", "none"]), **single), "(input_scale_doubtful)", {}),
        "upside down": (base(tail=_one("Sub", ["one", "heat"]), **single), "(input_scale_doubtful)", {}),
        "grey levels as heat": (base(tail=_one("Identity", ["target"]), **single), "(input_scale_doubtful)", {}),
        "beyond 0..1": (base(tail=_one("Neg", ["heat"]), out_shape=("b", 1, *SIZE)), "output_out_of_range", {}),
        "an operator of its own": (
            base(tail=_one("Magic", ["heat"], domain="elsewhere"), out_shape=("b", 1, *SIZE)), "does not load", {},
        ),
    }  # fmt: skip
    files = {
        "weights that are missing": (external, "put the .onnx.data file beside it"),
        "weights from elsewhere": (escaping, "cannot be read with the weights"),
        "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        "web page": (b"<!DOCTYPE html><html></html>", "HTML page"),
        "checkpoint": (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(100), "is no ONNX file"),
        "cut off": (base().SerializeToString()[:300], "damaged or cut off"),
        "no graph": (onnx.ModelProto(ir_version=8).SerializeToString(), "is no ONNX file"),
        "random": (bytes(range(256)), "is no ONNX file"),
    }
    made = {
        name: Foreign(model.SerializeToString(), says=says, asked=asked)
        for name, (model, says, asked) in models.items()
    }
    return made | {name: Foreign(content, says=says) for name, (content, says) in files.items()}
