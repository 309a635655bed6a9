"""An outbox in memory with a switch for failing, for tests that are not about the ledger."""

from __future__ import annotations

import sqlite3
import threading
from itertools import islice
from typing import TYPE_CHECKING

from agent.records import OutboxMessage

if TYPE_CHECKING:
    from collections.abc import Sequence


class ListOutbox:
    """Keeps what the ledger keeps: each row is pending, acknowledged or parked."""

    def __init__(self) -> None:
        self.broken = False
        self.pending: dict[int, OutboxMessage] = {}
        self.acknowledged: list[int] = []
        self.parked: dict[int, str] = {}
        self.transactions = 0
        self._rows = 0
        self.replays: dict[int, OutboxMessage] = {}
        self._replay_rows = 0
        self._lock = threading.Lock()

    def add(self, topic: str, payload: bytes) -> int:
        """Queue a message; returns its row."""
        with self._lock:
            self._rows += 1
            self.pending[self._rows] = OutboxMessage(self._rows, topic, payload)
            return self._rows

    def next_outbox_messages(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """As the ledger does."""
        self._maybe_fail()
        with self._lock:
            return list(islice((message for row, message in self.pending.items() if row > after_row), limit))

    def next_replays(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """As the ledger does: of what was asked for again, whose rows count down from -1."""
        self._maybe_fail()
        with self._lock:
            return list(islice((message for row, message in self.replays.items() if row < after_row), limit))

    def ask_again(self, topic: str, payload: bytes) -> int:
        """Queue something behind all else; returns its row."""
        with self._lock:
            self._replay_rows += 1
            self.replays[-self._replay_rows] = OutboxMessage(-self._replay_rows, topic, payload)
            return -self._replay_rows

    def acknowledge(self, rows: Sequence[int]) -> None:
        """As the ledger does."""
        self._maybe_fail()
        with self._lock:
            self.transactions += 1
            for row in rows:
                del (self.pending if row > 0 else self.replays)[row]
                self.acknowledged.append(row)

    def park(self, row: int, reason: str) -> None:
        """As the ledger does."""
        self._maybe_fail()
        with self._lock:
            del (self.pending if row > 0 else self.replays)[row]
            self.parked[row] = reason

    def _maybe_fail(self) -> None:
        if self.broken:
            raise sqlite3.OperationalError("database or disk is full")
