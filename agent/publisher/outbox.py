"""What both ways out need of the outbox, and that it may fail."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.records import OutboxMessage

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


class Outbox(Protocol):
    """What is needed of the ledger. Any of it may raise (disk full, locked, damaged) and is tried again."""

    def next_outbox_messages(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """Return up to `limit` pending messages with a row above `after_row`, oldest first."""

    def next_replays(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """Return up to `limit` messages that were asked for again; their rows are below zero and count down."""

    def acknowledge(self, rows: Sequence[int]) -> None:
        """Record that the broker has these, in one transaction."""

    def park(self, row: int, reason: str) -> None:
        """Set a message aside that no broker will take."""


class Trouble:
    """An outbox that raised is asked again a little later each time. Times are `now`, monotonic seconds."""

    def __init__(self) -> None:
        self._pause_seconds = 0.0
        self._until = 0.0

    @property
    def lasts(self) -> bool:
        """The outbox raised the last time it was asked."""
        return self._pause_seconds > 0

    def rests(self, now: float) -> bool:
        """Whether the outbox is left alone for now."""
        return now < self._until

    def next_due(self, now: float) -> float | None:
        """When the outbox is asked again after it raised; None when it may be asked now."""
        return self._until if self.rests(now) else None

    def attempt(self, action: Callable[[], object], now: float) -> bool:
        """Do it; False, and a line in the log, where it raised: results must go on leaving the box whatever it is."""
        try:
            action()
        except Exception:
            self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds))
            self._until = now + self._pause_seconds
            log.exception("The outbox does not work; asking it again in %.1f s", self._pause_seconds)
            return False
        self._pause_seconds = 0.0
        return True
