"""Model files that must never score a strip, one for each way of being bad; `models.py` makes the good ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.errors import Reason
from tests.helpers.models import HEIGHT, difference_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def random_bytes(path: Path) -> None:
    """Write random bytes."""
    path.write_bytes(np.random.default_rng(1).bytes(100_000))


def empty(path: Path) -> None:
    """Write nothing."""
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    """Write the first two thirds of a good model."""
    difference_model(path, version=99)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def huge_and_sparse(path: Path) -> None:
    """Write 2 GiB that take no space."""
    with path.open("wb") as file:
        file.truncate(2 << 30)


def takes_doubles(path: Path) -> None:
    """Declare an input of another dtype."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
        model.graph.input[0].name = "doubles"
        model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT))
        for node in list(model.graph.node)[1:]:
            node.input[:] = ["floats" if name == "input" else name for name in node.input]
        model.graph.input[0].name = "input"

    difference_model(path, version=99, golden=False, edit=edit)


def gives_another_shape(path: Path) -> None:
    """Give half of the rows, a number that depends on the pixels: it shows only when the model runs."""
    consts = {"half": np.array([HEIGHT // 2]), "rows": np.array([2]), "flat": np.array([1])}
    nodes = [
        helper.make_node("ReduceMax", ["nothing"], ["none"], keepdims=0),
        helper.make_node("Cast", ["none"], ["none64"], to=TensorProto.INT64),
        helper.make_node("Add", ["half", "none64"], ["some"]),
        helper.make_node("Reshape", ["some", "flat"], ["end"]),
        helper.make_node("Slice", ["whole", "starts0", "end", "rows"], ["output"]),
    ]

    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in consts.items())
        model.graph.node[-1].output[0] = "whole"
        model.graph.node.extend(nodes)
        model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "rows"

    difference_model(path, version=99, golden=False, edit=edit)


def _with_tail(path: Path, *nodes: onnx.NodeProto, golden: bool) -> None:
    difference_model(path, version=99, golden=golden, tail=lambda: list(nodes))


def gives_nan(path: Path, *, golden: bool = False) -> None:
    """Give the root of a negative number."""
    _with_tail(
        path,
        helper.make_node("Sub", ["heatmap", "one"], ["below"]),
        helper.make_node("Sub", ["below", "one"], ["negative"]),
        helper.make_node("Sqrt", ["negative"], ["out"]),
        golden=golden,
    )


def gives_too_much(path: Path, *, golden: bool = False) -> None:
    """Give 1..2."""
    _with_tail(path, helper.make_node("Add", ["heatmap", "one"], ["out"]), golden=golden)


def fills_other_channels(path: Path, *, golden: bool = False) -> None:
    """Put the heatmap into channels 1 and 2 as well."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-1].input[:] = ["heatmap", "heatmap", "heatmap"]

    difference_model(path, version=99, golden=golden, edit=edit)


def slow(path: Path) -> None:
    """Convolve the heatmap with 48 channels, again and again, and then ignore that."""
    kernels = [numpy_helper.from_array(np.full((48, 1, 3, 3), 0.01, np.float32), "out48")]
    kernels.append(numpy_helper.from_array(np.full((1, 48, 3, 3), 0.01, np.float32), "in48"))
    nodes, last = [], "heatmap"
    for number in range(8):
        nodes.append(helper.make_node("Conv", [last, "out48"], [f"wide{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Conv", [f"wide{number}", "in48"], [f"thin{number}"], pads=[1, 1, 1, 1]))
        last = f"thin{number}"
    nodes += [helper.make_node("Mul", [last, "zero"], ["none"]), helper.make_node("Add", ["heatmap", "none"], ["out"])]
    difference_model(
        path,
        version=99,
        golden=False,
        tail=lambda: nodes,
        edit=lambda model: model.graph.initializer.extend(kernels),
    )


def external_data(location: str) -> Callable[[Path], None]:
    """Let the kernel's bytes lie in another file."""

    def write(path: Path) -> None:
        def edit(model: onnx.ModelProto) -> None:
            kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "kernel")
            kernel.ClearField("raw_data")
            kernel.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", "36")):
                entry = kernel.external_data.add()
                entry.key, entry.value = key, value

        difference_model(path, version=99, golden=False, edit=edit)

    return write


def unknown_domain(path: Path) -> None:
    """Use an operator of somebody's own."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-1].domain = "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))

    difference_model(path, version=99, golden=False, edit=edit)


def _folded(path: Path, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> None:
    """Compute `folded`, a float, out of constants: onnxruntime does so while it loads the model."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.extend(tensors)
        for node in (*nodes, helper.make_node("Mul", ["folded", "zero"], ["ignored"])):
            model.graph.node.insert(len(model.graph.node) - 1, node)
        model.graph.node[-1].input[1] = "nothing2"
        model.graph.node.insert(
            len(model.graph.node) - 1, helper.make_node("Add", ["nothing", "ignored"], ["nothing2"])
        )

    difference_model(path, version=99, golden=False, edit=edit)


def _filled(name: str, *shape: int) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    """Make a node that fills a tensor of this shape."""
    fill = helper.make_tensor("fill", TensorProto.FLOAT, [1], [1e-4])
    node = helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=fill)
    return node, numpy_helper.from_array(np.array(shape), f"{name}_shape")


