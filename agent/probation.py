"""Probation: is a new model still trusted after its first strips? A pure function of what was counted."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.errors import Reason
from agent.wire import Failed, Judged

if TYPE_CHECKING:
    from agent.config import Probation

TIMES_KEPT = 200
STRIPS_BEFORE_RATES_COUNT = 10  # a rate or a median of fewer says little


@dataclass(frozen=True, slots=True)
class Counted:
    """What a model did since it became active."""

    judged: int = 0  # strips with a verdict
    anomalous: int = 0
    faults: int = 0  # crashes, time-outs, outputs that are not finite or out of range
    last_fault: str = ""
    inference_ms: tuple[float, ...] = ()

    def with_answer(self, answer: Judged | Failed | None) -> Counted:
        """Count one answer (None: a lost worker); what is the fault of the strip or the box does not count."""
        if isinstance(answer, Judged):
            judgement = answer.judgement
            return replace(
                self,
                judged=self.judged + 1,
                anomalous=self.anomalous + judgement.anomalous,
                inference_ms=(*self.inference_ms[-TIMES_KEPT + 1 :], judgement.inference_ms),
            )
        if answer is None or answer.model_fault:
            last = "a worker was lost" if answer is None else f"{answer.reason}: {answer.detail}"
            return replace(self, faults=self.faults + 1, last_fault=last)
        return self


@dataclass(frozen=True, slots=True)
class Failing:
    """Why a model is withdrawn, with the numbers."""

    reason: Reason
    detail: str


def judge_probation(counted: Counted, limits: Probation, previous_run_ms: float) -> Failing | bool:
    """Return Failing, or True when probation is passed, or False when it goes on.

    `previous_run_ms` is the previous model's time for one strip; 0.0 when there is nothing to compare with.
    """
    strips = counted.judged + counted.faults
    if counted.faults > limits.max_faults:
        detail = f"{counted.faults} faults in {strips} strips, tolerated are {limits.max_faults}; {counted.last_fault}"
        return Failing(Reason.PROBATION_FAULTS, detail)
    needed = min(STRIPS_BEFORE_RATES_COUNT, limits.strips)
    if counted.judged >= needed and counted.judged > 0:
        median_ms = statistics.median(counted.inference_ms)
        if limits.max_latency_ratio and previous_run_ms and median_ms > limits.max_latency_ratio * previous_run_ms:
            detail = f"takes {median_ms:.1f} ms a strip, the model before it {previous_run_ms:.1f} ms"
            return Failing(Reason.PROBATION_LATENCY, f"{detail}; tolerated is {limits.max_latency_ratio:g} times")
        rate = counted.anomalous / counted.judged
        if limits.max_anomalous_rate is not None and rate > limits.max_anomalous_rate:
            detail = f"calls {counted.anomalous} of {counted.judged} strips anomalous"
            return Failing(Reason.PROBATION_ANOMALOUS_RATE, f"{detail}; believed is {limits.max_anomalous_rate:.0%}")
    return strips >= limits.strips
