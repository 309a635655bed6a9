"""The ONNX model: open it, hold it to the contract, let it reproduce its golden strip, run it."""

from __future__ import annotations

import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from agent.contract import INPUT_NAME, ModelDescription, ModelFacts, Port, check_model
from agent.errors import Blame, Reason, Reject, Retry
from agent.golden import decode_golden
from agent.worker.checks import check_output

TIMED_RUNS = 3
OUT_OF_MEMORY_SIGNS = ("bad_alloc", "Failed to allocate memory", "out of memory")

Pixels = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model and what its metadata says."""

    session: ort.InferenceSession
    facts: ModelFacts


@dataclass(frozen=True, slots=True)
class Proof:
    """What the trial measured; `golden_difference` is None without a golden strip."""

    load_ms: float
    run_ms: float
    golden_difference: float | None


def open_model(path: Path, *, threads: int | None, unlabelled_input_scale: str) -> Model:
    """Open a model and hold it to the contract.

    Raises Reject with the reason where the file or the contract is to blame, Retry where there is no memory.
    """
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
        session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except MemoryError as error:
        raise Retry(Reason.NO_MEMORY, f"no memory to load the model: {error}", Blame.BOX) from error
    except Exception as error:  # onnxruntime's errors have no common base
        if any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS):
            raise Retry(Reason.NO_MEMORY, f"no memory to load the model: {error}", Blame.BOX) from error
        raise Reject(Reason.MODEL_UNREADABLE, f"onnxruntime refuses it: {error}", model_fault=True) from error
    description = ModelDescription(
        tuple(Port(port.name, port.type, tuple(port.shape)) for port in session.get_inputs()),
        tuple(Port(port.name, port.type, tuple(port.shape)) for port in session.get_outputs()),
        session.get_modelmeta().custom_metadata_map,
    )
    return Model(session, check_model(description, unlabelled_input_scale=unlabelled_input_scale))


def prove(model: Model, load_ms: float) -> Proof:
    """Run the golden strip, or flat grey without one, check what comes out, and time it. Raises Reject."""
    facts = model.facts
    difference = None
    scale = 255.0 if facts.input_scale == "unit" else 1.0
    if facts.golden:
        golden = decode_golden(facts.golden, facts.height, facts.width)
        strip = golden.strip[np.newaxis] / np.float32(scale)
        heatmap = check_output(run(model, strip)[0], facts.height, facts.width)
        difference = float(np.abs(heatmap - golden.heatmap).max())
        if difference > (facts.golden_tolerance or 0.0):
            what = f"differs by up to {difference:.6f} from the expected heatmap, allowed is {facts.golden_tolerance}"
            raise Reject(Reason.GOLDEN_MISMATCH, f"its golden strip {what}", model_fault=True)
    else:
        strip = np.full((1, 3, facts.height, facts.width), 128.0 / scale, np.float32)
        check_output(run(model, strip)[0], facts.height, facts.width)
    return Proof(load_ms, statistics.median(run(model, strip)[1] for _ in range(TIMED_RUNS)), difference)


def run(model: Model, strip: Pixels) -> tuple[Any, float]:
    """Run the model on (1, 3, height, width) float32 in its input scale; return the raw output and milliseconds.

    Raises Reject (the model is to blame) where it fails, Retry where there is no memory.
    """
    start = time.perf_counter()
    try:
        (output,) = model.session.run(None, {INPUT_NAME: strip})
    except MemoryError as error:
        raise Retry(Reason.NO_MEMORY, f"no memory to run the model: {error}", Blame.BOX) from error
    except Exception as error:  # onnxruntime's errors have no common base
        if any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS):
            raise Retry(Reason.NO_MEMORY, f"no memory to run the model: {error}", Blame.BOX) from error
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
