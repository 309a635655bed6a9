"""The outbox of a simulated box: in memory, as nothing of it has to outlive the simulation."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from agent.messages import strip_event_topic
from agent.records import OutboxMessage

if TYPE_CHECKING:
    from collections.abc import Sequence


_RESULTS = strip_event_topic("")


class MemoryOutbox:
    """What the publisher asks the ledger for. Used by one thread."""

    def __init__(self) -> None:
        self._pending: dict[int, OutboxMessage] = {}  # oldest first
        self._rows = 0
        self.results_acknowledged = 0
        self.parked: list[str] = []  # why, of each message that no broker takes

    def __len__(self) -> int:
        """Count what waits."""
        return len(self._pending)

    def add(self, topic: str, payload: bytes) -> None:
        """Queue a message."""
        self._rows += 1
        self._pending[self._rows] = OutboxMessage(self._rows, topic, payload)

    def next_outbox_messages(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """Return up to `limit` messages with a row above `after_row`, oldest first."""
        return list(islice((message for row, message in self._pending.items() if row > after_row), limit))

    def next_replays(self, after_row: int, limit: int) -> list[OutboxMessage]:  # noqa: ARG002 - the publisher's protocol
        """Return nothing: a simulated box has no ledger to send anything again from."""
        return []

    def acknowledge(self, rows: Sequence[int]) -> None:
        """Forget what the broker has."""
        for row in rows:
            self.results_acknowledged += self._pending.pop(row).topic.startswith(_RESULTS)

    def park(self, row: int, reason: str) -> None:
        """Set a message aside that no broker takes."""
        del self._pending[row]
        self.parked.append(reason)
