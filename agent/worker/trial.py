"""The trial of a model: reproduce the golden strip, keep the contract's promises about the output, be timed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract.golden import Golden, decode_golden
from agent.errors import Reason, Reject
from agent.worker.checks import OUTPUT_TOLERANCE, check_output
from agent.worker.session import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.worker.session import Model, Pixels

TIMED_RUNS = 3
TIMED_SECONDS = 1.0  # no further run is begun after that
WHITE = 255.0
FLAT = 0.05  # a heatmap that varies by less has not seen the obvious defect
CLEAR = 0.25  # one that varies by more has


@dataclass(frozen=True, slots=True)
class Proof:
    """What the trial measured; `golden_difference` is None without a golden strip. Times are milliseconds."""

    run_ms: float
    cpu_ms: float
    golden_difference: float | None


def prove(model: Model, before_timing: Callable[[], None]) -> Proof:
    """Run the golden strip, or a built-in one without it, check what comes out, and time it.

    `before_timing` is called in between: a process that stands back would look many times slower on a busy box.
    Raises Reject (the model is to blame) and Retry (there is no memory).
    """
    facts = model.facts
    difference = None
    if facts.golden:
        golden = decode_golden(facts.golden, facts.height, facts.width)
        strip = _feed(golden.strip, facts.input_scale)
        difference = _compare(golden, _heatmap(model, strip), facts.golden_tolerance or 0.0)
    else:
        strip = _feed(obvious_defect(facts.height, facts.width), facts.input_scale)
        heatmap = _heatmap(model, strip)
        if not facts.labelled:
            _doubt_input_scale(model, heatmap)
    before_timing()
    run_ms, cpu_ms = _time(model, strip)
    return Proof(run_ms, cpu_ms, difference)


def obvious_defect(height: int, width: int) -> Pixels:
    """Make a strip, (3, height, width) float32 grey levels: bars, and in the target a bright and a dark block."""
    rows, columns = np.mgrid[:height, :width]
    board = np.where(np.sin(columns / 4.0 + np.sin(rows / 40.0)) > 0, 180.0, 60.0).astype(np.float32)
    strip = np.stack([board, board, board])
    size = max(4, min(height, width) // 6)
    for top, grey in ((height // 4, 255.0), (height * 5 // 8, 0.0)):
        left = (width - size) // 2
        strip[0, top : top + size, left : left + size] = grey
    strip[2] += 1
    return strip


def _feed(strip: Pixels, input_scale: str) -> Pixels:
    """Make (1, 3, height, width) in the model's input scale out of grey levels 0..255."""
    fed: Pixels = strip[np.newaxis] / np.float32(WHITE if input_scale == "unit" else 1.0)
    return fed


def _heatmap(model: Model, strip: Pixels) -> Pixels:
    output = run(model, strip)[0]
    heatmap = check_output(output, model.facts.height, model.facts.width)
    _check_other_channels(output)
    return heatmap


def _check_other_channels(output: np.ndarray[Any, Any]) -> None:
    others = output[0, 1:]
    wrong = int(np.count_nonzero(~(np.abs(others) <= OUTPUT_TOLERANCE)))
    if wrong:
        detail = f"{wrong} pixels of the output's channels 1 and 2 are not zero, which the contract demands"
        raise Reject(Reason.OUTPUT_OTHER_CHANNELS, detail, model_fault=True)


def _compare(golden: Golden, heatmap: Pixels, tolerance: float) -> float:
    difference = float(np.abs(heatmap - golden.heatmap).max())
    if difference > tolerance:
        what = f"differs by up to {difference:.6f} from the expected heatmap, allowed is {tolerance:g}"
        raise Reject(Reason.GOLDEN_MISMATCH, f"its golden strip {what}", model_fault=True)
    return difference


def _doubt_input_scale(model: Model, heatmap: Pixels) -> None:
    """Refuse a graph that divides by 255 itself and is fed 0..1: it would never find a defect."""
    configured = model.facts.input_scale
    other = "gray8" if configured == "unit" else "unit"
    strip = _feed(obvious_defect(model.facts.height, model.facts.width), other)
    found, found_other = float(np.ptp(heatmap)), float(np.ptp(run(model, strip)[0][0, 0]))
    if found < FLAT and found_other > CLEAR:
        detail = (
            f"its file does not say which input it takes; fed as {configured} its heatmap of an obvious defect varies "
            f"by {found:.3f}, fed as {other} by {found_other:.3f}; see models.unlabelled_input_scale"
        )
        raise Reject(Reason.INPUT_SCALE_DOUBTFUL, detail, model_fault=True)


def _time(model: Model, strip: Pixels) -> tuple[float, float]:
    """Return the fastest of a few runs by the clock, and the cheapest by the processor's time, in milliseconds."""
    give_up = time.monotonic() + TIMED_SECONDS
    times: list[tuple[float, float]] = []
    while len(times) < TIMED_RUNS and (not times or time.monotonic() < give_up):
        before = time.process_time()
        run_ms = run(model, strip)[1]
        times.append((run_ms, (time.process_time() - before) * 1e3))
    return min(run_ms for run_ms, _ in times), min(cpu_ms for _, cpu_ms in times)
