"""What is forgotten, and when: heatmaps first, then rows. No strip that the broker has not acknowledged."""

from __future__ import annotations

import json
import math
import os
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agent.clock import BUILT_MS, AgeClock, look_at_clock
from agent.ledger.schema_scores import HOUR_MS
from agent.messages import COMMAND_EVENT, REVIEW_EVENT, shadow_event_topic
from agent.records import FileIdentity, Strip

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from agent.ledger.database import Database

KEEP_CLOCK_MS = 600_000
COMMANDS_KEPT = 10_000
_AWAY = "away:"  # and a camera: key in `meta`
_FORGETTABLE = """s.state IN ('ok', 'anomalous', 'invalid') AND s.disposal NOT IN ('after_ack', 'due', 'going', 'stays')
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
    mtime_ns: int  # of the file when it was judged, cut to milliseconds
    strip_id: str
    revision: int
    committed_ms: int
    size_bytes: int


class Purge:
    """The forgetting part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._clock: AgeClock | None = None
        self._clock_kept: AgeClock | None = None
        self._looked_at = 0.0  # monotonic seconds

    @property
    def clock_in_doubt(self) -> bool:
        """Whether the wall clock has jumped far ahead and that is not confirmed yet: nothing becomes old by it."""
        clock = self._clock
        return clock is not None and clock.in_doubt

    def age_now(self, wall_ms: int, monotonic_seconds: float) -> int:
        """Return what the rules that remove by age take for now, Unix milliseconds; 0: nothing is old.

        See `clock.AgeClock`; it is kept in the ledger, so that a restart confirms nothing.
        """
        with self._lock:
            if self._clock is None:
                before, elapsed_ms = self._kept_clock(), None
            else:
                before, elapsed_ms = self._clock, max(0, int((monotonic_seconds - self._looked_at) * 1000))
            clock = look_at_clock(before, wall_ms, elapsed_ms)
            kept = self._clock_kept
            if kept is None or kept.in_doubt != clock.in_doubt or abs(clock.age_ms - kept.age_ms) >= KEEP_CLOCK_MS:
                with self._database.transaction() as db:
                    db.execute("INSERT OR REPLACE INTO meta VALUES ('age_clock', ?)", (json.dumps(asdict(clock)),))
                self._clock_kept = clock
            self._clock, self._looked_at = clock, monotonic_seconds
            return 0 if wall_ms < BUILT_MS else clock.age_ms

    def _kept_clock(self) -> AgeClock | None:
        with self._database.reading() as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'age_clock'").fetchone()
            if row is not None:
                return AgeClock(**json.loads(row[0]))
            newest = db.execute("SELECT committed_ms FROM results ORDER BY seq DESC LIMIT 1").fetchone()
            return AgeClock(newest[0], newest[0]) if newest is not None else None

    def heatmap_bytes(self) -> int:
        """Return the size of all heatmaps that are kept, in bytes."""
        with self._database.reading() as db:
            total = db.execute("SELECT n FROM counters WHERE kind = 'heatmap_bytes'").fetchone()
            return int(total[0]) if total else 0

    def oldest_heatmaps(self, limit: int) -> list[SavedHeatmap]:
        """Return the oldest heatmaps whose results the broker has, or will never get: oldest first."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT r.seq, s.camera, s.path, r.captured_ts_ms * 1000000, s.strip_id, r.revision, r.committed_ms, "
                "r.heatmap_bytes "
                "FROM results AS r INDEXED BY results_heatmaps JOIN strips AS s ON s.id = r.strip "
                "WHERE r.heatmap_bytes > 0 AND r.delivery_ended = 1 ORDER BY r.committed_ms LIMIT ?",
                (limit,),
            )
            return [SavedHeatmap(row[0], row[1], os.fsdecode(row[2]), *row[3:]) for row in rows]

    def oldest_heatmap_ms(self) -> float:
        """Return when the oldest of them was committed, in Unix milliseconds; infinite when there is none."""
        with self._database.reading() as db:
            row = db.execute(
                "SELECT committed_ms FROM results INDEXED BY results_heatmaps "
                "WHERE heatmap_bytes > 0 AND delivery_ended = 1 ORDER BY committed_ms LIMIT 1"
            ).fetchone()
            return float(row[0]) if row else math.inf

    def heatmaps_removed(self, seqs: Sequence[int]) -> None:
        """Record that the heatmaps of these results are gone."""
        with self._database.transaction() as db:
            db.executemany("UPDATE results SET heatmap_bytes = 0 WHERE seq = ?", [(seq,) for seq in seqs])

    def cameras_away(self, configured: Collection[str], now_ms: int) -> dict[str, int]:
        """Return the cameras that have strips and are not configured, each with since when that is known (Unix ms).

        Kept in the ledger, so that restarts do not begin it anew; what is configured again is forgotten.
        """
        with self._database.reading() as db:
            known = {name for (name,) in db.execute("SELECT name FROM counters WHERE kind = 'seen'")}
            rows = db.execute("SELECT key, value FROM meta WHERE key GLOB ?", (f"{_AWAY}*",)).fetchall()
        noted = {key.removeprefix(_AWAY): int(value) for key, value in rows}
        away = {name: noted.get(name, now_ms) for name in sorted(known.difference(configured))}
        if away != noted:
            with self._database.transaction() as db:
                db.execute("DELETE FROM meta WHERE key GLOB ?", (f"{_AWAY}*",))
                db.executemany(
                    "INSERT INTO meta VALUES (?, ?)", [(_AWAY + name, str(since)) for name, since in away.items()]
                )
        return away

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
                for which in ("revision < (SELECT revision FROM strips WHERE id = strip)", "true"):  # the newest last
                    db.execute(f"DELETE FROM results WHERE strip = ? AND {which}", (row,))  # noqa: S608 - constants
                db.execute("DELETE FROM strips WHERE id = ?", (row,))

    def forget_events(self, queued_before_ms: int) -> None:
        """Forget messages that are no results and wait for nobody, commands that have ended, and scores by the hour."""
        with self._database.transaction() as db:
            db.execute(
                "DELETE FROM outbox WHERE seq IS NULL AND state <> 'pending' AND queued_ms < ?", (queued_before_ms,)
            )
            db.execute("DELETE FROM score_hours WHERE hour < ?", (queued_before_ms // HOUR_MS,))
            db.execute("DELETE FROM commands WHERE ended_ms > 0 AND begun_ms < ?", (queued_before_ms,))
            # Whoever may give commands must not be able to fill the disk with them.
            newest = db.execute("SELECT max(id) FROM commands").fetchone()[0] or 0
            db.execute("DELETE FROM commands WHERE ended_ms > 0 AND id <= ?", (newest - COMMANDS_KEPT,))
            db.executemany(
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE seq IS NULL AND state <> 'pending' "
                "AND topic GLOB ? ORDER BY queued_ms DESC LIMIT -1 OFFSET ?)",
                [(topic, COMMANDS_KEPT) for topic in (COMMAND_EVENT, REVIEW_EVENT, shadow_event_topic("*"))],
            )
