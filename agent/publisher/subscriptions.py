"""What the agent subscribes to for commands: only what the configuration lists, anew on every connection.

Others write there. Something that cannot even be read (over MQTT 3.1.1 a message of any size, with a lax broker a
malformed one) ends the connection; were it retained, it would end every one, and no result would ever leave the box.
So after that nothing is subscribed for a while.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent import mqtt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

FIRST_REST_SECONDS = 60.0
LONGEST_REST_SECONDS = 3600.0


class Subscriptions:
    """The commands' topics, what comes in on them, and which of them the broker does not grant."""

    def __init__(
        self, topics: Sequence[str], on_message: Callable[[mqtt.Received | mqtt.PassedOver], None] | None
    ) -> None:
        self._topics = topics
        self._on_message = on_message
        self._asked: dict[int, str] = {}  # by packet id
        self._denied: set[str] = set()
        self._subscribed = False  # on this connection
        self._rest_seconds = FIRST_REST_SECONDS
        self._rest_until = float("-inf")  # monotonic

    @property
    def denied(self) -> bool:
        """Some command cannot be given, because the broker does not let the agent subscribe to it."""
        return bool(self._denied)

    @property
    def resting(self) -> bool:
        """No command can be given for now, because of something that could not be read."""
        return bool(self._topics) and self._rest_until > float("-inf") and not self._subscribed

    def step(self, connection: mqtt.Connection, now: float, *, calm: bool) -> None:
        """Subscribe, if that has not been done on this connection and nothing is against it; `now` is monotonic.

        Not `calm`, several connections have just ended early: what comes in may be why, so this one has to last first.
        """
        if not self._subscribed and now >= self._rest_until and calm:
            self._subscribed = True
            self._denied.clear()
            self._asked = {connection.subscribe(topic, retain_as_published=True): topic for topic in self._topics}

    def take(self, event: mqtt.Received | mqtt.PassedOver | mqtt.Subscribed) -> None:
        """Take what came in, or the broker's answer to a subscription."""
        if not isinstance(event, mqtt.Subscribed):
            if self._on_message is not None:
                self._on_message(event)
            return
        topic = self._asked.pop(event.mid, None)
        if topic is not None and event.code >= mqtt.FAILURE:
            self._denied.add(topic)
            log.warning("The broker does not let the agent subscribe to %s: %s", topic, event.text)

    def end(self, end: mqtt.Ended, now: float) -> None:
        """Take the end of a connection."""
        if end.unreadable and self._subscribed and self._topics:
            log.error("%s: no commands are taken for %.0f s", end.text, self._rest_seconds)
            self._rest_until = now + self._rest_seconds
            self._rest_seconds = min(2 * self._rest_seconds, LONGEST_REST_SECONDS)
        self._subscribed = False
