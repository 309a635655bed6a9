"""The ONNX model: open it, hold it to the contract, run it. Its trial is in `trial.py`."""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from agent.contract.model import INPUT_NAME, ModelDescription, ModelFacts, Port, check_model
from agent.errors import Blame, Reason, Reject, Retry
from agent.worker.memory import blame_for_memory, memory_ran_out

Pixels = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model and what its metadata says."""

    session: ort.InferenceSession
    facts: ModelFacts


def open_model(path: Path, sha256: str, *, threads: int | None, unlabelled_input_scale: str) -> Model:
    """Open the model with this digest and hold it to the contract.

    Raises Reject with the reason where the file or the contract is to blame, Retry where the box is: there is no
    memory, or the file is gone or is not what it was.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Retry(Reason.STORE_DAMAGED, f"model {sha256[:12]}: {error.strerror}", Blame.BOX) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Retry(Reason.STORE_DAMAGED, f"model {sha256[:12]} is damaged in the store", Blame.BOX)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # strips come seldom: leave the cores alone
    try:
        # From bytes onnxruntime refuses external data of every kind, hard links included.
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        if memory_ran_out(error):
            raise blame_for_memory("load the model", error) from error
        raise Reject(Reason.MODEL_UNREADABLE, f"onnxruntime refuses it: {error}", model_fault=True) from error
    description = ModelDescription(
        tuple(Port(port.name, port.type, tuple(port.shape)) for port in session.get_inputs()),
        tuple(Port(port.name, port.type, tuple(port.shape)) for port in session.get_outputs()),
        session.get_modelmeta().custom_metadata_map,
    )
    return Model(session, check_model(description, unlabelled_input_scale=unlabelled_input_scale))


def run(model: Model, strip: Pixels) -> tuple[Any, float]:
    """Run the model on (1, 3, height, width) float32 in its input scale; return the raw output and milliseconds.

    Raises Reject (the model is to blame) where it fails, Retry where there is no memory.
    """
    start = time.perf_counter()
    try:
        (output,) = model.session.run(None, {INPUT_NAME: strip})
    except Exception as error:  # onnxruntime's errors have no common base
        if memory_ran_out(error):
            raise blame_for_memory("run the model", error) from error
        raise Reject(Reason.INFERENCE_FAILED, f"the model failed: {error}", model_fault=True) from error
    return output, (time.perf_counter() - start) * 1e3


def usable_cores() -> int:
    """Count the cores that this process may use: its affinity, limited by the control group's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().rpartition(":")[2]
        quota, period = Path(f"/sys/fs/cgroup{group}/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
