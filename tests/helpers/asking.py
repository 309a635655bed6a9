"""Somebody who gives commands over MQTT: mosquitto_rr, or a client that keeps every answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from typing import Self

needs_mosquitto_rr = pytest.mark.skipif(
    shutil.which("mosquitto_rr") is None, reason="mosquitto_rr (package mosquitto-clients) is not installed"
)
_DEADLINE_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it came."""

    topic: str
    payload: bytes
    correlation: bytes
    retain: bool

    @property
    def values(self) -> dict[str, Any]:
        """Its keys."""
        found: dict[str, Any] = json.loads(self.payload)
        return found


def request(request_id: str, by: str = "desk7", **values: Any) -> bytes:
    """Write a request."""
    return json.dumps({"schema": "command/1", "id": request_id, "by": by, **values}).encode()


class Asker:
    """Publishes commands and keeps all answers below `rsp/`, across restarts of the broker."""

    def __init__(self, port: int, base: str, protocol: Literal["5", "3.1.1"]) -> None:
        """Connect, subscribe and wait until that is granted."""
        self._base = base
        self._v5 = protocol == "5"
        self.subscribed = threading.Event()
        self.answers: list[Answered] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"asker-{id(self)}",
            protocol=MQTTProtocolVersion.MQTTv5 if self._v5 else MQTTProtocolVersion.MQTTv311,
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(0)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{base}/rsp/#", qos=1)
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port, keepalive=60)
        self._client.loop_start()
        assert self.subscribed.wait(_DEADLINE_SECONDS), "not subscribed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(
        self, name: str, payload: bytes, *, to: str = "", correlation: bytes = b"", retain: bool = False
    ) -> paho.MQTTMessageInfo:
        """Publish a command; the answer is to go to the topic `to` (MQTT 5)."""
        properties = None
        if self._v5 and (to or correlation):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's annotation is missing
            if to:
                properties.ResponseTopic = to
            if correlation:
                properties.CorrelationData = correlation
        return self._client.publish(f"{self._base}/cmd/{name}", payload, 1, retain, properties)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        correlation = bytes(getattr(message.properties, "CorrelationData", b""))
        self.answers.append(Answered(message.topic, bytes(message.payload), correlation, bool(message.retain)))


def mosquitto_rr(port: int, base: str, name: str, payload: bytes, protocol: Literal["5", "3.1.1"]) -> dict[str, Any]:
    """Ask with mosquitto_rr, and return its answer."""
    to = f"{base}/rsp/desk7" if protocol == "5" else f"{base}/rsp/{name}"
    version = {"5": "mqttv5", "3.1.1": "mqttv311"}[protocol]
    done = subprocess.run(
        ["mosquitto_rr", "-h", "127.0.0.1", "-p", str(port), "-V", version, "-q", "1", "-W", "120",
         "-t", f"{base}/cmd/{name}", "-e", to, "-m", payload.decode()],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
