"""Measure models against each other: interleaved runs for the time, a fresh process each for the memory."""

from __future__ import annotations

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
    peak_mib: float  # of the whole process that loads the model and runs it twice
    file_mb: float


def measure(models: Mapping[str, Path], fed: Array, *, rounds: int, threads: int) -> list[Measured]:
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
    return [
        Measured(
            name,
            statistics.median(wall[name]),
            _median_ratio(wall[name], wall[first]),
            _median_ratio(cpu[name], cpu[first]),
            statistics.median(peak_mib(path, threads) for _ in range(MEMORY_RUNS)),
            path.stat().st_size / 1e6,
        )
        for name, path in models.items()
    ]


def peak_mib(model: Path, threads: int) -> float:
    """Peak memory of a fresh process that loads the model by its path and runs it twice, MiB."""
    command = [sys.executable, "-c", _PEAK, str(model), str(threads)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ExportError(f"{model.name} cannot be measured ({finished.stderr.strip()[-200:]}): inspect it first.")
    return int(finished.stdout) / 1024


def table(measured: list[Measured]) -> str:
    """Lay the figures out for a terminal."""
    lines = [f"{'model':24} {'s/strip':>8} {'ratio':>7} {'cpu':>7} {'MiB':>6} {'ratio':>7} {'MB':>7} {'ratio':>7}"]
    base = measured[0]
    lines += [
        f"{one.name:24} {one.seconds:8.3f} {one.ratio:7.3f} {one.cpu_ratio:7.3f} {one.peak_mib:6.0f} "
        f"{one.peak_mib / base.peak_mib:7.2f} {one.file_mb:7.1f} {one.file_mb / base.file_mb:7.3f}"
        for one in measured
    ]
    return "\n".join(lines)


def _median_ratio(values: list[float], others: list[float]) -> float:
    return statistics.median(value / other for value, other in zip(values, others, strict=True))
