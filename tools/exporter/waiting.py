"""Follow `state/model/{slot}` over MQTT until the box has decided about a pushed model."""

from __future__ import annotations

import json
import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path


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


def wait_for_decision(broker: Broker, base_topic: str, slot: str, digest: str, seconds: float) -> str:
    """Wait until the box that reports under `base_topic` runs or refuses the model; returns a sentence about it.

    Raises ExportError when it is refused, or after `seconds` without a decision.
    """
    topic = f"{base_topic}/state/model/{slot}"
    states: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client = _connect(broker, topic, states)
    deadline = time.monotonic() + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            try:
                payload = states.get(timeout=left)
            except queue.Empty:
                break
            decision = _decide(payload, digest)
            if decision:
                return f"{base_topic}: {decision}"
    finally:
        client.disconnect()
        client.loop_stop()
    raise ExportError(f"{base_topic} did not decide within {seconds:g} s: look at `strip-agent status` on the box.")


def _decide(payload: bytes, digest: str) -> str:
    """Read one state: a sentence when the model is active, ExportError when it is refused, "" when neither."""
    try:
        state: dict[str, Any] = json.loads(payload)
    except ValueError:
        return ""  # an empty retained message, or somebody else's
    if not isinstance(state, dict):
        return ""
    if state.get("active_sha256") == digest:
        return f"active: {state.get('active_model_id')} version {state.get('active_version')}"
    if state.get("last_refused_sha256") == digest:
        reason, detail = state.get("last_refused_reason"), state.get("last_refused_detail")
        raise ExportError(f"The box refused the model ({reason}): {detail}. The model before it goes on scoring.")
    return ""


def _connect(broker: Broker, topic: str, states: queue.SimpleQueue[bytes]) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    if broker.username:
        password = broker.password_file.read_text().strip() if broker.password_file else None
        client.username_pw_set(broker.username, password)
    if broker.ca_file:
        client.tls_set(ca_certs=str(broker.ca_file))
    client.on_connect = lambda connected, *_: connected.subscribe(topic, qos=1)
    client.on_message = lambda _client, _data, message: states.put(bytes(message.payload))
    try:
        client.connect(broker.host, broker.port)
    except OSError as error:
        raise ExportError(f"No broker at {broker.host}:{broker.port} ({error}): give --broker HOST:PORT.") from error
    client.loop_start()
    return client
