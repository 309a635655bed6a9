"""Intel's OpenVINO, in the place of onnxruntime. Its package is an extra: `pip install 'strip-agent[openvino]'`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.worker.model import usable_cores
from agent.worker.unusable import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.worker.model import Pixels

ROWS, COLUMNS = 2, 3  # axes of (batch, channels, height, width)
AXES = 4


def open_with_openvino(content: bytes, size: tuple[int, int], threads: int | None) -> Callable[[Pixels], Any]:
    """Open a model for one strip of (height, width) at a time. Raises Unusable, also where OpenVINO is not installed.

    Call it after onnxruntime has opened the same bytes, which refuses files that read others.
    """
    # Importing OpenVINO sends a word to its makers, through this package; without it there is a stub that does nothing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # what the import system takes for "absent"
    try:
        import openvino  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Unusable(f"OpenVINO is not installed ({error}): pip install 'strip-agent[openvino]'") from error
    try:
        request = _compile(openvino, content, size, threads)
    except Exception as error:  # OpenVINO's errors have no common base
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise Unusable(f"OpenVINO {openvino.__version__} cannot open the model: {last}") from error

    def compute(strip: Pixels) -> Any:
        found = request.infer({0: strip}, share_inputs=True, share_outputs=False)
        return next(iter(found.values()))

    return compute


def _compile(openvino: Any, content: bytes, size: tuple[int, int], threads: int | None) -> Any:
    try:
        model = openvino.Core().read_model(content)
    except Exception:  # noqa: BLE001 - whatever it lacks, this may be it; else the second reading says so
        model = _with_own_resize(openvino).read_model(content)
    model.reshape([1, 3, *size])
    settings = {
        "INFERENCE_NUM_THREADS": threads or usable_cores(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # other workers have the same cores
        "INFERENCE_PRECISION_HINT": "f32",  # else processors with AMX would round to bfloat16
    }
    return openvino.Core().compile_model(model, "CPU", settings).create_infer_request()


def _with_own_resize(openvino: Any) -> Any:
    """Return a reader that knows `tf_crop_and_resize`, which files of `--window exact` contain and OpenVINO lacks."""
    from openvino import opset13 as ops  # noqa: PLC0415 - an extra
    from openvino.frontend.onnx import ConversionExtension  # noqa: PLC0415

    def convert(node: Any) -> Any:
        how = node.get_attribute("coordinate_transformation_mode", "half_pixel")
        if node.get_attribute("mode", "nearest") != "linear" or how not in ("tf_crop_and_resize", "align_corners"):
            raise ValueError(f"a Resize with {how} beside one with tf_crop_and_resize")
        image = node.get_input(0)
        if how == "align_corners":
            axes = ops.constant(np.array([ROWS, COLUMNS]))
            scales = ops.gather(node.get_input(2), axes, ops.constant(0))
            return ops.interpolate(
                image, scales, "linear_onnx", "scales", coordinate_transformation_mode="align_corners", axes=axes
            ).outputs()
        region, sizes = node.get_input(1), node.get_input(3)
        down, right = (_weights(ops, image, region, sizes, axis) for axis in (ROWS, COLUMNS))
        return ops.matmul(down, ops.matmul(image, right, False, True), False, False).outputs()  # noqa: FBT003

    core = openvino.Core()
    core.add_extension(ConversionExtension("Resize", convert))
    return core


def _weights(ops: Any, image: Any, region: Any, sizes: Any, axis: int) -> Any:
    """Make the matrix (to, from) that resizes one axis linearly: each row has the weights of two neighbours."""
    zero, one = ops.constant(np.int64(0)), ops.constant(np.int64(1))

    def pick(vector: Any, place: int) -> Any:
        return ops.gather(vector, ops.constant(np.int64(place)), zero)

    def real(number: Any) -> Any:
        return ops.convert(number, "f32")

    length, count = pick(ops.shape_of(image, "i64"), axis), pick(sizes, axis)
    start, stop = pick(region, axis), pick(region, axis + AXES)
    last, steps = real(ops.subtract(length, one)), real(ops.subtract(count, one))
    span = ops.multiply(ops.subtract(stop, start), last)
    outputs = real(ops.range(zero, count, one, "i64"))
    at = ops.add(ops.multiply(start, last), ops.divide(ops.multiply(outputs, span), steps))
    inputs = real(ops.range(zero, length, one, "i64"))
    distance = ops.absolute(ops.subtract(ops.unsqueeze(at, one), ops.unsqueeze(inputs, zero)))
    return ops.relu(ops.subtract(ops.constant(np.float32(1)), distance))
