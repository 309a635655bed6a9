"""Follow `state/model/{slot}` and `event/model/{slot}` over MQTT until the boxes have decided about a pushed model."""

from __future__ import annotations

import json
import queue
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CONNECT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the box reports; `ca_file` switches TLS on."""

    host: str = "localhost"
    port: int = 1883
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None


def make_broker(address: str, mqtt_user: str | None, mqtt_password_file: Path | None, mqtt_ca: Path | None) -> Broker:
    """Read HOST:PORT; ExportError when it is something else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ExportError(f"--broker {address} is not HOST:PORT: write it as broker.example:1883.")
    return Broker(host, int(port), mqtt_user, mqtt_password_file, mqtt_ca)


@contextmanager
def following(broker: Broker, base_topics: Sequence[str], slot: str) -> Iterator[Decisions]:
    """Follow what the boxes below `base_topics` tell about a slot's models; begin before the push.

    The retained state that is there at first may tell of an earlier push of the same bytes: what it says of a refusal
    does not count. Raises ExportError when the broker does not answer or refuses.
    """
    decisions = Decisions({topic: queue.SimpleQueue() for topic in base_topics})
    topics = {f"{base}/{kind}/model/{slot}": base for base in base_topics for kind in ("event", "state")}
    ready: queue.SimpleQueue[str] = queue.SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    if broker.username:
        password = broker.password_file.read_text().strip() if broker.password_file else None
        client.username_pw_set(broker.username, password)
    if broker.ca_file:
        client.tls_set(ca_certs=str(broker.ca_file))

    def on_connect(client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            ready.put(f"it refuses: {reason}")
        else:
            client.subscribe([(topic, 1) for topic in topics])

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: ready.put("")
    client.on_message = lambda _client, _data, message: decisions.take(topics.get(message.topic), message)
    where = f"{broker.host}:{broker.port}"
    try:
        client.connect(broker.host, broker.port)
    except OSError as error:
        raise ExportError(f"No broker at {where} ({error}): give --broker HOST:PORT.") from error
    client.loop_start()
    try:
        try:
            problem = ready.get(timeout=CONNECT_SECONDS)
        except queue.Empty:
            problem = f"no answer in {CONNECT_SECONDS:g} s"
        if problem:
            raise ExportError(f"The broker at {where} is of no use, {problem}: see --broker, --mqtt-user, --mqtt-ca.")
        yield decisions
    finally:
        client.disconnect()
        client.loop_stop()


@dataclass(frozen=True, slots=True)
class Decisions:
    """What each box has told, by its base topic."""

    events: dict[str, queue.SimpleQueue[dict[str, Any]]]
    refused_before: dict[str, object] = field(default_factory=dict)  # when, by what the retained states said

    def take(self, base_topic: str | None, message: mqtt.MQTTMessage) -> None:
        """Take a message; what is neither event nor state of a box is left out: brokers may send others."""
        if base_topic is None:
            return
        try:
            said = json.loads(message.payload)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        if "/event/" in message.topic:
            self.events[base_topic].put(said)
            return
        if message.retain:  # the first one: after a reconnect it may tell of this push
            self.refused_before.setdefault(base_topic, said.get("last_refused_ts"))
        for event in _as_events(said):
            if event["event"] == "activated" or said.get("last_refused_ts") != self.refused_before.get(base_topic):
                self.events[base_topic].put(event)

    def wait_for(self, base_topic: str, file: str, digest: str, seconds: float) -> str:
        """Wait until a box runs or refuses the pushed file; returns a sentence about it.

        Raises ExportError when it does not run it, or after `seconds` without a decision.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self.events[base_topic].get(timeout=left)
            except queue.Empty:
                break
            if digest == event.get("sha256") or (file == event.get("file") and not event.get("sha256")):
                return f"{base_topic}: {_read(event, digest)}"
        raise ExportError(f"{base_topic} did not decide within {seconds:g} s: look at `strip-agent status` on the box.")


def _as_events(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a state as the two events that led to it."""
    active = {key: state.get(f"active_{key}") for key in ("sha256", "model_id", "version")}
    refused = {key: state.get(f"last_refused_{key}") for key in ("sha256", "file", "reason", "detail")}
    now = {"active_sha256": state.get("active_sha256")}
    return {"event": "activated", **active, **now}, {"event": "rejected", **refused, **now}


def _read(event: dict[str, Any], digest: str) -> str:
    """Read the event about the pushed file: a sentence when the model scores, else ExportError."""
    what, reason, detail = (str(event.get(key, "")) for key in ("event", "reason", "detail"))
    if what in ("activated", "unchanged", "probation_passed") and event.get("active_sha256") == digest:
        return f"active: {event.get('model_id')} version {event.get('version')}{', ' if detail else ''}{detail}"
    if what == "shadowed":
        return f"shadow: {event.get('model_id')} version {event.get('version')}{', ' if detail else ''}{detail}"
    if what == "superseded":
        raise ExportError(f"The box took another model that was pushed with it: {detail}.")
    still = "The model before it goes on scoring" if event.get("active_sha256") else "It has no model to score with"
    raise ExportError(f"The box refused the model ({reason}): {detail}. {still}.")
