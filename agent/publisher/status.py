"""What others see of the publisher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agent.mqtt import Connection
    from agent.publisher.echo import Echo
    from agent.publisher.holds import Holds

Delivery = Literal["verified", "unverified", "refused", "down"]


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """The publisher at the end of its last step."""

    connected: bool = False
    protocol: Literal["", "5", "3.1.1"] = ""
    since_ms: int = 0  # Unix milliseconds: since when connected, or not
    unacked: int = 0  # messages of the outbox that are sent and not answered
    acknowledged: int = 0  # of the outbox, recorded, since the start
    parked: int = 0  # since the start
    delivery: Delivery = "down"
    nobody_listening: bool = False
    last_error: str = ""
    alarms: tuple[str, ...] = ()


def delivery(connection: Connection | None, holds: Holds, echo: Echo | None) -> Delivery:
    """Say what an acknowledgement is worth. `echo` is None where the protocol tells a denial from a success."""
    if connection is None:
        return "down"
    if holds.alarms:
        return "refused"
    return "verified" if echo is None or echo.complete else "unverified"