def needs_memory(path: Path) -> None:
    """Add matrices of 25 MB, each of which is kept, while it is loaded."""
    node, tensor = _filled("c0", 2500, 2500)
    nodes = [node, *(helper.make_node("Add", [f"c{n}", "c0"], [f"c{n + 1}"]) for n in range(400))]
    _folded(path, [*nodes, helper.make_node("ReduceMean", ["c400"], ["folded"], keepdims=0)], [tensor])


def never_loads(path: Path) -> None:
    """Run recurrent networks over thousands of steps, for many minutes, while it is loaded."""
    steps, hidden, number = 5000, 2048, 100
    made = [_filled("steps", steps, 1, 1), _filled("w", 1, 3 * hidden, 1), _filled("r", 1, 3 * hidden, hidden)]
    made.append(_filled("h0", 1, 1, hidden))
    nodes = [node for node, _ in made]
    for n in range(number):  # each goes on where the one before it ended: equal ones would be computed once
        inputs = ["steps", "w", "r", "", "", f"h{n}"]
        nodes.append(helper.make_node("GRU", inputs, ["", f"h{n + 1}"], hidden_size=hidden))
    nodes.append(helper.make_node("ReduceMean", [f"h{number}"], ["folded"], keepdims=0))
    _folded(path, nodes, [tensor for _, tensor in made])


def kills(path: Path) -> None:
    """Divide the smallest 64-bit integer by -1 while it is loaded: the processor ends the process with SIGFPE."""
    tensors = [
        numpy_helper.from_array(np.full(4, np.iinfo(np.int64).min), "smallest"),
        numpy_helper.from_array(np.full(4, -1), "minus_one"),
    ]
    nodes = [
        helper.make_node("Div", ["smallest", "minus_one"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["folded"], keepdims=0),
    ]
    _folded(path, nodes, tensors)


def _blind(*nodes: tuple[str, list[str]]) -> Callable[[Path], None]:
    """Make the writer of a model that turns `heatmap` or `target` into `out` by these operators and their inputs."""

    def tail() -> list[onnx.NodeProto]:
        outputs = [*(f"blind{number}" for number in range(1, len(nodes))), "out"]
        return [helper.make_node(op, inputs, [out]) for (op, inputs), out in zip(nodes, outputs, strict=True)]

    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(0.4, np.float32), "some"))

    def write(path: Path) -> None:
        difference_model(path, version=99, tail=tail, edit=edit)

    return write


