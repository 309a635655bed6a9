"""A real MQTT subscriber, as SCADA would be: everything that the demo shows has come this way."""

from __future__ import annotations

import json
import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from agent.errors import ExitCode, Fatal

if TYPE_CHECKING:
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from agent.demo.broker import Broker
    from agent.demo.truth import StripKey


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `topic` is relative to the base topic, `arrived_ms` Unix milliseconds."""

    topic: str
    payload: dict[str, Any]
    arrived_ms: int


@dataclass(slots=True)
class Tally:
    """What a subscriber can tell about the results it got. Delivery is at least once, so repeats are no fault."""

    results: dict[StripKey, dict[str, Any]] = field(default_factory=dict)  # the newest result of each strip
    repeats: int = 0
    _seen: set[str] = field(default_factory=set)
    _numbers: dict[str, set[int]] = field(default_factory=dict)

    def add(self, result: dict[str, Any]) -> bool:
        """Count a result; False when it is a repeat."""
        if result["msg_id"] in self._seen:
            self.repeats += 1
            return False
        self._seen.add(result["msg_id"])
        self._numbers.setdefault(result["stream"], set()).add(result["seq"])
        self.results[result["camera"], result["file"]] = result
        return True

    @property
    def gaps(self) -> int:
        """Numbers that are missing in `seq`: each would be a lost message."""
        return sum(max(numbers) - len(numbers) for numbers in self._numbers.values())

    def count(self, verdict: str) -> int:
        """Count the strips with this verdict."""
        return sum(result["verdict"] == verdict for result in self.results.values())


CONNECT_SECONDS = 10.0


class Subscriber:
    """Listens to everything below `base_topic`; the messages wait in `messages`. `Fatal` when the broker refuses."""

    def __init__(self, broker: Broker, base_topic: str) -> None:
        self.messages = queue.Queue[Message]()  # a SimpleQueue may wait for ever when Ctrl-C comes at the wrong moment
        self._base = base_topic
        self._retained = set[str]()
        self._answers = queue.Queue[str]()  # to CONNECT: "" or why not
        # A name of its own choice, a clean session, MQTT 3.1.1: the least that any subscriber can do.
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        try:
            self._client.connect(broker.host, broker.port)
        except OSError as error:
            raise Fatal(ExitCode.FAILED, f"no broker answers at {broker.host}:{broker.port}: {error}") from error
        self._client.loop_start()
        try:
            refusal = self._answers.get(timeout=CONNECT_SECONDS)
        except queue.Empty:
            refusal = f"no answer in {CONNECT_SECONDS:g} s"
        if refusal:
            self.close(forget=False)
            raise Fatal(ExitCode.FAILED, f"the broker at {broker.host}:{broker.port} does not let us in: {refusal}")

    def close(self, *, forget: bool) -> None:
        """Disconnect. `forget` first clears what the service left retained on a broker that is not ours."""
        if forget:
            for topic in self._retained:
                self._client.publish(topic, b"", qos=1, retain=True).wait_for_publish(2)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if not reason.is_failure:
            client.subscribe(f"{self._base}/#", qos=1)
        self._answers.put(str(reason) if reason.is_failure else "")

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if not message.topic.startswith(f"{self._base}/") or not message.payload:
            return
        topic = message.topic.removeprefix(f"{self._base}/")
        if topic.startswith("state/"):
            self._retained.add(message.topic)
        self.messages.put(Message(topic, json.loads(message.payload), time.time_ns() // 1_000_000))
