"""The outbox's messages that are under way: oldest first, a bounded number at a time.

A row is fetched, sent, answered and recorded. It stays in the outbox as pending until it is recorded, so that whatever
happens before that is made good by sending it again.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from agent.publisher.outbox import Trouble

if TYPE_CHECKING:
    from agent.publisher.audience import Audience
    from agent.publisher.holds import Holds
    from agent.publisher.outbox import Outbox
    from agent.records import OutboxMessage

log = logging.getLogger(__name__)

_FETCH = 64  # rows read at a time
_FETCHES_PER_STEP = 8  # a long queue for a refused topic is passed over in steps
_UNRECORDED_LIMIT = 256  # beyond it nothing is sent: after a crash all of these would be sent twice


class Inflight:
    """Which rows are under way. Used by the publisher's thread only."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._cursor = 0  # every pending row up to here is under way, held or done
        self._ahead: deque[OutboxMessage] = deque()  # fetched, not sent
        self._replay_cursor = 0  # the same of what was asked for again, which is sent when nothing else can be
        self._replays_ahead: deque[OutboxMessage] = deque()
        self._sent: dict[int, OutboxMessage] = {}  # by packet id, in the order of sending
        self._acknowledged: list[int] = []  # not recorded yet
        self._refused: dict[int, str] = {}  # to be parked
        self._busy: set[int] = set()  # rows of the three above
        self._trouble = Trouble()
        self.parked = 0  # since the start
        self.more_to_fetch = True  # for all that is known; `take` finds out

    @property
    def unanswered(self) -> int:
        """Messages sent and not answered yet."""
        return len(self._sent)

    @property
    def in_trouble(self) -> bool:
        """The outbox raised the last time it was asked."""
        return self._trouble.lasts

    @property
    def empty(self) -> bool:
        """Nothing is under way and the outbox had nothing more when it was last asked."""
        return not (self._busy or self._ahead or self._replays_ahead or self.more_to_fetch or self.in_trouble)

    @property
    def under_way(self) -> dict[int, OutboxMessage]:
        """What is sent and not answered, by packet id, in the order of sending."""
        return dict(self._sent)

    def start_again(self) -> None:
        """Forget what was sent: a new connection begins with the oldest pending row."""
        self._busy.difference_update(message.row for message in self._sent.values())
        self._sent.clear()
        self.go_back(0)
        self.more_to_fetch = True

    def go_back(self, row: int | None) -> None:
        """Fetch again from this row on; 0, or a row below: everything."""
        if row is not None:
            self._cursor = min(self._cursor, max(0, row - 1))
            self._ahead.clear()
        if row is not None and row <= 0:
            self._replay_cursor = 0
            self._replays_ahead.clear()

    def take(self, room: int, holds: Holds, audience: Audience, now: float) -> list[OutboxMessage]:
        """Return up to `room` messages to send now."""
        taken: list[OutboxMessage] = []
        if self._trouble.rests(now) or len(self._busy) - len(self._sent) >= _UNRECORDED_LIMIT:
            self.more_to_fetch = False
            return taken
        fetches = 0
        replays = False  # nothing else is left
        while len(taken) < room:
            ahead = self._replays_ahead if replays else self._ahead
            if not ahead:
                if fetches == _FETCHES_PER_STEP:
                    break
                fetches += 1
                if self._fetch(now, replays=replays):
                    continue
                if replays or self.in_trouble:
                    self.more_to_fetch = False
                    return taken
                replays = True
                continue
            message = ahead.popleft()
            if holds.held(message.topic):
                holds.keep_back(message.topic, message.row)
                continue
            if audience.waits(message.topic):
                ahead.appendleft(message)
                self.more_to_fetch = False  # until the answer is there
                return taken
            taken.append(message)
            self._busy.add(message.row)
            holds.sent(message.topic, message.row)
            audience.sent(message.topic)
        self.more_to_fetch = True
        return taken

    def sent(self, packet_id: int, message: OutboxMessage) -> None:
        """Note that a taken message is on its way."""
        self._sent[packet_id] = message

    def answered(self, packet_id: int) -> OutboxMessage | None:
        """Return the message that this answer is for; exactly one of the next three must follow."""
        return self._sent.pop(packet_id, None)

    def answered_by_closing(self, message: OutboxMessage) -> None:
        """Take the answer of a broker that closed the connection on this message; `refused_for_ever` must follow."""
        self._sent = {packet_id: sent for packet_id, sent in self._sent.items() if sent.row != message.row}

    def acknowledged(self, message: OutboxMessage) -> None:
        """Note that the broker has it; `record` writes it down."""
        self._acknowledged.append(message.row)

    def refused_for_ever(self, message: OutboxMessage, reason: str, detail: str) -> None:
        """Note that no broker will take it; `record` sets it aside."""
        log.error("Message %d on %s can never be sent (%s: %s); set aside", message.row, message.topic, reason, detail)
        self.parked += 1
        self._refused[message.row] = reason

    def put_back(self, message: OutboxMessage) -> None:
        """Note that it stays pending and may be taken again, once `go_back` was called."""
        self._busy.discard(message.row)

    def record(self, now: float) -> int:
        """Write down what the broker has and what it never takes; returns how many acknowledgements were recorded."""
        if self._trouble.rests(now) or not (self._acknowledged or self._refused):
            return 0
        for row, reason in list(self._refused.items()):
            if not self._trouble.attempt(partial(self._outbox.park, row, reason), now):
                return 0
            del self._refused[row]
            self._busy.discard(row)
        rows = self._acknowledged
        if not rows or not self._trouble.attempt(partial(self._outbox.acknowledge, rows), now):
            return 0
        self._acknowledged = []
        self._busy.difference_update(rows)
        return len(rows)

    def next_due(self, now: float) -> float | None:
        """When the outbox is asked again after it raised (monotonic); None when it may be asked now."""
        return self._trouble.next_due(now)

    def _fetch(self, now: float, *, replays: bool) -> bool:
        """Read on from the cursor; False when there was nothing, or the outbox did not work."""
        fetched: list[OutboxMessage] = []

        def fetch() -> None:
            ask = self._outbox.next_replays if replays else self._outbox.next_outbox_messages
            fetched.extend(ask(self._replay_cursor if replays else self._cursor, _FETCH))

        if not self._trouble.attempt(fetch, now) or not fetched:
            return False
        # Passed over here and not when it is taken: by then it may be recorded, and would be sent twice.
        news = [message for message in fetched if message.row not in self._busy]
        if replays:
            self._replay_cursor = fetched[-1].row
            self._replays_ahead.extend(news)
        else:
            self._cursor = fetched[-1].row
            self._ahead.extend(news)
        return True
