"""The alarms that subscribers have been told of: what was raised and is not cleared, over restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.ledger.outbox import next_number, queue_event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.ledger.database import Database


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm that is raised; `name` is its name in `state/health`, `since_ms` Unix milliseconds."""

    name: str
    code: str
    source: str
    priority: str
    text: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """An alarm was raised (`raised`) or cleared, at `ts_ms` (Unix milliseconds)."""

    alarm: AlarmRow
    raised: bool
    ts_ms: int


class Alarms:
    """The alarms' part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def raised(self) -> list[AlarmRow]:
        """Return those that were told of and are not cleared."""
        with self._database.reading() as db:
            return [AlarmRow(*row) for row in db.execute("SELECT * FROM alarms ORDER BY since_ms, name")]

    def tell(
        self,
        changes: Sequence[AlarmChange],
        topic: str,
        payload: Callable[[AlarmChange, str], bytes],
        max_messages: int,
    ) -> None:
        """Write what changed and queue the events that `payload(change, msg_id)` makes of it, in one transaction."""
        with self._database.transaction() as db:
            for change in changes:
                alarm = change.alarm
                if change.raised:
                    values = (alarm.name, alarm.code, alarm.source, alarm.priority, alarm.text, alarm.since_ms)
                    db.execute("INSERT OR REPLACE INTO alarms VALUES (?, ?, ?, ?, ?, ?)", values)
                else:
                    db.execute("DELETE FROM alarms WHERE name = ?", (alarm.name,))
                msg_id = f"{self._database.stream}-a{next_number(db, 'alarm_event')}"
                queue_event(db, topic, payload(change, msg_id), max_messages, now_ms())
