"""The ways out of the box (`mqtt.payload`): JSON messages, Sparkplug, or both, each over a connection of its own.

They share the outbox, in which a result is acknowledged when every way has it, and are given the same states.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from agent.contract.threshold import operators_threshold
from agent.control.over_mqtt import topics
from agent.publisher import Publisher, PublisherStatus
from agent.sparkplug.commands import Commands
from agent.sparkplug.known import CameraFacts
from agent.sparkplug.node import EdgeNode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent import mqtt
    from agent.config import Config
    from agent.control.desk import CommandDesk
    from agent.ledger import Ledger
    from agent.ledger.outbox import Way as Name
    from agent.publisher.answers import Answer

NAMES: dict[str, tuple[Name, ...]] = {"json": ("json",), "sparkplug": ("sparkplug",), "both": ("json", "sparkplug")}
"""The ways for each `mqtt.payload`."""

_WORST_FIRST = ("down", "refused", "unverified", "verified")


class Way(Protocol):
    """One way out. `set_state`, `wake` and `status` may be called from any thread."""

    def set_state(self, topic: str, payload: bytes) -> None:
        """Take the newest value of a state; an empty one: it is published no more."""

    def wake(self) -> None:
        """Look into the outbox."""

    def take_cameras(self, config: Config) -> None:
        """Go by other cameras. For any thread."""

    def status(self) -> PublisherStatus:
        """Return how it was at the end of the last step."""

    def step(self, timeout_seconds: float) -> None:
        """Wait at most so long, and do what is to be done."""

    def close(self, reason: str, flush_seconds: float = 5.0) -> None:
        """Send what is there, say goodbye and disconnect."""


class Ways:
    """All that are configured, by name; as one of them to everybody who has states or wants to know how it goes."""

    def __init__(self, ways: Mapping[str, Way]) -> None:
        self.ways = dict(ways)

    def set_state(self, topic: str, payload: bytes) -> None:
        """Give all of them the newest value of a state."""
        for way in self.ways.values():
            way.set_state(topic, payload)

    def wake(self) -> None:
        """Have all of them look into the outbox."""
        for way in self.ways.values():
            way.wake()

    def answer(self, answer: Answer) -> None:
        """Send the answer to a command that came in as JSON."""
        way = self.ways.get("json")
        if isinstance(way, Publisher):
            way.answer(answer)

    def take_commands(self, desk: CommandDesk) -> None:
        """Bring what Sparkplug hosts write to the desk."""
        way = self.ways.get("sparkplug")
        if isinstance(way, EdgeNode):
            way.commands = Commands(desk)

    def take_cameras(self, config: Config) -> None:
        """Go by other cameras: what is retained of those that are gone is cleared, their devices die."""
        for way in self.ways.values():
            way.take_cameras(config)

    def status(self) -> PublisherStatus:
        """Return how they are together: connected when all are, delivery as the worst."""
        return together({name: way.status() for name, way in self.ways.items()})

    def close(self, reason: str, flush_seconds: float) -> None:
        """Close all of them at the same time. Call it when nothing steps any more."""
        threads = [threading.Thread(target=way.close, args=(reason, flush_seconds)) for way in self.ways.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def together(found: Mapping[str, PublisherStatus]) -> PublisherStatus:
    """Put the ways' states together into one."""
    first = next(iter(found.values()))
    errors = [f"{name}: {status.last_error}" for name, status in found.items() if status.last_error]
    if len(found) == 1:
        return first
    return replace(
        first,
        connected=all(status.connected for status in found.values()),
        since_ms=max(status.since_ms for status in found.values()),
        unacked=sum(status.unacked for status in found.values()),
        acknowledged=min(status.acknowledged for status in found.values()),
        parked=sum(status.parked for status in found.values()),
        delivery=min((status.delivery for status in found.values()), key=_WORST_FIRST.index),
        last_error="; ".join(errors),
        alarms=tuple(sorted({alarm for status in found.values() for alarm in status.alarms})),
    )


def make_ways(
    config: Config,
    ledger: Ledger,
    state_folder: Path,
    on_message: Callable[[mqtt.Received | mqtt.PassedOver], None] | None = None,
) -> Ways:
    """Make those that are configured, and acknowledge what only lacked one that is configured no more.

    `on_message` gets the commands that come in as JSON.
    """
    names = NAMES[config.mqtt.payload]
    ways: dict[str, Way] = {}
    for name in names:
        outbox = ledger.outbox.seen_by(name, names)
        if name == "json":
            ways[name] = Publisher(
                config,
                outbox,
                retained_file=state_folder / "broker.json",
                subscribe_to=list(topics(config).values()),
                on_message=on_message,
            )
        else:
            ways[name] = EdgeNode(
                config, outbox, facts=partial(camera_facts, config, ledger), file=state_folder / "sparkplug.json"
            )
        outbox.settle()
    return Ways(ways)


def camera_facts(config: Config, ledger: Ledger) -> dict[str, CameraFacts]:
    """Ask the ledger about each camera. Raises Retry where it cannot tell."""
    balances = {balance.camera: balance for balance in ledger.report.balances()}
    paused, thresholds, method = ledger.operators.paused, ledger.operators.thresholds, config.scoring.method
    found = {}
    for camera in {*balances, *paused, *thresholds}:
        told, balance = thresholds.get(camera), balances.get(camera)
        found[camera] = CameraFacts(
            ok=0 if balance is None else balance.ok,
            anomalous=0 if balance is None else balance.anomalous,
            invalid=0 if balance is None else balance.invalid,
            operators_threshold=None if told is None else operators_threshold(told.value, told.method, method),
            paused=camera in paused,
        )
    return found
