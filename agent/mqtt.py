"""One connection to the broker; the only file that knows paho.

A `Connection` lives from connect to its end and is never used again: paho's own queue and reconnecting are not used,
because what they keep dies with the process and is sent again beyond any window. Whatever comes back is a small frozen
record, taken with `take_events`; nothing that paho calls can block or raise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import MqttSection

log = logging.getLogger(__name__)

ProtocolName = Literal["5", "3.1.1"]

SUCCESS = 0
NO_MATCHING_SUBSCRIBERS = 0x10
FAILURE = 0x80  # this code and all above it
UNSUPPORTED_PROTOCOL = 0x84
BAD_USER_OR_PASSWORD = 0x86
NOT_AUTHORIZED = 0x87
SESSION_TAKEN_OVER = 0x8E
TOPIC_NAME_INVALID = 0x90
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97
PAYLOAD_FORMAT_INVALID = 0x99

_PAHO_PROTOCOL = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_CONNECT_TIMEOUT_SECONDS = 10.0  # for TCP and for the TLS handshake, for each address of the host
_LOOP_SECONDS = 1.0  # the network thread looks at least this often whether it should end
_INCOMING_LIMIT_BYTES = 65536  # nobody has anything longer to say to this agent
_PACKET_IDS = 65535
# What paho says when it ends a connection by itself; every other end shows in the thread.
_OWN_DISCONNECTS = {0x8D: "the broker did not answer a ping", 0x82: "the broker broke the MQTT protocol"}
_PUBLISH_OVERHEAD_BYTES = 256  # headers, packet id and properties of a PUBLISH, generously


@dataclass(frozen=True, slots=True)
class Opened:
    """The other side took the TCP connection (and the TLS handshake); CONNECT is on its way."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker has accepted the connection and lets this many QoS 1 messages be unanswered at a time."""

    receive_maximum: int


@dataclass(frozen=True, slots=True)
class Acked:
    """The broker has answered message `mid`; `code` below `FAILURE` means that it took it. Over 3.1.1 always 0."""

    mid: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message from a topic that was subscribed."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a connection.

    `reached` says that the other side took the TCP connection (and the TLS handshake). `code` is the broker's reason,
    None when it gave none.
    """

    reached: bool
    code: int | None
    text: str


Event = Opened | Connected | Acked | Received | Ended


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes (QoS 1, retained) when the connection ends without a goodbye."""

    topic: str
    payload: bytes
    schema: str


