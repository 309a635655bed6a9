"""What a connection reports, and the reason codes of MQTT 5 that matter here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProtocolName = Literal["5", "3.1.1"]

NO_MATCHING_SUBSCRIBERS = 0x10
FAILURE = 0x80  # this code and all above it
UNSUPPORTED_PROTOCOL = 0x84
BAD_USER_OR_PASSWORD = 0x86
NOT_AUTHORIZED = 0x87
SERVER_BUSY = 0x89
SERVER_SHUTTING_DOWN = 0x8B
SESSION_TAKEN_OVER = 0x8E
TOPIC_NAME_INVALID = 0x90
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97
ADMINISTRATIVE_ACTION = 0x98
PAYLOAD_FORMAT_INVALID = 0x99
RETAIN_NOT_SUPPORTED = 0x9A


@dataclass(frozen=True, slots=True)
class Opened:
    """The other side took the TCP connection (and the TLS handshake); CONNECT is on its way."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker has accepted the connection and lets this many QoS 1 messages be unanswered at a time.

    `retains` is False where the broker says that it keeps no retained messages (MQTT 5 only).
    """

    receive_maximum: int
    retains: bool = True


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
    response_topic: str = ""  # where an answer is to go, with `correlation`; MQTT 5
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """So many messages came in faster than they were taken, and are gone."""

    number: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker has answered subscription `mid`; a `code` of `FAILURE` or more means that it is denied.

    It has everything that was sent before that.
    """

    mid: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a connection.

    `reached` says that the other side took the TCP connection (and the TLS handshake). `code` is the broker's reason,
    None when it gave none. `given_up`: this side ended it, because the other fell silent; `unreadable`: because of
    something that came in.
    """

    reached: bool
    code: int | None
    text: str
    given_up: bool = False
    unreadable: bool = False


Event = Opened | Connected | Acked | Received | PassedOver | Subscribed | Ended
