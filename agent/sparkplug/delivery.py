"""Batches of the outbox, each followed by a barrier: what Sparkplug sends is QoS 0, which nobody acknowledges.

A broker works off what comes in on a connection in order. So after a batch the agent subscribes once more to what it is
subscribed to, and the answer to that says that the broker has the batch. Until then its rows stay in the outbox.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from agent.publisher.outbox import Outbox as AnyOutbox
from agent.publisher.outbox import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.records import OutboxMessage

log = logging.getLogger(__name__)

BATCH = 64  # messages between two barriers
_RESCAN_SECONDS = 60.0  # an idle outbox is read from its beginning this often, in case a row became pending again


class Outbox(AnyOutbox, Protocol):
    """What is needed of the ledger beside what every way out needs."""

    def last_row(self) -> int:
        """Return the row of the newest message."""

    def send_again_since(self, since_ms: int) -> int:
        """Let what was handed over since then (Unix milliseconds) be sent again; returns how many there are."""


class Delivery:
    """What is under way. Used by one thread; times are `now`, monotonic seconds."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._live_after = 0  # what has a higher row was made since the births of this connection
        self._live_cursor = self._history_cursor = self._replay_cursor = 0
        self._batch: list[int] = []  # rows that were sent since the last barrier
        self._barrier: int | None = None  # packet id of the subscription that was sent behind them
        self._barrier_at = 0.0
        self._delivered: list[int] = []  # rows that the broker has, not recorded yet
        self._unheard_since_ms: int | None = None  # by a primary host that died
        self._rescan_at = 0.0
        self._trouble = Trouble()
        self.more = True  # for all that is known; `take` finds out
        self.parked = 0  # since the start

    @property
    def unanswered(self) -> int:
        """Messages that were sent and are not confirmed."""
        return len(self._batch)

    @property
    def in_trouble(self) -> bool:
        """The outbox raised the last time it was asked."""
        return self._trouble.lasts

    def ready(self, now: float) -> bool:
        """Say whether `take` may have something."""
        return self.more and not self._batch and not self._delivered and not self._trouble.rests(now)

    @property
    def empty(self) -> bool:
        """Nothing is under way and the outbox had nothing more when it was last asked."""
        return not (self._batch or self._delivered or self.more or self.in_trouble)

    def start_again(self, now: float) -> None:
        """Begin with a new connection, or after a rebirth: what waits now is history from here on."""
        self.end()
        self._trouble.attempt(self._begin, now)

    def end(self) -> None:
        """Note that the connection has ended: what was not confirmed is sent again on the next one."""
        self._batch, self._barrier = [], None
        self._live_after = self._live_cursor = self._history_cursor = self._replay_cursor = 0
        self.more = True

    def _begin(self) -> None:
        self._live_after = self._live_cursor = self._outbox.last_row()

    def look_again(self) -> None:
        """Note that there may be something new."""
        self.more = True

    def take(self, now: float) -> list[tuple[OutboxMessage, bool]]:
        """Return the next messages to send, each with whether it is history; live ones first. `send_barrier` follows.

        Nothing while a batch is unconfirmed or unrecorded.
        """
        if self._batch or self._delivered or self._unheard_since_ms is not None or self._trouble.rests(now):
            return []
        if now >= self._rescan_at:
            self._rescan_at = now + _RESCAN_SECONDS
            self._history_cursor = self._replay_cursor = 0
            self.more = True
        taken: list[tuple[OutboxMessage, bool]] = []
        if self.more:
            self.more = False  # before it is asked: what comes meanwhile must not be missed
            if not self._trouble.attempt(lambda: taken.extend(self._fetch()), now) or taken:
                self.more = True
        self._batch = [message.row for message, _ in taken]
        return taken

    def _fetch(self) -> list[tuple[OutboxMessage, bool]]:
        live = self._outbox.next_outbox_messages(self._live_cursor, BATCH)
        taken = [(message, False) for message in live]
        if live:
            self._live_cursor = live[-1].row
        if len(taken) < BATCH:
            waiting = self._outbox.next_outbox_messages(self._history_cursor, BATCH - len(taken))
            history = [message for message in waiting if message.row <= self._live_after]
            taken += [(message, True) for message in history]
            if history:
                self._history_cursor = history[-1].row
        if not taken:
            again = self._outbox.next_replays(self._replay_cursor, BATCH)
            taken += [(message, True) for message in again]
            if again:
                self._replay_cursor = again[-1].row
        return taken

    def refused_for_ever(self, message: OutboxMessage, reason: str, detail: str, now: float) -> None:
        """Set a message aside that was taken and can never be sent."""
        log.error("Message %d on %s can never be sent (%s: %s); set aside", message.row, message.topic, reason, detail)
        self._batch.remove(message.row)
        if self._trouble.attempt(lambda: self._outbox.park(message.row, reason), now):
            self.parked += 1

    def send_barrier(self, subscribe: Callable[[], int], now: float) -> None:
        """Ask for a confirmation of what was sent, if anything was."""
        if self._batch and self._barrier is None:
            self._barrier = subscribe()
            self._barrier_at = now

    def confirmed(self, packet_id: int) -> None:
        """Take the broker's answer to a subscription: the barrier's says that it has the batch."""
        if self._barrier is not None and packet_id == self._barrier:
            self._delivered += self._batch
            self._batch, self._barrier = [], None

    def be_patient(self, now: float) -> None:
        """Count the time of the barrier anew."""
        self._barrier_at = now

    def waits_since(self) -> float | None:
        """When the barrier was sent that is not answered (monotonic); None where there is none."""
        return self._barrier_at if self._batch else None

    def record(self, now: float) -> int:
        """Write down what the broker has, and what nobody may have heard; returns how many the former are."""
        rows = self._delivered
        if self._trouble.rests(now):
            return 0
        if rows and not self._trouble.attempt(lambda: self._outbox.acknowledge(rows), now):
            return 0
        self._delivered = []
        if self._unheard_since_ms is not None and self._trouble.attempt(self._send_again, now):
            self._unheard_since_ms = None
            self.more = True
        return len(rows)

    def unheard_since(self, since_ms: int) -> None:
        """Note that nobody may have heard what was handed over since then (Unix milliseconds): it is sent again."""
        self._unheard_since_ms = since_ms

    def _send_again(self) -> None:
        number = self._outbox.send_again_since(self._unheard_since_ms or 0)
        if number:
            log.info("%d messages of the last minutes are sent again", number)

    def next_due(self, now: float) -> float | None:
        """When the outbox is asked again after it raised (monotonic); None when it may be asked now."""
        return self._trouble.next_due(now)
