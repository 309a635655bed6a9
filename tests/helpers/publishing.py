"""What the publisher's tests share: a configuration, a publisher stepped by hand, and a payload that names its row."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Config
from agent.publisher import Publisher
from tests.helpers.broker import KIND, MOSQUITTO, describe
from tests.helpers.outbox import ListOutbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.broker import Subscriber
    from tests.helpers.tcp_proxy import TcpProxy

STALL_SECONDS = 1.0
PATIENT_SECONDS = 1200.0  # also by a clock that runs twenty times as fast a busy machine is not taken for a dead broker
EVENT = "strip-agent/insp1/event/strip/top"
STATE = "strip-agent/insp1/state/"
# With it mosquitto 2.0 ends the connection when it has answered a message that it denies.
HANGS_UP = "\nmax_queued_messages 0"

_DEADLINE_SECONDS = 150.0

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason=describe())


def make_config(port: int, **mqtt: Any) -> Config:
    """One camera, and the broker at this port."""
    camera = {"name": "top", "folder": "/srv/cameras/top"}
    if KIND == "amqtt":  # it does not answer CONNECT of MQTT 5 with a will, and waiting for that takes time
        mqtt = {"protocol": "3.1.1", **mqtt}
    outbox = {"hold_until_subscribed": mqtt.pop("hold_until_subscribed", False)}
    values = {"cameras": [camera], "mqtt": {"host": "127.0.0.1", "port": port, **mqtt}, "outbox": outbox}
    return Config.model_validate(values)


def make_publisher(
    port: int, outbox: ListOutbox | None = None, *, stall_seconds: float = PATIENT_SECONDS, **mqtt: Any
) -> Publisher:
    """Without jitter; a connection that brings nothing for `stall_seconds` is dropped."""
    return Publisher(make_config(port, **mqtt), outbox or ListOutbox(), jitter=lambda: 0.0, stall_seconds=stall_seconds)


def fill(outbox: ListOutbox, count: int, topic: str = "event/strip/top", size_bytes: int = 0) -> list[bytes]:
    """Queue messages; returns their payloads, each unique."""
    payloads = []
    for _ in range(count):
        number = len(outbox.pending) + len(outbox.acknowledged) + len(outbox.parked) + 1
        values = {"schema": "strip-result/1", "seq": number, "file": "x" * size_bytes}
        payloads.append(json.dumps(values, separators=(",", ":")).encode())
        outbox.add(topic, payloads[-1])
    return payloads


def step_until(publisher: Publisher, condition: Callable[[], object], what: str) -> None:
    """Step by hand until `condition` holds; AssertionError after some minutes."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {_DEADLINE_SECONDS} s: {what}; {publisher.status()}")
        publisher.step(0.02)


def connect(publisher: Publisher) -> None:
    """Step until connected."""
    step_until(publisher, lambda: publisher.status().connected, "connected")


def drain(publisher: Publisher, outbox: ListOutbox) -> None:
    """Step until nothing is pending."""
    step_until(publisher, lambda: not outbox.pending, "the outbox is empty")


def cut(publisher: Publisher, proxy: TcpProxy, clock: FastClock) -> None:
    """Cut the connection and wait for the next one; only the pause in between is short."""
    proxy.cut()
    step_until(publisher, lambda: not publisher.status().connected, "it noticed")
    clock.forward_seconds += 20.0  # a clock that ran fast could make the new connection an old one
    connect(publisher)


def in_first_seen_order(received: list[bytes]) -> list[bytes]:
    """Drop repeats, as a subscriber does by msg_id."""
    return list(dict.fromkeys(received))


def states(subscriber: Subscriber, topic: str) -> list[dict[str, Any]]:
    """List what was published on a state topic, in order."""
    return [json.loads(payload) for payload in subscriber.payloads(STATE + topic)]


def acl(folder: Path, *lines: str) -> str:
    """Write an access list; returns the lines of mosquitto's configuration that use it."""
    file = folder / "acl"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return f"allow_anonymous true\nacl_file {file}"


class FastClock:
    """Monotonic time that runs twenty times as fast, so that back-offs are short; `forward_seconds` are added."""

    def __init__(self, speed: float = 20.0) -> None:
        self._speed = speed
        self.forward_seconds = 0.0
        self._start = time.monotonic()

    def run(self, speed: float) -> None:
        """Run so many times as fast from now on."""
        self.forward_seconds, self._start = self(), time.monotonic()
        self._speed = speed

    def __call__(self) -> float:
        """Return seconds."""
        return self._speed * (time.monotonic() - self._start) + self.forward_seconds
