"""Measure models against each other: interleaved runs for the time, a fresh process each for the memory.

A file for patches that are smaller than the strip is called once for each, its heat stitched in numpy.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.worker.model import CPU
from agent.worker.providers import open_on
from agent.worker.unusable import Unusable
from tools.exporter.errors import ExportError
from tools.exporter.layout import make_layout
from tools.exporter.progress import in_time, say
from tools.exporter.session import open_session, run_strip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnxruntime

    from tools.exporter.graph import Array

FEWEST_ROUNDS = 3
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
    load_seconds: float  # to open it
    peak_mib: float  # of the whole process that loads the model and runs it twice; not a number where not asked for
    file_mb: float
    ratios: tuple[float, ...] = ()  # round by round
    cpu_ratios: tuple[float, ...] = ()


def measure(
    models: Mapping[str, Path],
    fed: Array,
    *,
    rounds: int,
    threads: int,
    memory: bool = True,
    providers: Mapping[str, str] | None = None,
    most_seconds: float = math.inf,
) -> list[Measured]:
    """Run the models in turn, `rounds` times, on `fed` (3, H, W); the first of `models` is the base of the ratios.

    After `most_seconds` no further round begins, but for the first FEWEST_ROUNDS.

    `providers` names by model what computes it where that is not the cpu; what cannot is left out, and that is said.
    """
    runs: dict[str, Callable[[], object]] = {}
    load = {}
    elsewhere = providers or {}
    for name, path in models.items():
        content, started = path.read_bytes(), time.perf_counter()
        try:
            runs[name] = _open(content, elsewhere.get(name, CPU), fed, threads)
        except Unusable as error:
            say(f"{name} is left out: {error}")
            continue
        load[name] = time.perf_counter() - started
        runs[name]()
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in in_time(range(rounds), "rounds", most_seconds=most_seconds, fewest=FEWEST_ROUNDS):
        for name, run in runs.items():
            started, worked = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - worked)
    first = next(iter(models))
    runs.clear()  # their memory, before that of others is measured
    found = []
    for name, path in ((name, models[name]) for name in wall):
        ratios, cpu_ratios = _ratios(wall[name], wall[first]), _ratios(cpu[name], cpu[first])
        asked = memory and name not in elsewhere
        peak = statistics.median(peak_mib(path, threads) for _ in range(MEMORY_RUNS)) if asked else math.nan
        found.append(
            Measured(
                name,
                statistics.median(wall[name]),
                statistics.median(ratios),
                statistics.median(cpu_ratios),
                load[name],
                peak,
                path.stat().st_size / 1e6,
                ratios,
                cpu_ratios,
            )
        )
    return found


def _open(content: bytes, provider: str, fed: Array, threads: int) -> Callable[[], object]:
    if provider == CPU:
        return strip_runner(open_session(content, threads), fed)
    compute = open_on(provider, content, (fed.shape[1], fed.shape[2]), threads)
    return lambda: compute(fed[None])


def strip_runner(session: onnxruntime.InferenceSession, fed: Array) -> Callable[[], Array]:
    """Give what scores `fed` (3, H, W) once: -> heatmap (H, W), in one call or in one for each patch."""
    side = tuple(session.get_inputs()[0].shape[2:])
    size = fed.shape[1], fed.shape[2]
    if side == size:
        return lambda: run_strip(session, fed)
    layout = make_layout(size, (side[0], side[1]))

    def run() -> Array:
        heatmap = np.empty(size, np.float32)
        for row, column in layout.windows:
            bottom, right = row.start + layout.patch_height, column.start + layout.patch_width
            heat = run_strip(session, fed[:, row.start : bottom, column.start : right])
            heatmap[layout.kept(row, column)] = heat[
                row.keep_start : row.keep_stop, column.keep_start : column.keep_stop
            ]
        return heatmap

    return run


def peak_mib(model: Path, threads: int) -> float:
    """Peak memory of a fresh process that loads the model by its path and runs it twice, MiB."""
    command = [sys.executable, "-c", _PEAK, str(model), str(threads)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ExportError(f"{model.name} cannot be measured ({finished.stderr.strip()[-200:]}): inspect it first.")
    return int(finished.stdout) / 1024


def _ratios(values: list[float], others: list[float]) -> tuple[float, ...]:
    return tuple(value / other for value, other in zip(values, others, strict=True))
