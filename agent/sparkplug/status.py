"""What others see of the edge node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.publisher.status import PublisherStatus

if TYPE_CHECKING:
    from agent.publisher.echo import Echo
    from agent.publisher.link import Link
    from agent.publisher.status import Delivery as Worth
    from agent.publisher.status import Doubt
    from agent.sparkplug.delivery import Delivery

_HOST_ALARM_SECONDS = 30.0


def look(
    link: Link,
    delivery: Delivery,
    echo: Echo | None,
    doubt: Doubt,
    *,
    born: bool,
    waits_since: float | None,
    subscription_refused: bool,
    since_ms: int,
    acknowledged: int,
    now: float,
) -> PublisherStatus:
    """Ask all parts how they are at the end of a step (`now`, monotonic).

    `waits_since`: from when on it has been connected and waiting for its primary host.
    """
    connection = link.connection
    worth: Worth = "down"
    if connection is not None and born:
        worth = "verified" if echo is not None and echo.complete else "unverified"
    alarms = link.alarms(now)
    found = {
        "outbox_error": delivery.in_trouble,
        "delivery_unverified": doubt.lasts(worth, alarms, echo, now),
        "primary_host_offline": waits_since is not None and now - waits_since >= _HOST_ALARM_SECONDS,
        "subscription_refused": subscription_refused,
    }
    return PublisherStatus(
        connected=connection is not None,
        protocol="" if connection is None else connection.protocol,
        since_ms=since_ms,
        unacked=delivery.unanswered,
        acknowledged=acknowledged,
        parked=delivery.parked,
        delivery=worth,
        last_error=link.last_error,
        alarms=tuple(sorted(alarms | {alarm for alarm, is_set in found.items() if is_set})),
    )
