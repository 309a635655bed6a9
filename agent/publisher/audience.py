"""Whether anybody subscribes to the results: a broker takes them all the same, and what nobody asked for is gone."""

from __future__ import annotations

import logging

from agent import mqtt

log = logging.getLogger(__name__)

RESULTS = "event/strip/"
_ALARM_SECONDS = 600.0  # a broker that came back before its subscribers has been heard again after a second


class Audience:
    """What the broker said about subscribers (MQTT 5 only)."""

    def __init__(self) -> None:
        self.unheard = 0  # results that the broker took while nobody subscribed to them, since the start
        self._topics: set[str] = set()  # those whose newest result nobody asked for
        self._alarm_until = float("-inf")

    @property
    def nobody(self) -> bool:
        """On some topic nobody subscribed to the newest result."""
        return bool(self._topics)

    def alarm(self, now: float) -> bool:
        """Whether results went to nobody, now or in the last ten minutes (`now` is monotonic)."""
        return self.nobody or now < self._alarm_until

    def acknowledged(self, topic: str, code: int, now: float) -> None:
        """Take the broker's answer to a message of the outbox."""
        if not topic.startswith(RESULTS):
            return
        if code != mqtt.NO_MATCHING_SUBSCRIBERS:
            self._topics.discard(topic)
            return
        self.unheard += 1
        self._alarm_until = now + _ALARM_SECONDS
        if topic not in self._topics:
            self._topics.add(topic)
            log.warning("Nobody subscribes to %s: the broker takes the results, and nobody gets them", topic)
