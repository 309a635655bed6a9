"""What is told to Prometheus: the numbers of the health message and of the ledger, under names that stay.

Counters come from the ledger, so they go on over restarts and kills; they begin anew with a new ledger.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

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
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from agent.health import Parts
    from agent.messages import Health

PREFIX = "strip_agent_"
STATUS = {"ok": 0, "degraded": 1, "failing": 2}
HELP: dict[Duration, str] = {
    "inference": "Seconds that the model ran for a strip.",
    "judged": "Seconds from when a strip was found whole to its result, first results only.",
    "acknowledged": "Seconds from when a strip was found whole to the broker's acknowledgement, first results only.",
}


class _Box(Collector):
    def __init__(self, parts: Parts, health: Health) -> None:
        self._parts = parts
        self._health = health

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(f"{PREFIX}build", "The agent.", {"version": __version__, "agent": self._health.agent})
        yield from self._strips()
        yield self._reviews()
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


def expose(take: Callable[[], tuple[Parts, Health]], accept: str) -> tuple[bytes, str]:
    """Return the figures as bytes and their content type, in the format that `accept` (the HTTP header) asks for.

    Raises Retry where the ledger does not answer.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Box(*take()))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