class CannotSend(ValueError):
    """This message can never be sent; `reason` is a short code for the audit."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Connection:
    """One attempt to connect and, if it works, one connection. Starts by itself, in its own thread."""

    def __init__(
        self, settings: MqttSection, client_id: str, protocol: ProtocolName, will: Will, ring: Callable[[], object]
    ) -> None:
        """Start connecting; `ring` is called, from the network thread, whenever an event has been added."""
        self.protocol: ProtocolName = protocol
        self._settings = settings
        self._listener = _Listener(ring)
        self._properties: dict[str, Properties | None] = {}
        self._stop = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if protocol == "5" else True,
            protocol=_PAHO_PROTOCOL[protocol],
            reconnect_on_failure=False,
        )
        self._client.suppress_exceptions = True
        self._client.connect_timeout = _CONNECT_TIMEOUT_SECONDS
        self._client.max_inflight_messages_set(0)  # the publisher's window is the limit
        self._client.will_set(will.topic, will.payload, qos=1, retain=True, properties=self._will_properties(will))
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
        return taken

    def publish(self, topic: str, payload: bytes, schema: str, *, retain: bool) -> int:
        """Hand a QoS 1 message to the network thread; returns the id that its `Acked` will carry.

        Call only between `Connected` and `Ended`. Raises CannotSend for a message that can never be sent.
        """
        size_bytes = len(payload) + len(topic.encode()) + _PUBLISH_OVERHEAD_BYTES
        limit_bytes = self._listener.maximum_packet_bytes
        if limit_bytes is not None and size_bytes > limit_bytes:
            raise CannotSend("too_large", f"about {size_bytes} bytes, the broker takes {limit_bytes}")
        if not topic or not topic.isprintable():
            raise CannotSend("topic_invalid", repr(topic))
        try:
            return self._client.publish(topic, payload, 1, retain, self._publish_properties(schema)).mid
        except ValueError as error:
            raise CannotSend("topic_invalid", f"{topic!r}: {error}") from error

    def subscribe(self, topic: str) -> None:
        """Ask for a topic's messages, QoS 1."""
        self._client.subscribe(topic, qos=1)

    def unsubscribe(self, topic: str) -> None:
        """Ask for no more of them."""
        self._client.unsubscribe(topic)

    def disconnect(self, timeout_seconds: float) -> None:
        """Say goodbye, so that the broker drops the will; returns when the link is down or after `timeout_seconds`."""
        self._client.disconnect()
        self._thread.join(timeout_seconds)
        self.abort()

    def abort(self) -> None:
        """Drop the link without a goodbye: the broker will publish the will. Never blocks."""
        self._stop.set()
        with contextlib.suppress(OSError, AttributeError, ValueError):  # it is gone already, or going just now
            self._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _run(self) -> None:
        """Own the network until the link ends, and say so whatever happens: nobody else would notice."""
        reached = False
        ended = ""
        try:
            self._connect()
            reached = True
            result = paho.MQTT_ERR_SUCCESS
            while not self._stop.is_set() and result == paho.MQTT_ERR_SUCCESS:
                result = self._client.loop(_LOOP_SECONDS)
            ended = "the connection was closed"
        except (OSError, ValueError) as error:
            ended = f"{type(error).__name__}: {error}"
        except Exception as error:
            log.exception("The MQTT network thread died; the connection is built again")
            ended = f"network thread died: {type(error).__name__}: {error}"
        finally:
            with contextlib.suppress(OSError, AttributeError):  # close what paho left open
                self._client.socket().close()  # type: ignore[union-attr]
            self._listener.add(Ended(reached, None, ended))

    def _connect(self) -> None:
        """Raise OSError (DNS, TCP, TLS, unreadable files) or ValueError when it does not work."""
        settings = self._settings
        if settings.tls.enabled:
            self._client.tls_set_context(_tls_context(settings))
        if settings.username is not None or settings.password_file is not None:
            password = None if settings.password_file is None else read_password(settings.password_file)
            self._client.username_pw_set(settings.username, password)
        if self.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's annotation is missing
            properties.MaximumPacketSize = _INCOMING_LIMIT_BYTES
            self._client.connect(
                settings.host, settings.port, settings.keepalive_seconds, clean_start=True, properties=properties
            )
        else:
            self._client.connect(settings.host, settings.port, settings.keepalive_seconds)

    def _publish_properties(self, schema: str) -> Properties | None:
        if self.protocol != "5":
            return None
        if schema not in self._properties:
            self._properties[schema] = _json_properties(PacketTypes.PUBLISH, schema)
        return self._properties[schema]

    def _will_properties(self, will: Will) -> Properties | None:
        return _json_properties(PacketTypes.WILLMESSAGE, will.schema) if self.protocol == "5" else None


class _Listener:
    """What paho calls, turned into events. It does not know paho's client: a cycle would keep that, and its socket."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self.events: deque[Event] = deque()
        self.maximum_packet_bytes: int | None = None
        self._ring = ring

    def add(self, event: Event) -> None:
        self.events.append(event)
        self._ring()

    def listen_to(self, client: paho.Client) -> None:
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_register_write = self._on_socket_register_write

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.add(Ended(reached=True, code=reason.value, text=_text(reason, properties)))
            return
        self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self.add(Connected(getattr(properties, "ReceiveMaximum", _PACKET_IDS)))

    def _on_disconnect(self, _client: Any, _userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self.add(Ended(reached=True, code=reason.value, text=_text(reason, properties)))
        elif reason.value in _OWN_DISCONNECTS:
            self.add(Ended(reached=True, code=None, text=_OWN_DISCONNECTS[reason.value]))

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self.add(Acked(mid, reason.value, _text(reason, properties) if reason.value >= FAILURE else ""))

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        self.add(Received(message.topic, bytes(message.payload), message.retain))

    def _on_socket_open(self, _client: Any, _userdata: Any, sock: Any) -> None:
        # A small message must not wait for the acknowledgement of the one before it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.add(Opened())

    def _on_socket_register_write(self, _client: Any, _userdata: Any, _sock: Any) -> None:
        """Nothing to do; that it is set keeps `publish` from writing to the socket in the caller's thread."""


def read_password(file: Path) -> str:
    """Read a password; a bare name is a systemd credential if there is one. Raises OSError when it cannot be read."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and len(file.parts) == 1 and (Path(credentials) / file).is_file():
        file = Path(credentials) / file
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise OSError(f"the password in {file} is not UTF-8: {error}") from error


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho only drops it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls_context(settings: MqttSection) -> ssl.SSLContext:
    tls = settings.tls
    context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TlsSocket
    if tls.cert_file is not None:
        # The empty password keeps OpenSSL from asking for one on a terminal that is not there.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    return context


def _json_properties(packet_type: int, schema: str) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call] # paho's annotation is missing
    properties.PayloadFormatIndicator = 1
    properties.ContentType = "application/json"
    if schema:
        properties.UserProperty = ("schema", schema)
    return properties


def _text(reason: Any, properties: Any) -> str:
    explained = getattr(properties, "ReasonString", "")
    return f"{reason}: {explained}" if explained else str(reason)
