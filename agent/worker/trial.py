"""The trial of a model: reproduce the golden strip, see an obvious defect, keep the contract, be timed."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract.golden import Golden, decode_golden
from agent.contract.model import INPUT_SCALES
from agent.errors import Reason, Reject
from agent.worker.checks import OUTPUT_TOLERANCE, check_output
from agent.worker.model import run
from agent.worker.sight import Sight, look, make_strips

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.contract.model import ModelFacts
    from agent.worker.model import Model, Pixels

log = logging.getLogger(__name__)

TIMED_RUNS = 3
TIMED_SECONDS = 1.0  # no further run is begun after that
WHITE = 255.0
MAX_GOLDEN_TOLERANCE = 0.1  # of any pixel, whatever the file states
SCALE_BEFORE_AUTO = "unit"  # what a file without metadata was fed by releases that did not find it out
_ASKED_OF_NEW_MODELS = (Reason.MODEL_BLIND, Reason.INPUT_SCALE_DOUBTFUL)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the trial measured; `golden_difference` is None without a golden strip. Times are milliseconds."""

    run_ms: float
    cpu_ms: float
    golden_difference: float | None
    sight: Sight


def prove(
    model: Model, before_timing: Callable[[], None] = lambda: None, *, is_accepted: bool = False
) -> tuple[Model, Proof]:
    """Run the golden strip if there is one, show an obvious defect, check all that comes out, and time it.

    Returns the model with its input scale found out. `before_timing` is called in between: a process that stands back
    would look many times slower on a busy box. Raises Reject (the model is to blame) and Retry (there is no memory).
    `is_accepted`: the line has been judged with it, so it keeps the contract or goes, but what an earlier release did
    not ask of it (sight, the limit of its tolerance, one clear input scale) is only logged.
    """
    facts = model.facts
    difference = None
    if facts.golden:
        golden = decode_golden(facts.golden, facts.height, facts.width)
        allowed = facts.golden_tolerance or 0.0 if is_accepted else allowed_difference(facts)
        difference = _compare(golden, _heatmap(model, golden.strip, facts.input_scale), allowed)
        if difference > allowed_difference(facts):
            log.warning(
                "the active model's golden strip differs by up to %.6f, a new one is allowed %g",
                difference,
                allowed_difference(facts),
            )
    try:
        scale, sight = _find_scale(model) if facts.input_scale == "auto" else (facts.input_scale, _look_once(model))
    except Reject as refusal:
        if not is_accepted or refusal.reason not in _ASKED_OF_NEW_MODELS:
            raise
        scale = SCALE_BEFORE_AUTO if facts.input_scale == "auto" else facts.input_scale
        log.warning("the active model stays, fed as %s; as a new one it would be refused: %s", scale, refusal.detail)
        sight = _look(model, scale)
    before_timing()
    model = replace(model, facts=replace(facts, input_scale=scale))
    run_ms, cpu_ms = _time(model, made_strip(model.facts))
    return model, Proof(run_ms, cpu_ms, difference, sight)


def made_strip(facts: ModelFacts) -> Pixels:
    """Make the strip with obvious defects, (1, 3, height, width), in the (known) input scale of a model."""
    return _feed(make_strips(facts.height, facts.width).defective, facts.input_scale)


def allowed_difference(facts: ModelFacts) -> float:
    """Return how far any pixel of the golden strip's heatmap may be off: what the file states, up to the limit."""
    return min(facts.golden_tolerance or 0.0, MAX_GOLDEN_TOLERANCE)


def _look_once(model: Model) -> Sight:
    """See that the model tells an obvious defect from none under the input scale that is stated or configured."""
    facts = model.facts
    sight = _look(model, facts.input_scale)
    if sight.sees:
        return sight
    if not facts.labelled:
        other = "gray8" if facts.input_scale == "unit" else "unit"
        found = try_to_look(model, other)
        if isinstance(found, Sight) and found.sees:
            raise _doubtful({facts.input_scale: sight, other: found})
    raise Reject(
        Reason.MODEL_BLIND, f"its heatmap has {sight.describe()}: no threshold tells them apart", model_fault=True
    )


def _find_scale(model: Model) -> tuple[str, Sight]:
    """Find the input scale of a file that does not state it: the only one under which it tells a defect from none."""
    found = {scale: try_to_look(model, scale) for scale in INPUT_SCALES}
    sights = {scale: sight for scale, sight in found.items() if isinstance(sight, Sight) and sight.sees}
    if len(sights) == 1:
        return next(iter(sights.items()))
    broken = [sight for sight in found.values() if isinstance(sight, Reject)]
    raise broken[0] if len(broken) == len(found) else _doubtful(found)


def _doubtful(found: Mapping[str, Sight | Reject]) -> Reject:
    told = "; ".join(
        f"fed as {scale} it has {sight.describe() if isinstance(sight, Sight) else sight.detail}"
        for scale, sight in found.items()
    )
    detail = f"its file does not say which input it takes; {told}; see models.unlabelled_input_scale"
    return Reject(Reason.INPUT_SCALE_DOUBTFUL, detail, model_fault=True)


def try_to_look(model: Model, scale: str) -> Sight | Reject:
    """Look; what comes out of a model that is fed the wrong scale may break every promise."""
    try:
        return _look(model, scale)
    except Reject as refusal:
        return refusal


def _look(model: Model, scale: str) -> Sight:
    return look(lambda strip: _heatmap(model, strip, scale), model.facts.height, model.facts.width)


def _feed(strip: Pixels, input_scale: str) -> Pixels:
    """Make (1, 3, height, width) in the model's input scale out of grey levels 0..255."""
    fed: Pixels = strip[np.newaxis] / np.float32(WHITE if input_scale == "unit" else 1.0)
    return fed


def _heatmap(model: Model, strip: Pixels, scale: str) -> Pixels:
    """(3, height, width) grey levels -> heatmap (height, width), checked as each strip's is, and more."""
    output = run(model, _feed(strip, scale))[0]
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


def _time(model: Model, strip: Pixels) -> tuple[float, float]:
    """Return the fastest of a few runs by the clock, and the cheapest by the processor's time, in milliseconds."""
    give_up = time.monotonic() + TIMED_SECONDS
    times: list[tuple[float, float]] = []
    while len(times) < TIMED_RUNS and (not times or time.monotonic() < give_up):
        before = time.process_time()
        run_ms = run(model, strip)[1]
        times.append((run_ms, (time.process_time() - before) * 1e3))
    return min(run_ms for run_ms, _ in times), min(cpu_ms for _, cpu_ms in times)
