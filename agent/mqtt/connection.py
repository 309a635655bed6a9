"""One connection to the broker, in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config.file import ConfigError
from agent.config.secret_files import read_secret
from agent.mqtt.client import INCOMING_LIMIT_BYTES, Client, tls_failure
from agent.mqtt.events import Ended, Event, PassedOver, ProtocolName
from agent.mqtt.listener import Listener
from agent.mqtt.security import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import MqttSection

log = logging.getLogger(__name__)

_PAHO_PROTOCOL = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_CONNECT_TIMEOUT_SECONDS = 10.0  # for TCP and for the TLS handshake, for each address of the host
_LOOP_SECONDS = 1.0  # the network thread looks at least this often whether it should end
_PUBLISH_OVERHEAD_BYTES = 256  # headers, packet id and properties of a PUBLISH, generously


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes (QoS 1) when the connection ends without a goodbye; `schema` None: it is no JSON."""

    topic: str
    payload: bytes
    schema: str | None
    retain: bool = True


class CannotSend(ValueError):
    """This message can never be sent; `reason` is a short code for the audit."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Connection:
    """One attempt to connect and, if it works, one connection. Starts by itself, in its own thread."""

    def __init__(
        self,
        settings: MqttSection,
        client_id: str,
        protocol: ProtocolName,
        will: Will | None,
        ring: Callable[[], object],
    ) -> None:
        """Start connecting; `ring` is called, from the network thread, whenever an event has been added."""
        self.protocol: ProtocolName = protocol
        self._settings = settings
        self._listener = Listener(ring)
        self._passed_over = 0  # that `take_events` has told of
        self._properties: dict[str, Properties | None] = {}
        self._stop = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if protocol == "5" else True,
            protocol=_PAHO_PROTOCOL[protocol],
            reconnect_on_failure=False,
        )
        self._client.suppress_exceptions = True
        self._client.connect_timeout = _CONNECT_TIMEOUT_SECONDS
        self._client.max_inflight_messages_set(0)  # the publisher's window is the limit
        if will is not None:
            properties = self._will_properties(will)
            self._client.will_set(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)
        self._listener.listen_to(self._client)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """The network thread runs."""
        return self._thread.is_alive()

    def take_events(self) -> list[Event]:
        """Everything that has happened since the last call, in order."""
        taken = []
        while self._listener.events:
            taken.append(self._listener.events.popleft())
        passed_over = self._listener.passed_over
        if passed_over > self._passed_over:
            taken.insert(0, PassedOver(passed_over - self._passed_over))  # `Ended` stays the last
            self._passed_over = passed_over
        return taken

    def publish(
        self, topic: str, payload: bytes, schema: str | None, *, retain: bool, correlation: bytes = b"", qos: int = 1
    ) -> int:
        """Hand a message to the network thread; returns the id that its `Acked` will carry.

        With QoS 0 that comes when it was sent, and says nothing about the broker. `schema` None: it is no JSON.
        `correlation` goes with an answer (MQTT 5). Call only between `Connected` and `Ended`. Raises CannotSend for a
        message that can never be sent.
        """
        size_bytes = len(payload) + len(topic.encode()) + len(correlation) + _PUBLISH_OVERHEAD_BYTES
        limit_bytes = self._listener.maximum_packet_bytes
        if limit_bytes is not None and size_bytes > limit_bytes:
            raise CannotSend("too_large", f"about {size_bytes} bytes, the broker takes {limit_bytes}")
        if not topic or not topic.isprintable():
            raise CannotSend("topic_invalid", repr(topic))
        try:
            return self._client.publish(topic, payload, qos, retain, self._publish_properties(schema, correlation)).mid
        except ValueError as error:
            raise CannotSend("topic_invalid", f"{topic!r}: {error}") from error

    def subscribe(self, topic: str, *, retain_as_published: bool = False) -> int:
        """Ask for a topic's messages, QoS 1; returns the id that its `Subscribed` will carry.

        `retain_as_published` (MQTT 5): also what comes live has the flag that it was sent with.
        """
        if self.protocol == "5":
            options = SubscribeOptions(qos=1, retainAsPublished=retain_as_published)
            return self._client.subscribe(topic, options=options)[1] or 0
        return self._client.subscribe(topic, qos=1)[1] or 0

    def unsubscribe(self, topic: str) -> None:
        """Ask for no more of them."""
        self._client.unsubscribe(topic)

    def disconnect(self, timeout_seconds: float, *, with_will: bool = False) -> None:
        """Say goodbye, so that the broker drops the will; returns when the link is down or after `timeout_seconds`.

        `with_will` asks a broker that speaks MQTT 5 to publish it all the same.
        """
        will = with_will and self.protocol == "5"
        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message") if will else None)
        self._thread.join(timeout_seconds)
        self.abort()

    def abort(self) -> None:
        """Drop the link without a goodbye: the broker will publish the will. Never blocks."""
        self._stop.set()
        with contextlib.suppress(OSError, AttributeError, ValueError):  # it is gone already, or going just now
            self._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _run(self) -> None:
        """Own the network until the link ends, and say so whatever happens: nobody else would notice."""
        reached = unreadable = False
        ended = ""
        try:
            self._connect()
            reached = True
            result = paho.MQTT_ERR_SUCCESS
            while not self._stop.is_set() and result == paho.MQTT_ERR_SUCCESS:
                result = self._client.loop(_LOOP_SECONDS)
            ended = self._client.failure or "the connection was closed"
            reached = not self._client.tls_failed  # what TLS 1.3 refuses comes after the handshake
            unreadable = bool(self._client.failure) and reached
        except ssl.SSLError as error:
            ended = tls_failure(error)
        except (OSError, ValueError) as error:
            ended = f"{type(error).__name__}: {error}"
        except Exception as error:
            log.exception("The MQTT network thread died; the connection is built again")
            ended = f"network thread died: {type(error).__name__}: {error}"
            unreadable = reached
        finally:
            with contextlib.suppress(OSError, AttributeError):  # close what paho left open
                self._client.socket().close()  # type: ignore[union-attr]
            self._listener.add(Ended(reached, None, ended, unreadable=unreadable))

    def _connect(self) -> None:
        """Raise OSError (DNS, TCP, TLS, unreadable files) or ValueError when it does not work."""
        settings = self._settings
        if settings.tls.enabled:
            self._client.tls_set_context(tls_context(settings.tls))
        if settings.username is not None or settings.password_file is not None:
            self._client.username_pw_set(settings.username, _password(settings.password_file))
        if self.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's annotation is missing
            properties.MaximumPacketSize = INCOMING_LIMIT_BYTES
            self._client.connect(
                settings.host, settings.port, settings.keepalive_seconds, clean_start=True, properties=properties
            )
        else:
            self._client.connect(settings.host, settings.port, settings.keepalive_seconds)

    def _publish_properties(self, schema: str | None, correlation: bytes) -> Properties | None:
        if self.protocol != "5" or schema is None:
            return None
        if correlation:
            properties = _json_properties(PacketTypes.PUBLISH, schema)
            properties.CorrelationData = correlation
            return properties
        if schema not in self._properties:
            self._properties[schema] = _json_properties(PacketTypes.PUBLISH, schema)
        return self._properties[schema]

    def _will_properties(self, will: Will) -> Properties | None:
        if self.protocol != "5" or will.schema is None:
            return None
        return _json_properties(PacketTypes.WILLMESSAGE, will.schema)


def _json_properties(packet_type: int, schema: str) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call] # paho's annotation is missing
    properties.PayloadFormatIndicator = 1
    properties.ContentType = "application/json"
    if schema:
        properties.UserProperty = ("schema", schema)
    return properties


def _password(file: Path | None) -> str | None:
    """Read the password anew for each attempt: it may have been changed. Raises ValueError when it cannot be read."""
    try:
        return None if file is None else read_secret(file, os.environ)
    except ConfigError as error:
        raise ValueError(str(error)) from error
