"""Answers to commands: sent as soon as there is a connection, kept for some minutes, and never more than a few.

They are in memory only. Who misses one asks again with the same id, and is answered again.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent import messages, mqtt

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

WAITING = 100
KEPT_SECONDS = 600.0
_SENT_AT_MOST = 3  # a broker that hangs up on an answer must not do so for ever


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer for a whole topic. `correlation` is the request's (MQTT 5), b"" when it had none."""

    topic: str
    payload: bytes
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class _Waiting:
    answer: Answer
    since: float  # monotonic seconds
    sent: int = 0  # times


class Answers:
    """`add` may be called from any thread, all else from the publisher's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock  # monotonic seconds
        self._waiting: deque[_Waiting] = deque()
        self._sent: dict[int, _Waiting] = {}  # by packet id, in the order of sending
        self.lost = 0  # that nobody could be given, since the start

    @property
    def packet_ids(self) -> set[int]:
        """The packet ids of those that the broker has not acknowledged."""
        return set(self._sent)

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not (self._waiting or self._sent)

    def add(self, answer: Answer) -> None:
        """Take an answer; the oldest one goes when too many wait."""
        self._waiting.append(_Waiting(answer, self._clock()))

    def send(self, connection: mqtt.Connection, room: int) -> None:
        """Send up to `room` of them."""
        self._drop_old()
        while room > 0 and self._waiting:
            one = self._waiting.popleft()
            answer = one.answer
            schema = messages.schema_name(answer.payload)
            try:
                packet_id = connection.publish(
                    answer.topic, answer.payload, schema, retain=False, correlation=answer.correlation
                )
            except mqtt.CannotSend as error:
                self._lose(one, str(error))
                continue
            self._sent[packet_id] = replace(one, sent=one.sent + 1)
            room -= 1

    def answered(self, ack: mqtt.Acked) -> bool:
        """Take the broker's answer; return whether it was to one of these."""
        one = self._sent.pop(ack.mid, None)
        if one is not None and ack.code >= mqtt.FAILURE:
            self._lose(one, ack.text)
        return one is not None

    def end(self) -> None:
        """Take back what was under way when the connection ended."""
        for one in reversed(self._sent.values()):
            if one.sent >= _SENT_AT_MOST:
                self._lose(one, f"the connection ended {one.sent} times while it was sent")
            else:
                self._waiting.appendleft(one)
        self._sent.clear()

    def _drop_old(self) -> None:
        before = self._clock() - KEPT_SECONDS
        while self._waiting and (len(self._waiting) > WAITING or self._waiting[0].since < before):
            self._lose(self._waiting.popleft(), "too many wait, or it has waited too long")

    def _lose(self, one: _Waiting, why: str) -> None:
        self.lost += 1
        if self.lost.bit_count() == 1:  # 1, 2, 4, 8, ...: whoever sends commands does not fill the log
            log.warning("The answer on %r is lost: %s; %d since the start", one.answer.topic, why, self.lost)
