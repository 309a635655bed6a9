"""A Sparkplug host for tests: it keeps what edge nodes say, decoded, and holds the rules of 3.0 against it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.sparkplug.payload import Datatype, Metric, Payload, Scalar, decode, encode
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from typing import Self

GROUP, NODE = "plant1", "insp1"


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of an edge node; `device` is "" in those of the node itself."""

    kind: str
    device: str
    qos: int
    retain: bool
    payload: Payload

    @property
    def values(self) -> dict[str, Scalar | None]:
        """The metrics by name."""
        return {metric.name or f"#{metric.alias}": metric.value for metric in self.payload.metrics}

    def metric(self, name: str) -> Metric:
        """Return the metric of this name."""
        return next(metric for metric in self.payload.metrics if metric.name == name)


class SparkplugHost:
    """Hears everything of one group, over MQTT 5 as published, so that a retained birth can be seen."""

    def __init__(self, port: int, group: str = GROUP, name: str = "host1") -> None:
        """Connect and wait until it is subscribed."""
        self._group, self._name = group, name
        self._lock = threading.Lock()
        self._heard: list[Heard] = []
        subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"host-{id(self)}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_connect = lambda client, *_: client.subscribe(
            f"spBv1.0/{group}/#", options=SubscribeOptions(qos=1, retainAsPublished=True)
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(60), "not subscribed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def heard(self, *kinds: str, device: str | None = None) -> list[Heard]:
        """List what has come so far, of these kinds (all, without any) and this device, in order."""
        with self._lock:
            found = list(self._heard)
        return [h for h in found if (not kinds or h.kind in kinds) and device in (None, h.device)]

    def wait_for(self, kind: str, number: int = 1, *, device: str | None = None) -> list[Heard]:
        """Wait until so many messages of a kind have come, and return them."""
        wait_for(lambda: len(self.heard(kind, device=device)) >= number, f"{number} {kind} of {device or 'any'}")
        return self.heard(kind, device=device)

    def say(self, *, online: bool, timestamp_ms: int) -> None:
        """Publish the STATE of this host, and wait until the broker has it."""
        state = json.dumps({"online": online, "timestamp": timestamp_ms})
        self._client.publish(f"spBv1.0/STATE/{self._name}", state, 1, retain=True).wait_for_publish(60)

    def command(self, name: str, value: Scalar, datatype: Datatype, device: str = "", *, retain: bool = False) -> None:
        """Write one metric of the node, or of a device."""
        payload = encode(Payload(1, (Metric(name, datatype, value, 1),)))
        self.publish("DCMD" if device else "NCMD", payload, device, retain=retain)

    def publish(self, kind: str, payload: bytes, device: str = "", *, retain: bool = False) -> None:
        """Publish any bytes to the node, or to one of its devices."""
        topic = f"spBv1.0/{self._group}/{kind}/{NODE}" + (f"/{device}" if device else "")
        self._client.publish(topic, payload, 0, retain=retain).wait_for_publish(60)

    def ask_for_rebirth(self) -> None:
        """Ask the node for its births."""
        self.command("Node Control/Rebirth", value=True, datatype=Datatype.BOOLEAN)

    def strips(self, device: str = "top") -> list[tuple[int, bool]]:
        """List (Strip/Seq, historical) of every DDATA that tells of a strip, in order."""
        found = [h.metric("Strip/Seq") for h in self.heard("DDATA", device=device) if "Strip/Seq" in h.values]
        return [(int(str(metric.value)), metric.historical) for metric in found]

    def wait_for_strips(self, number: int, device: str = "top") -> list[tuple[int, bool]]:
        """Wait until so many have come: what the broker has, this may not have heard yet."""
        wait_for(lambda: len(self.strips(device)) >= number, f"{number} strips arrive")
        return self.strips(device)

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        _, _, kind, node, *device = message.topic.split("/")
        if kind[1:] in ("BIRTH", "DATA", "DEATH") and node == NODE:
            heard = Heard(kind, "".join(device), message.qos, message.retain, decode(bytes(message.payload)))
            with self._lock:
                self._heard.append(heard)


def broken_rules(heard: list[Heard]) -> list[str]:
    """Name what breaks the rules of a session, in words that begin with the rule's tck-id."""
    rules = _Rules()
    for number, message in enumerate(heard):
        rules.hear(number, message)
    return rules.broken


