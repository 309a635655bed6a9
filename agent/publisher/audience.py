"""Whether anybody subscribes to the events: a broker takes them all the same, and what nobody asked for is gone."""

from __future__ import annotations

import logging

from agent import mqtt

log = logging.getLogger(__name__)

EVENTS = "event/"
RESULTS = "event/strip/"
_ALARM_SECONDS = 600.0  # a broker that came back before its subscribers has been heard again after a second


class Audience:
    """What the broker said about subscribers (MQTT 5 only)."""

    def __init__(self, *, holds: bool) -> None:
        """With `holds` an event that nobody would get waits in the outbox (`outbox.hold_until_subscribed`)."""
        self.holds = holds
        self.unheard = 0  # results that the broker took while nobody subscribed to them, since the start
        self._topics: set[str] = set()  # those whose newest result nobody asked for
        self._proven: dict[str, bool] = {}  # events of this connection: False while the first is unanswered
        self._alarm_until = float("-inf")

    @property
    def nobody(self) -> bool:
        """On some topic nobody subscribed to the newest result."""
        return bool(self._topics)

    def alarm(self, now: float) -> bool:
        """Whether results went to nobody, now or in the last ten minutes (`now` is monotonic)."""
        return not self.holds and (self.nobody or now < self._alarm_until)

    def begin(self) -> None:
        """Begin with a new connection, maybe to a broker whose subscribers are not back yet."""
        self._proven.clear()

    def waits(self, topic: str) -> bool:
        """Whether nothing more may follow on `topic` before its first message is answered.

        Of a whole window sent at once the first ones might go to nobody and be held, and the last ones reach a
        subscriber who came in between: out of order.
        """
        return self._proven.get(topic) is False

    def sent(self, topic: str) -> None:
        """Note that a message is under way."""
        if self.holds and topic.startswith(EVENTS):
            self._proven.setdefault(topic, False)

    def answered(self, topic: str, *, heard: bool) -> None:
        """Let the topic go on; the next message is a first one again unless somebody got this one."""
        if topic in self._proven:
            self._proven[topic] = True
        if not heard:
            self._proven.pop(topic, None)

    def acknowledged(self, topic: str, code: int, now: float) -> bool:
        """Take the broker's answer to a message that it took; return whether that is all, or it has to wait."""
        unheard = code == mqtt.NO_MATCHING_SUBSCRIBERS
        if topic.startswith(RESULTS):
            self._note(topic, now, unheard=unheard)
        return not (unheard and self.holds and topic.startswith(EVENTS))

    def _note(self, topic: str, now: float, *, unheard: bool) -> None:
        if not unheard:
            self._topics.discard(topic)
            return
        if not self.holds:
            self.unheard += 1
            self._alarm_until = now + _ALARM_SECONDS
        if topic not in self._topics:
            self._topics.add(topic)
            lost = "they wait in the outbox" if self.holds else "the broker takes the results, and nobody gets them"
            log.warning("Nobody subscribes to %s: %s", topic, lost)
