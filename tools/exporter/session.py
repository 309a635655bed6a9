"""Run a model with onnxruntime, as the worker on the box does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from agent.contract.golden import decode_golden
from agent.contract.model import INPUT_NAME, OUTPUT_NAME, ModelDescription, Port
from tools.exporter.errors import ExportError
from tools.exporter.strips import NamedStrip, feed

if TYPE_CHECKING:
    from agent.contract.model import ModelFacts
    from tools.exporter.graph import Array

BATCHES = (1, 2, 4)  # sizes that are tried: the batch axis is dynamic in truth, not in name only


def open_session(model: bytes, threads: int = 0, *, integer: bool = True) -> onnxruntime.InferenceSession:
    """Load a model from its bytes, which rules out files beside it; ExportError with onnxruntime's reason.

    With `integer` false a quantised model is computed in float, with the same result on every processor but for the
    last bits; the box computes in whole numbers, where processors without VNNI differ.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not integer:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        reason = str(error).strip().splitlines()[0][:200]
        raise ExportError(f"onnxruntime {onnxruntime.__version__} does not load this model: {reason}") from error


def describe(session: onnxruntime.InferenceSession) -> ModelDescription:
    """Say what the loaded model says about itself."""
    inputs, outputs = (
        tuple(Port(value.name, value.type, tuple(value.shape)) for value in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    return ModelDescription(inputs, outputs, session.get_modelmeta().custom_metadata_map)


def run_strip(session: onnxruntime.InferenceSession, fed: Array) -> Array:
    """(3, H, W) as the model is to be fed -> heatmap (H, W) float32."""
    output: Array = session.run([OUTPUT_NAME], {INPUT_NAME: fed[None]})[0]
    heatmap: Array = output[0, 0]
    return heatmap


def prove_golden(session: onnxruntime.InferenceSession, facts: ModelFacts) -> float | None:
    """Run the golden strip; returns the largest difference of any pixel, None when the model has none.

    Raises `Reject` when it is damaged.
    """
    if not facts.golden:
        return None
    golden = decode_golden(facts.golden, facts.height, facts.width)
    heat = run_strip(session, feed(NamedStrip("golden", golden.strip), facts.input_scale))
    return float(np.abs(heat - golden.heatmap).max())


def cores() -> int:
    """Count the processor cores this process may use."""
    return len(os.sched_getaffinity(0))