BLIND: dict[str, Callable[[Path], None]] = {
    "all zero": _blind(("Mul", ["heatmap", "zero"])),
    "constant": _blind(("Mul", ["heatmap", "zero"]), ("Add", ["blind1", "some"])),
    "everything is a defect": _blind(("Mul", ["heatmap", "zero"]), ("Add", ["blind1", "one"])),
    "inverted": _blind(("Sub", ["one", "heatmap"])),
    "grey levels as heat": _blind(("Identity", ["target"])),
    "weak grey levels as heat": _blind(("Mul", ["target", "some"])),
    "dark levels as heat": _blind(("Sub", ["one", "target"])),
    "reference as heat": _blind(("Identity", ["reference"])),
}
"""Models that keep every promise of the contract, reproduce their golden strip, and find no defect."""


def states_its_own_tolerance(path: Path) -> None:
    """Give nothing, expect a defect everywhere, and call that within the tolerance."""
    tail = [helper.make_node("Mul", ["heatmap", "zero"], ["out"])]
    difference_model(path, version=99, tail=lambda: tail, golden_shift=1.0)
    model = onnx.load(path)
    (tolerance,) = (prop for prop in model.metadata_props if prop.key == "strip_agent.golden_tolerance")
    tolerance.value = "1.0"
    path.write_bytes(model.SerializeToString())


def sees_in_any_scale(path: Path) -> None:
    """Divide by the sum of target and reference, and have no metadata: nobody can tell what it is to be fed."""
    nodes = [
        helper.make_node("Add", ["target", "reference"], ["both"]),
        helper.make_node("Div", ["difference", "both"], ["ratio"]),
        helper.make_node("Clip", ["ratio", "zero", "one"], ["out"]),
    ]
    difference_model(path, version=None, tail=lambda: nodes)


def sees_in_no_scale(path: Path) -> None:
    """Give nothing, and have no metadata."""
    difference_model(path, version=None, tail=lambda: [helper.make_node("Mul", ["heatmap", "zero"], ["out"])])


BAD_BYTES: dict[str, tuple[Reason, Callable[[Path], object]]] = {
    "truncated": (Reason.MODEL_UNREADABLE, truncated),
    "random bytes": (Reason.MODEL_UNREADABLE, random_bytes),
    "empty": (Reason.MODEL_UNREADABLE, empty),
    "2 GiB sparse": (Reason.MODEL_TOO_LARGE, huge_and_sparse),
    "input name": (
        Reason.MODEL_NAMES,
        lambda path: difference_model(path, version=99, names=("image", "output")),
    ),
    "output name": (Reason.MODEL_NAMES, lambda path: difference_model(path, version=99, names=("input", "heat"))),
    "fixed batch": (Reason.MODEL_AXES, lambda path: difference_model(path, version=99, batch=1)),
    "dtype": (Reason.MODEL_DTYPES, takes_doubles),
    "height": (Reason.MODEL_SHAPES, lambda path: difference_model(path, version=99, height=960)),
    "channel count": (Reason.MODEL_SHAPES, lambda path: difference_model(path, version=99, channels=4, golden=False)),
    "output shape": (Reason.OUTPUT_WRONG_SHAPE, gives_another_shape),
    "NaN": (Reason.OUTPUT_NON_FINITE, gives_nan),
    "outside 0..1": (Reason.OUTPUT_OUT_OF_RANGE, gives_too_much),
    "other channels": (Reason.OUTPUT_OTHER_CHANNELS, fills_other_channels),
    "golden strip": (Reason.GOLDEN_MISMATCH, lambda path: difference_model(path, version=99, golden_shift=0.01)),
    "slow": (Reason.MODEL_TOO_SLOW, slow),
    "its own tolerance": (Reason.GOLDEN_MISMATCH, states_its_own_tolerance),
    "all zero": (Reason.MODEL_BLIND, BLIND["all zero"]),
    "grey levels as heat": (Reason.MODEL_BLIND, BLIND["grey levels as heat"]),
    "any input scale": (Reason.INPUT_SCALE_DOUBTFUL, sees_in_any_scale),
    "external data, relative": (Reason.MODEL_UNREADABLE, external_data("weights.bin")),
    "external data, absolute": (Reason.MODEL_UNREADABLE, external_data("/etc/hostname")),
    "unknown domain": (Reason.MODEL_UNREADABLE, unknown_domain),
    "memory": (Reason.MODEL_NEEDS_TOO_MUCH_MEMORY, needs_memory),
    "never loads": (Reason.MODEL_TRIAL_TIMEOUT, never_loads),
    "kills": (Reason.MODEL_CRASHED, kills),
}
"""Whatever their papers say, these bytes are refused for this reason."""


