"""Messages that the broker has not acknowledged, oldest first.

They leave the box in one or two ways (`mqtt.payload`), each at its own pace. A message is acknowledged when the last of
them has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agent.clock import now_ms
from agent.ledger.replays import ask_again, done, next_replays
from agent.ledger.tallies import count_acknowledged
from agent.records import OutboxMessage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from agent.ledger.database import Database

Way = Literal["json", "sparkplug"]
DROPPED_AT_ONCE = 1000
LOOKED_AT_AGAIN = 1000  # messages, the newest


class Outbox:
    """The outbox's part of the ledger, as one way sees it."""

    def __init__(self, database: Database, way: Way = "json", ways: Sequence[Way] = ("json",)) -> None:
        """`ways` are all that are configured, `way` the one that this is for."""
        self._database = database
        self._way: Way = way
        self._ways = ways

    def seen_by(self, way: Way, ways: Sequence[Way]) -> Outbox:
        """Return the same outbox for one of several ways."""
        return Outbox(self._database, way, ways)

    def settle(self) -> None:
        """Acknowledge what every way has that is configured now; there may have been more."""
        had = " AND ".join(f"{way}_ms > 0" for way in self._ways)
        with self._database.transaction() as db:
            rows = db.execute(f"SELECT id FROM outbox WHERE state = 'pending' AND {had}").fetchall()  # noqa: S608 - names of columns
            for (row,) in rows:
                _acknowledge(db, row, now_ms())
            db.execute(f"DELETE FROM replays WHERE {had}")  # noqa: S608 - names of columns

    def last_row(self) -> int:
        """Return the row of the newest message, 0 where there is none."""
        with self._database.reading() as db:
            return int(db.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()[0])

    def next_outbox_messages(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """Return messages behind `after_row` that wait for this way, oldest first."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT id, topic, payload FROM outbox INDEXED BY outbox_for_{self._way} "  # noqa: S608 - a name
                f"WHERE state = 'pending' AND {self._way}_ms = 0 AND id > ? ORDER BY id LIMIT ?",
                (after_row, limit),
            )
            return [OutboxMessage(*row) for row in rows]

    def next_replays(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """Return what somebody asked for again behind `after_row`, in order; rows are below zero and count down."""
        with self._database.reading() as db:
            return next_replays(db, self._way, -after_row, limit)

    def acknowledge(self, rows: Sequence[int]) -> None:
        """Record that the broker has these, this way; strips that every way has told of reach their final state.

        One transaction.
        """
        ts_ms = now_ms()
        columns = ", ".join(f"{way}_ms" for way in self._ways)
        with self._database.transaction() as db:
            done(db, self._way, self._ways, [-row for row in rows if row < 0], ts_ms)
            for row in rows:
                had = db.execute(
                    f"UPDATE outbox SET {self._way}_ms = ? WHERE id = ? RETURNING {columns}",  # noqa: S608 - names
                    (ts_ms, row),
                ).fetchone()
                if had is not None and all(had):
                    _acknowledge(db, row, ts_ms)

    def send_again_since(self, since_ms: int) -> int:
        """Let this way send again what it has handed over since then (Unix milliseconds), of the newest messages.

        Results that are acknowledged go as replays. Returns how many there are.
        """
        column = f"{self._way}_ms"
        with self._database.transaction() as db:
            newest = db.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()[0]
            found = db.execute(
                f"SELECT id, seq, state FROM outbox WHERE id > ? AND {column} >= ? ORDER BY id",  # noqa: S608 - a name
                (newest - LOOKED_AT_AGAIN, since_ms),
            ).fetchall()
            waiting = [(row,) for row, _, state in found if state == "pending"]
            db.executemany(f"UPDATE outbox SET {column} = 0 WHERE id = ?", waiting)  # noqa: S608 - a name
            again = [seq for _, seq, state in found if state == "acknowledged" and seq is not None]
            ask_again(db, self._way, [way for way in self._ways if way != self._way], again, now_ms())
            return len(waiting) + len(again)

    def park(self, row: int, reason: str) -> None:
        """Set a message aside that no broker will take; it stays counted as pending and is named in the audit."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM replays WHERE id = ?", (-row,))
            db.execute(
                "UPDATE outbox SET state = 'parked', ended_ms = ?, note = ? WHERE id = ?", (now_ms(), reason, row)
            )

    def newest_payloads(self, cameras: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Return for each camera (captured_ts_ms, payload) of the result committed last, for `state/last_strip`."""
        newest = {}
        with self._database.reading() as db:
            for camera in cameras:
                row = db.execute(
                    "SELECT r.captured_ts_ms, o.payload FROM results AS r JOIN outbox AS o ON o.seq = r.seq "
                    "WHERE r.seq = (SELECT max(seq) FROM results INDEXED BY results_camera WHERE camera = ?)",
                    (camera,),
                ).fetchone()
                if row is not None:
                    newest[camera] = (row[0], row[1])
        return newest


def _acknowledge(db: sqlite3.Connection, row: int, ts_ms: int) -> None:
    ended = db.execute(
        "UPDATE outbox SET state = 'acknowledged', ended_ms = ? WHERE id = ? AND state <> 'acknowledged' RETURNING seq",
        (ts_ms, row),
    ).fetchone()
    if ended is None or ended[0] is None:
        return
    db.execute(
        "UPDATE strips SET state = result.verdict, "
        "disposal = CASE disposal WHEN 'after_ack' THEN 'due' ELSE disposal END "
        "FROM (SELECT strip, revision, verdict FROM results WHERE seq = ?) AS result "
        "WHERE strips.id = result.strip AND strips.revision = result.revision "
        "AND state IN ('judged', 'dropped')",
        ended,
    )
    db.execute(  # a retry that has arrived makes good what was never delivered before it
        "UPDATE outbox SET state = 'superseded' WHERE state IN ('parked', 'dropped') AND seq IN "
        "(SELECT old.seq FROM results AS old JOIN results AS new ON old.strip = new.strip "
        "AND old.revision < new.revision WHERE new.seq = ?)",
        ended,
    )
    count_acknowledged(db, ended[0], ts_ms)


def next_number(db: sqlite3.Connection, kind: str) -> int:
    """Count on, in the caller's transaction: the first number of a kind is 1, and none is ever left out."""
    db.execute("INSERT INTO counters VALUES (?, '', '', 1) ON CONFLICT DO UPDATE SET n = n + 1", (kind,))
    return int(db.execute("SELECT n FROM counters WHERE kind = ? AND name = '' AND state = ''", (kind,)).fetchone()[0])


def queue_event(db: sqlite3.Connection, topic: str, payload: bytes, max_messages: int, ts_ms: int) -> None:
    """Queue what is no result, in the caller's transaction. It may cost older events, never a result."""
    db.execute("INSERT INTO outbox (topic, payload, queued_ms) VALUES (?, ?, ?)", (topic, payload, ts_ms))
    drop_oldest(db, "seq IS NULL", max_messages, ts_ms)


def drop_oldest(db: sqlite3.Connection, which: str, max_messages: int, ts_ms: int) -> None:
    """Drop the oldest pending messages above the limit, of results or of what is none; strips are named as dropped.

    Only so many at once: after the limit was lowered, a commit must not take minutes.
    """
    counted = db.execute("SELECT n FROM counters WHERE kind = 'outbox' AND state = 'pending'").fetchone()
    pending = counted[0] if counted else 0
    if pending <= max_messages:
        return
    query = "SELECT count(*) FROM outbox INDEXED BY outbox_pending_events WHERE state = 'pending' AND seq IS NULL"
    events = db.execute(query).fetchone()[0]
    excess = min((events if which == "seq IS NULL" else pending - events) - max_messages, DROPPED_AT_ONCE)
    if excess <= 0:
        return
    query = f"SELECT id, seq FROM outbox WHERE state = 'pending' AND {which} ORDER BY id LIMIT ?"  # noqa: S608 - a constant
    for row, seq in db.execute(query, (excess,)).fetchall():
        db.execute("UPDATE outbox SET state = 'dropped', ended_ms = ? WHERE id = ?", (ts_ms, row))
        db.execute(
            "UPDATE strips SET state = 'dropped' WHERE state = 'judged' AND (id, revision) = "
            "(SELECT strip, revision FROM results WHERE seq = ?)",
            (seq,),
        )
