"""What is forgotten, and when: heatmaps first, then rows. No strip that the broker has not acknowledged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.records import FileIdentity, Strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.ledger.database import Database

_FORGETTABLE = """s.state IN ('ok', 'anomalous', 'invalid') AND s.disposal NOT IN ('after_ack', 'due')
    AND NOT EXISTS (SELECT 1 FROM results AS r JOIN outbox AS o ON o.seq = r.seq
                    WHERE r.strip = s.id AND o.state IN ('pending', 'parked'))
    AND NOT EXISTS (SELECT 1 FROM results AS r WHERE r.strip = s.id AND r.heatmap_bytes > 0)"""
# A row that still has heatmaps stays: nobody else knows their names, so without it they would lie there for ever.


@dataclass(frozen=True, slots=True)
class SavedHeatmap:
    """The heatmaps of one acknowledged result; with the strip's columns they name its files."""

    seq: int
    camera: str
    path: str
    mtime_ns: int
    strip_id: str
    revision: int
    committed_ms: int
    size_bytes: int


class Purge:
    """The forgetting part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def heatmap_bytes(self) -> int:
        """Return the size of all heatmaps that are kept, in bytes."""
        with self._database.reading() as db:
            total = db.execute("SELECT n FROM counters WHERE kind = 'heatmap_bytes'").fetchone()
            return int(total[0]) if total else 0

    def oldest_heatmaps(self, limit: int) -> list[SavedHeatmap]:
        """Return the oldest heatmaps whose results the broker has, or will never get: oldest first."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT r.seq, s.camera, s.path, s.mtime_ns, s.strip_id, r.revision, r.committed_ms, r.heatmap_bytes "
                "FROM results AS r INDEXED BY results_heatmaps JOIN strips AS s ON s.id = r.strip "
                "WHERE r.heatmap_bytes > 0 AND r.delivery_ended = 1 ORDER BY r.committed_ms LIMIT ?",
                (limit,),
            )
            return [SavedHeatmap(row[0], row[1], os.fsdecode(row[2]), *row[3:]) for row in rows]

    def heatmaps_removed(self, seqs: Sequence[int]) -> None:
        """Record that the heatmaps of these results are gone."""
        with self._database.transaction() as db:
            db.executemany("UPDATE results SET heatmap_bytes = 0 WHERE seq = ?", [(seq,) for seq in seqs])

    def old_strips(self, camera: str, seen_before_ms: int, after_row: int, limit: int) -> list[Strip]:
        """Return a camera's acknowledged strips begun before then; whether their files exist is for the caller."""
        with self._database.snapshot() as db:
            rows = db.execute(
                "SELECT id, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, attempts, revision, seen_ms "  # noqa: S608 - a constant
                f"FROM strips AS s WHERE camera = ? AND id > ? AND seen_ms < ? AND {_FORGETTABLE} ORDER BY id LIMIT ?",
                (camera, after_row, seen_before_ms, limit),
            )
            return [
                Strip(row[0], row[1], row[2], os.fsdecode(row[3]), FileIdentity(*row[4:7]), *row[7:]) for row in rows
            ]

    def forget(self, rows: Sequence[int]) -> None:
        """Forget acknowledged strips, their results and messages; daily totals stay, so that the audit still balances.

        What has become something else meanwhile, by a retry, stays.
        """
        with self._database.transaction() as db:
            for row in rows:
                if db.execute(f"SELECT 1 FROM strips AS s WHERE id = ? AND {_FORGETTABLE}", (row,)).fetchone() is None:  # noqa: S608 - a constant
                    continue
                db.execute("DELETE FROM outbox WHERE seq IN (SELECT seq FROM results WHERE strip = ?)", (row,))
                db.execute("DELETE FROM results WHERE strip = ?", (row,))
                db.execute("DELETE FROM strips WHERE id = ?", (row,))

    def forget_events(self, queued_before_ms: int) -> None:
        """Forget messages that are no strip results and wait for nobody: acknowledged, parked or dropped."""
        with self._database.transaction() as db:
            db.execute(
                "DELETE FROM outbox WHERE seq IS NULL AND state <> 'pending' AND queued_ms < ?", (queued_before_ms,)
            )