def hard_linked_data(path: Path, elsewhere: Path) -> None:
    """Let the kernel lie in a file beside the model that is a second name of one elsewhere."""
    elsewhere.write_bytes(np.full(9, 1 / 9, np.float32).tobytes())
    os.link(elsewhere, path.with_name("linked.bin"))
    external_data("linked.bin")(path)


BRIGHT = 240.0
"""A strip whose target has a pixel above this, in grey levels, is one that the models below fail on."""
HUNGRY_MIB = 1024


def nan_on_bright(path: Path, version: int) -> str:
    """Write a model that is good on its golden strip and gives NaN for a strip with a bright pixel."""
    return _bad_on_bright(
        path,
        version,
        helper.make_node("Mul", ["excess", "minus"], ["root_of"]),
        helper.make_node("Sqrt", ["root_of"], ["poison"]),
    )


def kills_on_bright(path: Path, version: int) -> str:
    """Write a model that is good on its golden strip and ends its process for a strip with a bright pixel."""
    return _bad_on_bright(
        path,
        version,
        helper.make_node("Sign", ["excess"], ["sign"]),
        helper.make_node("Cast", ["sign"], ["sign64"], to=TensorProto.INT64),
        helper.make_node("Sub", ["one64", "sign64"], ["less"]),  # 1, or 0 for a bright strip
        helper.make_node("Sub", ["less", "sign64"], ["divisor"]),  # 1, or -1
        helper.make_node("Div", ["smallest64", "divisor"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["huge"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["huge", "zero"], ["poison"]),
    )


def hungry_on_bright(path: Path, version: int) -> str:
    """Write a model that is good on its golden strip and takes a GiB for a strip with a bright pixel."""
    fill = helper.make_tensor("fill", TensorProto.FLOAT, [1], [0.0])
    size = HUNGRY_MIB * (1 << 20) // 4
    return _bad_on_bright(
        path,
        version,
        helper.make_node("Sign", ["excess"], ["sign"]),
        helper.make_node("Constant", [], ["size"], value_float=float(size)),
        helper.make_node("Mul", ["sign", "size"], ["more"]),
        helper.make_node("Add", ["more", "one"], ["wanted"]),
        helper.make_node("Cast", ["wanted"], ["wanted64"], to=TensorProto.INT64),
        helper.make_node("Constant", [], ["one_axis"], value_ints=[1]),
        helper.make_node("Reshape", ["wanted64", "one_axis"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["heap"], value=fill),
        helper.make_node("ReduceMax", ["heap"], ["poison"], keepdims=0),
    )


def _bad_on_bright(path: Path, version: int, *nodes: onnx.NodeProto) -> str:
    """`excess` is how far the brightest pixel of the target is above BRIGHT, at least 0; `poison` is added."""
    consts = {
        "limit": np.float32(BRIGHT / 255),
        "minus": np.float32(-1),
        "one64": np.int64(1),
        "smallest64": np.int64(np.iinfo(np.int64).min),
    }
    tail = [
        helper.make_node("ReduceMax", ["target"], ["brightest"], keepdims=0),
        helper.make_node("Sub", ["brightest", "limit"], ["above"]),
        helper.make_node("Relu", ["above"], ["excess"]),
        *nodes,
        helper.make_node("Add", ["heatmap", "poison"], ["out"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in consts.items()]

    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.extend(tensors)

    return difference_model(path, version=version, tail=lambda: tail, edit=edit)
