"""What others see of the publisher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.publisher.poison import NO_SUBSCRIBER

if TYPE_CHECKING:
    from agent.mqtt import Connection
    from agent.publisher.audience import Audience
    from agent.publisher.echo import Echo
    from agent.publisher.holds import Holds
    from agent.publisher.inflight import Inflight
    from agent.publisher.link import Link
    from agent.publisher.retained import Retained
    from agent.publisher.subscriptions import Subscriptions

_PROOF_SECONDS = 10.0

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
    answers_lost: int = 0  # answers to commands that the broker did not take, since the start
    unheard: int = 0  # results that the broker took and nobody asked for, since the start
    last_error: str = ""
    alarms: tuple[str, ...] = ()


def delivery(connection: Connection | None, holds: Holds, echo: Echo | None) -> Delivery:
    """Say what an acknowledgement is worth. `echo` is None where the protocol tells a denial from a success."""
    if connection is None:
        return "down"
    if holds.alarms - {NO_SUBSCRIBER}:
        return "refused"
    return "verified" if echo is None or echo.complete else "unverified"


class Doubt:
    """Since when it is not known whether messages arrive (MQTT 3.1.1)."""

    def __init__(self, now: float) -> None:
        self._since = now

    def lasts(self, worth: Delivery, alarms: set[str], echo: Echo | None, now: float) -> bool:
        """Say whether nothing came back for ten seconds; `alarms` are those of the link, `now` is monotonic."""
        # A broker that hangs up on what it denies must not begin the time anew with each connection; an absence must.
        between = worth == "down" and "broker_unreachable" not in alarms
        if worth != "unverified" and not (between and echo is not None and echo.leaves_doubt):
            self._since = now
        return worth == "unverified" and now - self._since >= _PROOF_SECONDS


def look(
    link: Link,
    inflight: Inflight,
    holds: Holds,
    echo: Echo | None,
    doubt: Doubt,
    audience: Audience,
    retained: Retained,
    subscriptions: Subscriptions,
    *,
    answers_lost: int,
    since_ms: int,
    acknowledged: int,
    now: float,
) -> PublisherStatus:
    """Ask all parts how they are at the end of a step (`now`, monotonic)."""
    connection = link.connection
    worth = delivery(connection, holds, echo)
    alarms = link.alarms(now) | holds.alarms
    found = {
        "outbox_error": inflight.in_trouble,
        "delivery_unverified": doubt.lasts(worth, alarms, echo, now),
        "nobody_listening": audience.alarm(now),
        "broker_without_retain": retained.alarm,
        "commands_not_granted": connection is not None and subscriptions.denied,
        "commands_suspended": subscriptions.resting,
        "hold_not_possible": audience.holds and connection is not None and connection.protocol == "3.1.1",
    }
    alarms |= {alarm for alarm, is_set in found.items() if is_set}
    return PublisherStatus(
        connected=connection is not None,
        protocol="" if connection is None else connection.protocol,
        since_ms=since_ms,
        unacked=inflight.unanswered,
        acknowledged=acknowledged,
        parked=inflight.parked,
        delivery=worth,
        nobody_listening=audience.nobody,
        answers_lost=answers_lost,
        unheard=audience.unheard,
        last_error=link.last_error,
        alarms=tuple(sorted(alarms)),
    )
