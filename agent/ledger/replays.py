"""Results that somebody asked for again: they are sent from their stored bytes, behind everything that waits.

In the publisher's hands their rows are below zero, so that no row of the outbox is ever taken for one of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.ledger.database import last_seq
from agent.ledger.salvage import MOVED_BY
from agent.records import OutboxMessage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from agent.ledger.database import Database

MAX_REPLAYS = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a request. Ranges are pairs of numbers, both included."""

    queued: int
    waiting: int  # of the outbox: they arrive by themselves
    purged: list[tuple[int, int]]  # numbers that the ledger has given and does not hold any more
    last_seq: int  # of the stream, as far as it is known: what is above it has not been given yet


class Replays:
    """The replays' part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, stream: str, from_seq: int, to_seq: int) -> Asked:
        """Queue the results of a stream with these numbers, at most MAX_REPLAYS; those that wait already stay once.

        `stream` may be an earlier one, of a ledger that was damaged and whose rows were brought over.
        """
        rows: dict[int, tuple[int, str]] = {}  # number -> row of the result, state of its message
        last = to_seq
        with self._database.transaction() as db:
            if stream == self._database.stream:
                last = last_seq(db)
                rows = _found(db, from_seq, to_seq, 0)
            else:
                for moved in _moves(db):
                    rows |= _of_stream(db, _found(db, from_seq, to_seq, moved), stream)
            wanted = [(row,) for _, (row, state) in sorted(rows.items()) if state != "pending"]
            db.executemany(
                "INSERT INTO replays (seq) VALUES (?) ON CONFLICT DO UPDATE SET json_ms = 0, sparkplug_ms = 0", wanted
            )
        purged = _ranges(number for number in range(from_seq, min(to_seq, last) + 1) if number not in rows)
        return Asked(len(wanted), len(rows) - len(wanted), purged, last)

    def waiting(self) -> int:
        """Count those that wait."""
        with self._database.reading() as db:
            return int(db.execute("SELECT count(*) FROM replays").fetchone()[0])


def ask_again(db: sqlite3.Connection, way: str, others: Iterable[str], seqs: Iterable[int], ts_ms: int) -> None:
    """Queue results for one way alone, in the caller's transaction."""
    columns = ["seq", *(f"{other}_ms" for other in others)]
    marks = ", ".join(["?"] + ["?"] * (len(columns) - 1))
    db.executemany(
        f"INSERT INTO replays ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO UPDATE SET {way}_ms = 0",  # noqa: S608 - names of columns
        [(seq, *[ts_ms] * (len(columns) - 1)) for seq in seqs],
    )


def done(db: sqlite3.Connection, way: str, ways: Iterable[str], replays: Iterable[int], ts_ms: int) -> None:
    """Record that one way has sent these, in the caller's transaction; what every way has sent is done with."""
    had = " AND ".join(f"{each}_ms > 0" for each in ways)
    for replay in replays:
        db.execute(f"UPDATE replays SET {way}_ms = ? WHERE id = ?", (ts_ms, replay))  # noqa: S608 - names of columns
        db.execute(f"DELETE FROM replays WHERE id = ? AND {had}", (replay,))  # noqa: S608 - names of columns


def next_replays(db: sqlite3.Connection, way: str, after: int, limit: int) -> list[OutboxMessage]:
    """Return what waits for this way behind the replay `after`, with rows below zero."""
    rows = db.execute(
        "SELECT -p.id, r.camera, o.payload FROM replays AS p JOIN results AS r ON r.seq = p.seq "  # noqa: S608 - a name
        f"JOIN outbox AS o ON o.seq = p.seq WHERE p.{way}_ms = 0 AND p.id > ? ORDER BY p.id LIMIT ?",
        (after, limit),
    )
    # Within a text of JSON the quotes would be escaped: this can only be the key.
    return [
        OutboxMessage(row, f"replay/strip/{camera}", payload.replace(b'"replayed":false', b'"replayed":true', 1))
        for row, camera, payload in rows
    ]


def _found(db: sqlite3.Connection, from_seq: int, to_seq: int, moved: int) -> dict[int, tuple[int, str]]:
    rows = db.execute(
        "SELECT r.seq, o.state FROM results AS r JOIN outbox AS o ON o.seq = r.seq WHERE r.seq BETWEEN ? AND ?",
        (from_seq - moved, to_seq - moved),
    )
    return {seq + moved: (seq, state) for seq, state in rows}


def _moves(db: sqlite3.Connection) -> Iterator[int]:
    """Return by how much the numbers of earlier streams may have been moved below zero: once for each damage."""
    lowest = db.execute("SELECT min(seq) FROM results").fetchone()[0] or 0
    return iter(range(MOVED_BY, -lowest + MOVED_BY, MOVED_BY))


def _of_stream(db: sqlite3.Connection, rows: dict[int, tuple[int, str]], stream: str) -> dict[int, tuple[int, str]]:
    kept = {}
    for number, (row, state) in rows.items():
        payload = db.execute("SELECT payload FROM outbox WHERE seq = ?", (row,)).fetchone()[0]
        if json.loads(payload).get("stream") == stream:
            kept[number] = (row, state)
    return kept


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
