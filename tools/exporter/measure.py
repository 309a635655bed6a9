"""Measure models against each other: interleaved runs for the time, a fresh process each for the memory."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.contract.model import INPUT_NAME, OUTPUT_NAME
from tools.exporter.errors import ExportError
from tools.exporter.progress import progress
from tools.exporter.session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tools.exporter.graph import Array

MEMORY_RUNS = 3  # the peak depends on how the threads happen to meet; the median is shown

_PEAK = """
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is loaded
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
shape = [1, *session.get_inputs()[0].shape[1:]]
for _ in range(2):
    session.run(None, {session.get_inputs()[0].name: numpy.full(shape, 0.5, numpy.float32)})
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model. Ratios are medians over the rounds, each round against the first model in the same round."""

    name: str
    seconds: float  # median wall time of a strip
    ratio: float
    cpu_ratio: float  # the same of processor time, which other programs on the machine disturb less
    peak_mib: float  # of the whole process that loads the model and runs it twice; not a number where not asked for
    file_mb: float
    ratios: tuple[float, ...] = ()  # round by round
    cpu_ratios: tuple[float, ...] = ()


def measure(
    models: Mapping[str, Path], fed: Array, *, rounds: int, threads: int, memory: bool = True
) -> list[Measured]:
    """Run the models in turn, `rounds` times, on `fed` (3, H, W); the first of `models` is the base of the ratios."""
    sessions = {name: open_session(path.read_bytes(), threads) for name, path in models.items()}
    wall: dict[str, list[float]] = {name: [] for name in models}
    cpu: dict[str, list[float]] = {name: [] for name in models}
    feeds = {INPUT_NAME: fed[None]}
    for session in sessions.values():
        session.run([OUTPUT_NAME], feeds)
    for _ in progress(range(rounds), "rounds"):
        for name, session in sessions.items():
            started, worked = time.perf_counter(), time.process_time()
            session.run([OUTPUT_NAME], feeds)
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - worked)
    first = next(iter(models))
    del sessions
    found = []
    for name, path in models.items():
        ratios, cpu_ratios = _ratios(wall[name], wall[first]), _ratios(cpu[name], cpu[first])
        peak = statistics.median(peak_mib(path, threads) for _ in range(MEMORY_RUNS)) if memory else math.nan
        found.append(
            Measured(
                name,
                statistics.median(wall[name]),
                statistics.median(ratios),
                statistics.median(cpu_ratios),
                peak,
                path.stat().st_size / 1e6,
                ratios,
                cpu_ratios,
            )
        )
    return found


def peak_mib(model: Path, threads: int) -> float:
    """Peak memory of a fresh process that loads the model by its path and runs it twice, MiB."""
    command = [sys.executable, "-c", _PEAK, str(model), str(threads)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ExportError(f"{model.name} cannot be measured ({finished.stderr.strip()[-200:]}): inspect it first.")
    return int(finished.stdout) / 1024


def _ratios(values: list[float], others: list[float]) -> tuple[float, ...]:
    return tuple(value / other for value, other in zip(values, others, strict=True))
