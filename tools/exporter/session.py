"""Run a model with onnxruntime, as the worker on the box does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import onnxruntime

from agent.contract.model import INPUT_NAME, OUTPUT_NAME
from agent.worker.model import make_options
from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from tools.exporter.graph import Array

BATCHES = (1, 2, 4)  # sizes that are tried: the batch axis is dynamic in truth, not in name only


def open_session(model: bytes, threads: int = 0, *, integer: bool = True) -> onnxruntime.InferenceSession:
    """Load a model from its bytes, which rules out files beside it; ExportError with onnxruntime's reason.

    With `integer` false a quantised model is computed in float, with the same result on every processor but for the
    last bits; the box computes in whole numbers, where processors without VNNI differ.
    """
    options = make_options(threads)
    if not integer:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        reason = str(error).strip().splitlines()[0][:200]
        raise ExportError(f"onnxruntime {onnxruntime.__version__} does not load this model: {reason}") from error


def run_strip(session: onnxruntime.InferenceSession, fed: Array) -> Array:
    """(3, H, W) as the model is to be fed -> heatmap (H, W) float32."""
    output: Array = session.run([OUTPUT_NAME], {INPUT_NAME: fed[None]})[0]
    heatmap: Array = output[0, 0]
    return heatmap


def cores() -> int:
    """Count the processor cores this process may use."""
    return len(os.sched_getaffinity(0))
