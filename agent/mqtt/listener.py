"""What paho calls, turned into events."""

from __future__ import annotations

import logging
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from agent.mqtt.events import FAILURE, Acked, Connected, Ended, Event, Opened, Received, Subscribed

if TYPE_CHECKING:
    from collections.abc import Callable

    import paho.mqtt.client as paho

log = logging.getLogger(__name__)

_PACKET_IDS = 65535
_WAITING_EVENTS = 1024  # beyond it what others say is not kept: a flood must not cost memory
# What paho says when it ends a connection by itself; every other end shows in the thread.
_KEEPALIVE_TIMEOUT = 0x8D
_OWN_DISCONNECTS = {
    _KEEPALIVE_TIMEOUT: "the broker did not answer a ping",
    0x82: "the broker broke the MQTT protocol",  # mostly by a reason code that paho does not know
}


class Listener:
    """What paho calls, turned into events. It does not know paho's client: a cycle would keep that, and its socket."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self.events: deque[Event] = deque()
        self.maximum_packet_bytes: int | None = None
        self.passed_over = 0  # messages that came in faster than they were taken
        self._ring = ring

    def add(self, event: Event) -> None:
        """Put an event where `Connection.take_events` finds it."""
        self.events.append(event)
        self._ring()

    def listen_to(self, client: paho.Client) -> None:
        """Have paho call this."""
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = self._on_socket_open
        client.on_socket_register_write = self._on_socket_register_write

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.add(Ended(reached=True, code=reason.value, text=_text(reason, properties)))
            return
        self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        retains = bool(getattr(properties, "RetainAvailable", 1))
        self.add(Connected(getattr(properties, "ReceiveMaximum", _PACKET_IDS), retains))

    def _on_disconnect(self, _client: Any, _userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self.add(Ended(reached=True, code=reason.value, text=_text(reason, properties)))
        elif reason.value in _OWN_DISCONNECTS:
            silent = reason.value == _KEEPALIVE_TIMEOUT
            self.add(Ended(reached=True, code=None, text=_OWN_DISCONNECTS[reason.value], given_up=silent))

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self.add(Acked(mid, reason.value, _text(reason, properties) if reason.value >= FAILURE else ""))

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        if len(self.events) >= _WAITING_EVENTS:
            self.passed_over += 1
            if self.passed_over == 1:
                log.warning("Too many messages come in at a time; some of them are passed over")
            return
        response_topic = getattr(message.properties, "ResponseTopic", "")
        correlation = bytes(getattr(message.properties, "CorrelationData", b""))
        self.add(Received(message.topic, bytes(message.payload), message.retain, response_topic, correlation))

    def _on_subscribe(self, _client: Any, _userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        worst = max(reasons, key=lambda reason: reason.value)
        self.add(Subscribed(mid, worst.value, _text(worst, properties)))

    def _on_socket_open(self, _client: Any, _userdata: Any, sock: Any) -> None:
        self.add(Opened())
        # A small message must not wait for the acknowledgement of the one before it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_socket_register_write(self, _client: Any, _userdata: Any, _sock: Any) -> None:
        """Nothing to do; that it is set keeps `publish` from writing to the socket in the caller's thread."""


def _text(reason: Any, properties: Any) -> str:
    explained = getattr(properties, "ReasonString", "")
    return f"{reason}: {explained}" if explained else str(reason)
