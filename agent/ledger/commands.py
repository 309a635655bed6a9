"""Commands that changed something: who asked, what became of it, and the event that tells of it.

A command is written down before it is carried out. What was begun and never ended shows after a kill, so that nothing
is ever done twice because of a repeated request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.ledger.outbox import next_number, queue_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.ledger.database import Database

_COLUMNS = "id, way, sender, request, fingerprint, command, arguments, begun_ms, ended_ms, error, detail, count, result"


@dataclass(frozen=True, slots=True)
class NewCommand:
    """What was asked. `request` is the sender's id of it, "" where it has none; `arguments` are JSON in text."""

    way: str  # mqtt | sparkplug | command_line
    sender: str
    request: str
    fingerprint: str  # of command and arguments, to tell a repeat from another command with the same id
    command: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of it. `error` is a code, "" when it was done; `result` is JSON in text."""

    error: str
    detail: str
    count: int
    result: str


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command that was written down. `ended_ms` is 0 for one that was begun and has not ended."""

    row: int
    asked: NewCommand
    begun_ms: int
    ended_ms: int
    ending: Ending


class Commands:
    """The commands' part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, asked: NewCommand, results_kept_ms: int) -> int:
        """Write down that this is about to be done; return its row. Results older than that are forgotten.

        Raises Retry where the ledger cannot: then it must not be done.
        """
        now = now_ms()
        with self._database.transaction() as db:
            db.execute("UPDATE commands SET result = '' WHERE result <> '' AND ended_ms < ?", (now - results_kept_ms,))
            values = (asked.way, asked.sender, asked.request, asked.fingerprint, asked.command, asked.arguments, now)
            done = db.execute(
                "INSERT INTO commands (way, sender, request, fingerprint, command, arguments, begun_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            return int(done.lastrowid or 0)

    def end(
        self,
        row: int,
        ending: Ending,
        topic: str,
        payload: Callable[[CommandRow, str], bytes],
        max_messages: int,
    ) -> None:
        """Write down what became of it and queue the event that `payload(row, msg_id)` makes, in one transaction."""
        with self._database.transaction() as db:
            values = (now_ms(), ending.error, ending.detail, ending.count, ending.result, row)
            db.execute(
                "UPDATE commands SET ended_ms = ?, error = ?, detail = ?, count = ?, result = ? WHERE id = ?", values
            )
            found = _found(db.execute(f"SELECT {_COLUMNS} FROM commands WHERE id = ?", (row,)).fetchall())  # noqa: S608 - a constant
            msg_id = f"{self._database.stream}-c{next_number(db, 'command_event')}"
            queue_event(db, topic, payload(found[0], msg_id), max_messages, now_ms())

    def show(self, row: int) -> CommandRow | None:
        """Return what is known of a command; None when it has been forgotten."""
        with self._database.reading() as db:
            found = _found(db.execute(f"SELECT {_COLUMNS} FROM commands WHERE id = ?", (row,)).fetchall())  # noqa: S608 - a constant
            return found[0] if found else None

    def asked_since(self, begun_ms: int, limit: int) -> list[CommandRow]:
        """Return the newest commands with an id that were begun since then, the oldest first."""
        with self._database.reading() as db:
            query = f"SELECT {_COLUMNS} FROM commands WHERE request <> '' AND begun_ms > ? ORDER BY id DESC LIMIT ?"  # noqa: S608 - a constant
            return _found(db.execute(query, (begun_ms, limit)).fetchall())[::-1]

    def unfinished(self) -> list[CommandRow]:
        """Return what was begun and has not ended."""
        with self._database.reading() as db:
            return _found(db.execute(f"SELECT {_COLUMNS} FROM commands WHERE ended_ms = 0 ORDER BY id").fetchall())  # noqa: S608 - a constant


def _found(rows: list[tuple]) -> list[CommandRow]:  # type: ignore[type-arg] # as SQLite gives them
    return [CommandRow(row[0], NewCommand(*row[1:7]), row[7], row[8], Ending(*row[9:13])) for row in rows]
