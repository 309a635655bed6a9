"""Probation: is a new model still trusted after its first strips? A pure function of what was counted."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.errors import Reason
from agent.models.rules import is_too_slow
from agent.wire import Judged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import Probation
    from agent.wire import Failed

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
    strips_lost_on: frozenset[str] = frozenset()  # a strip that ends every worker is one fault, not many

    @classmethod
    def from_counts(cls, counts: Mapping[str, int]) -> Counted:
        """Go on after a restart."""
        judged, anomalous, faults = (counts.get(name, 0) for name in ("judged", "anomalous", "faults"))
        return cls(judged, anomalous, faults, "before the restart" if faults else "")

    def to_counts(self) -> dict[str, int]:
        """Give what a restart must not forget."""
        return {"judged": self.judged, "anomalous": self.anomalous, "faults": self.faults}

    @property
    def median_ms(self) -> float:
        """Median inference time; 0.0 while there are too few to tell."""
        return statistics.median(self.inference_ms) if len(self.inference_ms) >= STRIPS_BEFORE_RATES_COUNT else 0.0

    def with_answer(self, answer: Judged | Failed) -> Counted:
        """Count one answer; what is the fault of the strip or the box does not count."""
        if isinstance(answer, Judged):
            judgement = answer.judgement
            return replace(
                self,
                judged=self.judged + 1,
                anomalous=self.anomalous + judgement.anomalous,
                inference_ms=(*self.inference_ms[-TIMES_KEPT + 1 :], judgement.inference_ms),
            )
        if answer.model_fault:
            return replace(self, faults=self.faults + 1, last_fault=f"{answer.reason}: {answer.detail}")
        return self

    def with_lost_worker(self, strip_id: str) -> Counted:
        """Count a worker that was lost; `strip_id` is what it was at."""
        if strip_id in self.strips_lost_on:
            return self
        lost = self.strips_lost_on | {strip_id}
        return replace(self, faults=self.faults + 1, last_fault="a worker was lost", strips_lost_on=lost)


@dataclass(frozen=True, slots=True)
class Failing:
    """Why a model is withdrawn, with the numbers."""

    reason: Reason
    detail: str

    @property
    def file_is_good(self) -> bool:
        """Only the agent's own copy is at fault: the same file may come again."""
        return self.reason is Reason.STORE_DAMAGED


def judge_probation(counted: Counted, limits: Probation, previous_ms: float) -> Failing | bool:
    """Return Failing, or True when probation is passed, or False when it goes on.

    `previous_ms` is the previous model's time for one strip; 0.0 when there is nothing to compare with.
    """
    strips = counted.judged + counted.faults
    if counted.faults > limits.max_faults:
        detail = f"{counted.faults} faults in {strips} strips, tolerated are {limits.max_faults}; {counted.last_fault}"
        return Failing(Reason.PROBATION_FAULTS, detail)
    needed = min(STRIPS_BEFORE_RATES_COUNT, limits.strips)
    if counted.judged >= needed and counted.judged > 0:
        median_ms = counted.median_ms
        if limits.max_latency_ratio and is_too_slow(median_ms, previous_ms, limits.max_latency_ratio):
            detail = f"takes {median_ms:.1f} ms a strip, the model before it {previous_ms:.1f} ms"
            return Failing(Reason.PROBATION_LATENCY, f"{detail}; tolerated is {limits.max_latency_ratio:g} times")
        rate = counted.anomalous / counted.judged
        if limits.max_anomalous_rate is not None and rate > limits.max_anomalous_rate:
            detail = f"calls {counted.anomalous} of {counted.judged} strips anomalous"
            return Failing(Reason.PROBATION_ANOMALOUS_RATE, f"{detail}; believed is {limits.max_anomalous_rate:.0%}")
    return strips >= limits.strips
