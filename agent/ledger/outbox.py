"""Messages that the broker has not acknowledged, oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.records import OutboxMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.ledger.database import Database


class Outbox:
    """The outbox's part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_outbox_messages(self, after_row: int, limit: int) -> list[OutboxMessage]:
        """Return pending messages behind `after_row`, oldest first."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT id, topic, payload FROM outbox WHERE state = 'pending' AND id > ? ORDER BY id LIMIT ?",
                (after_row, limit),
            )
            return [OutboxMessage(*row) for row in rows]

    def acknowledge(self, rows: Sequence[int]) -> None:
        """Record that the broker has these: their strips reach their final state, in one transaction."""
        ts_ms = now_ms()
        with self._database.transaction() as db:
            for row in rows:
                ended = db.execute(
                    "UPDATE outbox SET state = 'acknowledged', ended_ms = ? WHERE id = ? AND state <> 'acknowledged' "
                    "RETURNING seq",
                    (ts_ms, row),
                ).fetchone()
                if ended is None or ended[0] is None:
                    continue
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

    def park(self, row: int, reason: str) -> None:
        """Set a message aside that no broker will take; it stays counted as pending and is named in the audit."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE outbox SET state = 'parked', ended_ms = ?, note = ? WHERE id = ?", (now_ms(), reason, row)
            )

    def newest_payloads(self, cameras: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Return for each camera (captured_ts_ms, payload) of the newest picture's result, for `state/last_strip`."""
        newest = {}
        with self._database.reading() as db:
            for camera in cameras:
                row = db.execute(
                    "SELECT r.captured_ts_ms, o.payload FROM results AS r INDEXED BY results_newest "
                    "JOIN outbox AS o ON o.seq = r.seq WHERE r.camera = ? "
                    "ORDER BY r.captured_ts_ms DESC, r.seq DESC LIMIT 1",
                    (camera,),
                ).fetchone()
                if row is not None:
                    newest[camera] = (row[0], row[1])
        return newest