class _Rules:
    """What a host knows of one edge node."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._at = ""
        self._seq: int | None = None
        self._bd_seq: int | None = None
        self._known: dict[str, dict[str, Datatype | None]] = {}  # device -> what its birth lists, by name and #alias

    def hear(self, number: int, h: Heard) -> None:
        """Take the next message."""
        self._at = f"message {number}, {h.kind} {h.device}"
        kind = h.kind.lower()
        self._expect(h.qos == (1 if h.kind == "NDEATH" else 0), f"tck-id-topics-{kind}-mqtt: QoS {h.qos}")
        self._expect(not h.retain, f"tck-id-topics-{kind}-mqtt: retained")
        self._expect(h.payload.timestamp_ms is not None, "tck-id-payloads-timestamp-in-UTC")
        if h.kind == "NDEATH":
            self._death(h)
            return
        self._expect(h.payload.seq is not None, "tck-id-payloads-sequence-num-always-included")
        if h.kind == "NBIRTH":
            self._node_birth(h)
        else:
            self._expect("" in self._known, "tck-id-payloads-dbirth-order: before the node's birth")
            expected = None if self._seq is None else (self._seq + 1) % 256
            self._expect(h.payload.seq == expected, f"tck-id-payloads-sequence-num-incrementing: {h.payload.seq}")
        self._seq = h.payload.seq
        if h.kind.endswith("BIRTH"):
            self._birth(h)
        elif h.kind == "DDEATH":
            self._expect(self._known.pop(h.device, None) is not None, "tck-id-payloads-dbirth-order: death unborn")
        else:
            self._data(h)

    def _expect(self, holds: object, rule: str) -> None:
        if not holds:
            self.broken.append(f"{rule} ({self._at})")

    def _death(self, h: Heard) -> None:
        self._expect(h.payload.seq is None, "tck-id-payloads-ndeath-seq")
        self._expect(list(h.values) == ["bdSeq"], "tck-id-topics-ndeath-payload")
        if "" in self._known:
            self._expect(h.values.get("bdSeq") == self._bd_seq, "tck-id-payloads-nbirth-bdseq-repeat")
        self._known = {}

    def _node_birth(self, h: Heard) -> None:
        self._expect(h.payload.seq == 0, f"tck-id-topics-nbirth-seq-num: {h.payload.seq}")
        bd_seq = h.values.get("bdSeq")
        self._expect(isinstance(bd_seq, int), "tck-id-topics-nbirth-bdseq-included")
        again = "" in self._known
        if again:
            rule = "tck-id-operational-behavior-data-commands-rebirth-action-3"
            self._expect(bd_seq == self._bd_seq, rule)
        self._expect(h.values.get("Node Control/Rebirth") is False, "tck-id-topics-nbirth-rebirth-metric")
        self._bd_seq = int(str(bd_seq))
        self._known = {}

    def _birth(self, h: Heard) -> None:
        names = [metric.name or "" for metric in h.payload.metrics]
        self._expect(all(names), "tck-id-payloads-name-requirement")
        self._expect(len({name.lower() for name in names}) == len(names), "tck-id-case-sensitivity-metric-names")
        self._expect(all(m.datatype for m in h.payload.metrics), "tck-id-payloads-metric-datatype-req")
        self._expect(all(m.timestamp_ms is not None for m in h.payload.metrics), "tck-id-payloads-timestamp-in-UTC")
        known = {metric.name or "": metric.datatype for metric in h.payload.metrics}
        known |= {f"#{m.alias}": m.datatype for m in h.payload.metrics if m.alias is not None}
        others = {alias for device in self._known.values() for alias in device if alias.startswith("#")}
        self._expect(not others & set(known), "tck-id-payloads-alias-uniqueness")
        self._known[h.device] = known

    def _data(self, h: Heard) -> None:
        known = self._known.get(h.device)
        if known is None:
            self._expect(holds=False, rule="tck-id-payloads-ddata-order: data before the birth")
            return
        for metric in h.payload.metrics:
            name = metric.name or f"#{metric.alias}"
            self._expect(name in known, f"tck-id-operational-behavior-data-publish-nbirth: {name}")
            self._expect(metric.datatype == known.get(name), f"tck-id-payloads-metric-datatype-req: {name}")
            rule = f"tck-id-payloads-alias-data-cmd-requirement: {name}"
            self._expect(metric.name is None or metric.alias is None, rule)
