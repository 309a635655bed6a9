"""Small ONNX models for tests, made with onnx alone: good ones that judge, and bad ones of every kind."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from agent.contract.golden import Golden, encode_golden
from agent.contract.model import ModelFacts, format_metadata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.contract.exposure import Exposure
    from agent.contract.measures import Reference

HEIGHT, WIDTH = 488, 88
OPSET = 17


def difference_model(
    path: Path,
    *,
    version: int | None = 1,
    model_id: str = "difference",
    height: int = HEIGHT,
    width: int = WIDTH,
    gain: float = 2.0,
    golden: bool = True,
    golden_shift: float = 0.0,
    threshold: float | None = 0.5,
    scale: str = "unit",
    tail: Callable[[], list[onnx.NodeProto]] | None = None,
    names: tuple[str, str] = ("input", "output"),
    batch: str | int = "batch",
    channels: int = 3,
    salt: int = 0,
    exposure: Exposure | None = None,
    reference: Reference | None = None,
    edit: Callable[[onnx.ModelProto], None] | None = None,
) -> str:
    """Write a model whose heatmap is the blurred |target - reference 1|, times `gain`, clipped to 0..1; give its hash.

    `version` None leaves the metadata out. `tail` replaces the nodes that turn `heatmap` (batch, 1, H, W) into `out`.
    `golden_shift` makes the golden strip's expected heatmap wrong. `salt` changes the bytes and nothing else. `edit`
    changes the graph before the golden strip is run.
    """
    divisor = 1.0 if scale == "unit" else 255.0
    consts = {
        "gain": np.float32(gain / divisor),
        "zero": np.float32(0),
        "one": np.float32(1),
        "starts0": np.array([0]),
        "starts1": np.array([1]),
        "ends1": np.array([1]),
        "ends2": np.array([2]),
        "axis": np.array([1]),
        "kernel": np.full((1, 1, 3, 3), 1 / 9, np.float32),
    }
    nodes = [
        helper.make_node("Slice", [names[0], "starts0", "ends1", "axis"], ["target"]),
        helper.make_node("Slice", [names[0], "starts1", "ends2", "axis"], ["reference"]),
        helper.make_node("Sub", ["target", "reference"], ["signed"]),
        helper.make_node("Abs", ["signed"], ["difference"]),
        helper.make_node("Conv", ["difference", "kernel"], ["blurred"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["blurred", "gain"], ["gained"]),
        helper.make_node("Clip", ["gained", "zero", "one"], ["heatmap"]),
        *(tail() if tail else []),
        helper.make_node("Mul", ["out" if tail else "heatmap", "zero"], ["nothing"]),
        helper.make_node("Concat", ["out" if tail else "heatmap", "nothing", "nothing"], [names[1]], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "difference",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [batch, channels, height, width])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [batch, 3, height, width])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in consts.items()],
    )
    graph.doc_string = str(salt)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    if edit is not None:
        edit(model)
    if version is not None:
        _add_metadata(
            model, version, model_id, height, width, threshold, scale, golden, golden_shift, exposure, reference
        )
    data = model.SerializeToString()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _add_metadata(  # noqa: PLR0917 - passed on as they come
    model: onnx.ModelProto,
    version: int,
    model_id: str,
    height: int,
    width: int,
    threshold: float | None,
    scale: str,
    golden: bool,
    golden_shift: float,
    exposure: Exposure | None,
    reference: Reference | None,
) -> None:
    encoded = ""
    if golden:
        strip = golden_strip(height, width)
        fed = strip[np.newaxis] / np.float32(255 if scale == "unit" else 1)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        heatmap = session.run(None, {session.get_inputs()[0].name: fed})[0][0, 0]
        encoded = encode_golden(Golden(strip, np.clip(heatmap + golden_shift, 0, 1)))
    facts = ModelFacts(
        labelled=True,
        height=height,
        width=width,
        input_scale=scale,
        model_id=model_id,
        version=version,
        created="2026-11-22T00:00:00Z",
        precision="fp32",
        threshold=threshold,
        producer="tests",
        golden=encoded,
        golden_tolerance=0.001 if encoded else None,
        exposure=exposure,
        reference=reference,
    )
    helper.set_model_props(model, format_metadata(facts))


def golden_strip(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Make (3, height, width) float32 grey levels with one bright square in the target."""
    rows, columns = np.mgrid[0:height, 0:width]
    plain = np.rint(100 + 40 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.float32)
    strip = np.stack([plain, plain, plain])
    strip[0, 40:52, 60:72] = 230
    strip[2] += 1
    return strip
