"""One connection to the broker; the only part that knows paho.

A `Connection` lives from connect to its end and is never used again: paho's own queue and reconnecting are not used,
because what they keep dies with the process and is sent again beyond any window. Whatever comes back is a small frozen
record, taken with `take_events`; nothing that paho calls can block or raise.
"""

from agent.mqtt.connection import CannotSend, Connection, Will
from agent.mqtt.events import (
    ADMINISTRATIVE_ACTION,
    BAD_USER_OR_PASSWORD,
    FAILURE,
    NO_MATCHING_SUBSCRIBERS,
    NOT_AUTHORIZED,
    PACKET_TOO_LARGE,
    PAYLOAD_FORMAT_INVALID,
    QUOTA_EXCEEDED,
    RETAIN_NOT_SUPPORTED,
    SERVER_BUSY,
    SERVER_SHUTTING_DOWN,
    SESSION_TAKEN_OVER,
    TOPIC_NAME_INVALID,
    UNSUPPORTED_PROTOCOL,
    Acked,
    Connected,
    Ended,
    Event,
    Opened,
    PassedOver,
    ProtocolName,
    Received,
    Subscribed,
)

__all__ = [
    "ADMINISTRATIVE_ACTION",
    "BAD_USER_OR_PASSWORD",
    "FAILURE",
    "NOT_AUTHORIZED",
    "NO_MATCHING_SUBSCRIBERS",
    "PACKET_TOO_LARGE",
    "PAYLOAD_FORMAT_INVALID",
    "QUOTA_EXCEEDED",
    "RETAIN_NOT_SUPPORTED",
    "SERVER_BUSY",
    "SERVER_SHUTTING_DOWN",
    "SESSION_TAKEN_OVER",
    "TOPIC_NAME_INVALID",
    "UNSUPPORTED_PROTOCOL",
    "Acked",
    "CannotSend",
    "Connected",
    "Connection",
    "Ended",
    "Event",
    "Opened",
    "PassedOver",
    "ProtocolName",
    "Received",
    "Subscribed",
    "Will",
]
