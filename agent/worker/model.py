"""The ONNX model: open it, hold it to the contract, run it. Its trial is in `trial.py`.

It is opened on the cpu, always; what else may compute it is in `providers.py`.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from agent.contract.file_kind import tell_what_it_is
from agent.contract.model import INPUT_NAME, ModelDescription, ModelFacts, Port, check_model
from agent.errors import Blame, Reason, Reject, Retry
from agent.worker.memory import blame_for_memory, memory_ran_out

if TYPE_CHECKING:
    from collections.abc import Callable

Pixels = np.ndarray[Any, np.dtype[np.float32]]
CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model and what its metadata says.

    `compute` maps (1, 3, height, width) float32 in the model's input scale to its raw output, on `provider`.
    """

    compute: Callable[[Pixels], Any]
    facts: ModelFacts
    provider: str = CPU


def read_model(path: Path, sha256: str) -> bytes:
    """Read the model file with this digest. Raises Retry (the box is to blame) where it is gone or not what it was."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Retry(Reason.STORE_DAMAGED, f"model {sha256[:12]}: {error.strerror}", Blame.BOX) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Retry(Reason.STORE_DAMAGED, f"model {sha256[:12]} is damaged in the store", Blame.BOX)
    return data


def load_model(content: bytes, *, threads: int | None, unlabelled_input_scale: str) -> Model:
    """Load a model from the bytes of its file and hold it to the contract. Raises Reject, and Retry without memory."""
    if wrong := tell_what_it_is(content):
        raise Reject(Reason.MODEL_UNREADABLE, f"this is no model file: {wrong}", model_fault=True)
    try:
        # From bytes onnxruntime refuses external data of every kind, hard links included.
        session = ort.InferenceSession(content, make_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        if memory_ran_out(error):
            raise blame_for_memory("load the model", error) from error
        raise Reject(Reason.MODEL_UNREADABLE, f"onnxruntime refuses it: {error}", model_fault=True) from error
    return Model(runner(session), check_model(describe(session), unlabelled_input_scale=unlabelled_input_scale))


def runner(session: ort.InferenceSession) -> Callable[[Pixels], Any]:
    """Return what runs a session on one strip."""

    def compute(strip: Pixels) -> Any:
        (output,) = session.run(None, {INPUT_NAME: strip})
        return output

    return compute


def make_options(threads: int | None) -> ort.SessionOptions:
    """Make the options of every session: so many threads, or all that this process may use."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Strips come seldom: leave the cores alone.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def describe(session: ort.InferenceSession) -> ModelDescription:
    """Say what the loaded model says about itself."""
    inputs, outputs = (
        tuple(Port(port.name, port.type, tuple(port.shape)) for port in ports)
        for ports in (session.get_inputs(), session.get_outputs())
    )
    return ModelDescription(inputs, outputs, session.get_modelmeta().custom_metadata_map)


def run(model: Model, strip: Pixels) -> tuple[Any, float]:
    """Run the model on (1, 3, height, width) float32 in its input scale; return the raw output and milliseconds.

    Raises Reject (the model is to blame) where it fails, Retry where there is no memory.
    """
    start = time.perf_counter()
    try:
        output = model.compute(strip)
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
