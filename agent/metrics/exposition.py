"""What is told to Prometheus: the numbers of the health message and of the ledger, under names that stay.

Counters come from the ledger, so they go on over restarts and kills; they begin anew with a new ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from agent import __version__, messages
from agent.ledger.tallies import BUCKETS_SECONDS, DURATIONS, Duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from agent.health import Parts
    from agent.messages import Health
    from agent.models.slot_state import SlotState

PREFIX = "strip_agent_"
STATUS = {"ok": 0, "degraded": 1, "failing": 2}
HELP: dict[Duration, str] = {
    "inference": "Seconds that the model ran for a strip.",
    "judged": "Seconds from when a strip was found whole to its result, first results only.",
    "acknowledged": "Seconds from when a strip was found whole to the broker's acknowledgement, first results only.",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of: the service's parts, its health, what `DriftWatch.facts` says, and the slots' states."""

    parts: Parts
    health: Health
    drift: Mapping[str, Any]
    slots: Mapping[str, SlotState]


class _Box(Collector):
    def __init__(self, told: Told) -> None:
        self._told = told
        self._parts = told.parts
        self._health = told.health

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(f"{PREFIX}build", "The agent.", {"version": __version__, "agent": self._health.agent})
        yield from self._strips()
        yield self._reviews()
        yield from self._drift()
        yield from self._shadows()
        yield from self._queues()
        yield from self._surroundings()

    def _strips(self) -> Iterator[Metric]:
        ledger = self._parts.ledger
        results = CounterMetricFamily(
            f"{PREFIX}results", "Results that were recorded, revisions too.", labels=["camera", "verdict", "reason"]
        )
        for one in ledger.tallies.results():
            results.add_metric([one.camera, one.verdict, one.reason], one.number)
        yield results
        seen = CounterMetricFamily(f"{PREFIX}strips_seen", "Strips that were found whole and begun.", labels=["camera"])
        states = GaugeMetricFamily(
            f"{PREFIX}strips", "Strips of the ledger by what became of them; they add up to those seen.",
            labels=["camera", "state"],
        )  # fmt: skip
        for balance in ledger.report.balances():
            seen.add_metric([balance.camera], balance.seen)
            for state in ("waiting", "judged", "ok", "anomalous", "invalid", "skipped", "dropped"):
                states.add_metric([balance.camera, state], getattr(balance, state))
        yield seen
        yield states
        for duration in DURATIONS:
            family = HistogramMetricFamily(f"{PREFIX}{duration}_seconds", HELP[duration], labels=["camera"])
            for took in ledger.tallies.histograms(duration):
                bounds = [*(repr(bound) for bound in BUCKETS_SECONDS), "+Inf"]
                family.add_metric(
                    [took.camera], list(zip(bounds, accumulate(took.counts), strict=True)), took.sum_seconds
                )
            yield family

    def _reviews(self) -> Metric:
        reviews = GaugeMetricFamily(
            f"{PREFIX}reviews", "What people say about strips, the last word of each; falls where one corrects it.",
            labels=["model_sha256", "verdict", "finding"],
        )  # fmt: skip
        for one in self._parts.ledger.reviews.counts():
            reviews.add_metric([one.model_sha256, one.verdict, one.finding], one.number)
        return reviews

    def _drift(self) -> Iterator[Metric]:
        strips = GaugeMetricFamily(
            f"{PREFIX}drift_reference_strips", "Strips that a camera's looks are compared with; 0: there are none yet.",
            labels=["camera"],
        )  # fmt: skip
        drifted = GaugeMetricFamily(
            f"{PREFIX}drifted", "1 while a camera's strips look otherwise than the reference, by what has changed.",
            labels=["camera", "kind"],
        )  # fmt: skip
        deviation = GaugeMetricFamily(
            f"{PREFIX}drift_deviation",
            "How far the last strips are from the reference, as a part of what makes an alarm: 1 and -1 reach it.",
            labels=["camera", "kind"],
        )
        for camera, facts in self._told.drift.items():
            strips.add_metric([camera], facts["reference_strips"])
            for kind, one in facts["furthest"].items():
                drifted.add_metric([camera, kind], int(kind in facts["changed"]))
                deviation.add_metric([camera, kind], one["deviation"])
        yield from (strips, drifted, deviation)

    def _shadows(self) -> Iterator[Metric]:
        both = ["slot", "sha256", "active_sha256"]
        compared = CounterMetricFamily(
            f"{PREFIX}shadow_compared", "Strips that a slot's shadow and its active model have judged.", labels=both
        )
        flips = CounterMetricFamily(
            f"{PREFIX}shadow_flips", "Those that the shadow sees otherwise, by its verdict.", labels=[*both, "to"]
        )
        missed = CounterMetricFamily(
            f"{PREFIX}shadow_missed", "Strips that were gone before the shadow came to them.", labels=both
        )
        scores = GaugeMetricFamily(
            f"{PREFIX}shadow", "1 for the model that is a slot's shadow, 0 where it was switched off.",
            labels=["slot", "model_id", "version", "sha256"],
        )  # fmt: skip
        for slot, state in self._told.slots.items():
            if (shadow := state.shadow) is None:
                continue
            scores.add_metric(
                [slot, shadow.facts.model_id, str(shadow.facts.version), shadow.sha256], int(not shadow.reason)
            )
            found = self._parts.ledger.shadow.comparison(slot, shadow.sha256, state.active)
            names = [slot, shadow.sha256, state.active]
            compared.add_metric(names, found.compared)
            missed.add_metric(names, found.missed)
            for to, number in (("anomalous", found.to_anomalous), ("ok", found.to_ok), ("invalid", found.invalid)):
                flips.add_metric([*names, to], number)
        yield from (compared, flips, missed, scores)

    def _queues(self) -> Iterator[Metric]:
        health = self._health
        outbox = GaugeMetricFamily(f"{PREFIX}outbox_messages", "Messages by where they are.", labels=["state"])
        for state, number in (
            ("pending", health.outbox_depth), ("parked", health.outbox_parked), ("dropped", health.outbox_dropped)
        ):  # fmt: skip
            outbox.add_metric([state], number)
        yield outbox
        for name, what, value in (
            ("strips_oldest_seconds", "Age of the oldest strip that waits; 0 when none does.", health.strips_oldest_s),
            (
                "outbox_oldest_seconds",
                "Age of the oldest message that waits; 0 when none does.",
                health.outbox_oldest_s,
            ),
            ("strips_pending", "Strips that wait, wherever they do.", health.strips_pending),
        ):
            yield GaugeMetricFamily(f"{PREFIX}{name}", what, value)

    def _surroundings(self) -> Iterator[Metric]:
        health, parts = self._health, self._parts
        for name, what, value in (
            ("status", "0 ok, 1 degraded, 2 failing.", STATUS[health.status]),
            ("broker_connected", "1 while the broker is connected.", int(health.broker_connected)),
            ("nobody_listening", "1 while nobody subscribes to the results.", int(health.nobody_listening)),
            ("worker_losses", "Workers lost since the service's start.", health.worker_restarts),
            ("start_time_seconds", "When the service started, Unix seconds.", parts.started_ms / 1000),
        ):
            yield GaugeMetricFamily(f"{PREFIX}{name}", what, value)
        free = GaugeMetricFamily(f"{PREFIX}free_bytes", "Free space of a folder's file system.", labels=["folder"])
        free.add_metric(["heatmaps"], health.heatmap_free_bytes)
        free.add_metric(["state"], health.state_free_bytes)
        yield free
        cameras = GaugeMetricFamily(
            f"{PREFIX}camera", "1 for the state that a camera's folder is in.", labels=["camera", "state"]
        )
        for camera, watch in parts.watchers.items():
            cameras.add_metric([camera, watch.state], 1)
        yield cameras
        models = GaugeMetricFamily(
            f"{PREFIX}model", "1 for the model that scores a slot's strips.",
            labels=["slot", "model_id", "version", "sha256"],
        )  # fmt: skip
        for name, slot in parts.slots.items():
            worker = slot.current
            if worker is not None and worker.facts is not None:
                facts = worker.facts
                models.add_metric([name, facts.model_id, str(facts.version), worker.setup.model_sha256], 1)
        yield models
        alarms = GaugeMetricFamily(
            f"{PREFIX}alarm", "1 for each alarm that stands.", labels=["code", "source", "priority"]
        )
        for text in filter(None, health.alarms.split(",")):
            alarm = messages.explain(text, parts.watchers, parts.slots)
            alarms.add_metric([alarm.code, alarm.source, alarm.priority], 1)
        yield alarms


def expose(take: Callable[[], Told], accept: str) -> tuple[bytes, str]:
    """Return the figures as bytes and their content type, in the format that `accept` (the HTTP header) asks for.

    Raises Retry where the ledger does not answer.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Box(take()))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
