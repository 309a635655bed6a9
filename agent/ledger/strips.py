"""Strips and their results: begin, next, commit, put back, retry."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.records import FileIdentity, SettledFile, Strip, make_strip_id

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

    from agent.ledger.database import Database

LIVE, BACKLOG = 0, 1
DROPPED_AT_ONCE = 1000
_STRIP = "id, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, attempts, revision, seen_ms, half_written"
_SAME_FILE = "camera = ? AND path = ? AND size_bytes = ? AND mtime_ns = ?"


@dataclass(frozen=True, slots=True)
class NewResult:
    """What the journey hands over to be committed; `topic` and the payload's builder make the message."""

    verdict: str  # ok | anomalous | invalid
    reason: str
    score: float
    model_sha256: str
    heatmap_bytes: int
    digest: str
    topic: str
    dispose: bool  # the camera's file is to be moved or removed once acknowledged


class Strips:
    """The strips' and results' part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- begin ---------------------------------------------------------------------------------------------------------

    def known(self, files: Sequence[SettledFile]) -> set[str]:
        """Return the paths of those files that the ledger already holds in just this state."""
        with self._database.reading() as db:
            return {file.path for file in files if _find_same(db, file)}

    def begin(self, files: Sequence[SettledFile]) -> list[SettledFile]:
        """Account for settled files, in one transaction; from here on each is in exactly one state.

        Return those whose size and mtime the ledger knows but whose ctime differs: their content decides, see
        `begin_by_digest`.
        """
        doubtful = []
        with self._database.transaction() as db:
            for file in files:
                known = _latest_occurrence(db, file)
                if known is None:
                    if not _follow_half_written(db, file):
                        _insert(db, file, occurrence=0)
                elif known["disposal"] == "done":
                    _insert(db, file, occurrence=known["occurrence"] + 1)
                elif known["ctime_ns"] == file.identity.ctime_ns:
                    continue
                elif known["state"] == "waiting":  # whatever the file holds now is what will be read
                    db.execute("UPDATE strips SET ctime_ns = ? WHERE id = ?", (file.identity.ctime_ns, known["id"]))
                else:
                    doubtful.append(file)
        return doubtful

    def begin_by_digest(self, file: SettledFile, digest: str) -> bool:
        """Decide a file with a known size and mtime but another ctime; True when its content makes it a new strip."""
        with self._database.transaction() as db:
            known = _latest_occurrence(db, file)
            if known is not None and known["digest"] == digest:
                db.execute("UPDATE strips SET ctime_ns = ? WHERE id = ?", (file.identity.ctime_ns, known["id"]))
                return False
            _insert(db, file, occurrence=0 if known is None else known["occurrence"] + 1)
            return True

    def camera_was_scanned(self, camera: str) -> bool:
        """Say whether this ledger has ever seen a whole scan of the camera's folder."""
        with self._database.reading() as db:
            return db.execute("SELECT 1 FROM cameras WHERE name = ?", (camera,)).fetchone() is not None

    def record_first_scan(self, camera: str) -> None:
        """Record that the camera's first scan has been begun in full: the backlog rule is done with."""
        with self._database.transaction() as db:
            db.execute("INSERT OR IGNORE INTO cameras VALUES (?, ?)", (camera, now_ms()))

    # -- waiting -------------------------------------------------------------------------------------------------------

    def next_waiting(self, camera: str, lane: int, excluding: Collection[int]) -> Strip | None:
        """Return the camera's oldest waiting strip of that lane, by (mtime, path)."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT {_STRIP} FROM strips WHERE state = 'waiting' AND attempts = 0 AND camera = ? AND lane = ? "  # noqa: S608 - a constant
                "ORDER BY mtime_ns, path LIMIT ?",
                (camera, lane, len(excluding) + 1),
            )
            return next((_strip(row) for row in rows if row[0] not in excluding), None)

    def next_again(self, cameras: Sequence[str], excluding: Collection[int]) -> Strip | None:
        """Return a strip that a worker was lost on, once everything that waited at that time has been served.

        `cameras` are those whose folders can be read. Others, and the rows in `excluding`, keep nobody waiting.
        """
        values = {"cameras": json.dumps(list(cameras)), "excluding": json.dumps(list(excluding))}
        with self._database.reading() as db:
            row = db.execute(
                f"SELECT {_STRIP} FROM strips AS again WHERE state = 'waiting' AND attempts > 0 "  # noqa: S608 - a constant
                "AND camera IN (SELECT value FROM json_each(:cameras)) "
                "AND id NOT IN (SELECT value FROM json_each(:excluding)) "
                "AND NOT EXISTS (SELECT 1 FROM strips AS fresh INDEXED BY strips_oldest_waiting "
                "WHERE fresh.state = 'waiting' AND fresh.attempts = 0 AND fresh.id <= again.requeued_after "
                "AND fresh.camera IN (SELECT value FROM json_each(:cameras)) "
                "AND fresh.id NOT IN (SELECT value FROM json_each(:excluding))) "
                "ORDER BY requeued_after, id LIMIT 1",
                values,
            ).fetchone()
            return None if row is None else _strip(row)

    def put_back(self, row: int, attempts: int) -> None:
        """Put the strip at the end of the queue, with this number of attempts behind it (at least 1)."""
        with self._database.transaction() as db:
            newest = db.execute("SELECT max(id) FROM strips").fetchone()[0]
            db.execute("UPDATE strips SET attempts = ?, requeued_after = ? WHERE id = ?", (attempts, newest, row))

    def mark_half_written(self, row: int) -> None:
        """Note that the strip's file was found incomplete: should the file grow, the strip grows with it."""
        with self._database.transaction() as db:
            db.execute("UPDATE strips SET half_written = 1 WHERE id = ?", (row,))

    # -- commit --------------------------------------------------------------------------------------------------------

    def commit(
        self, strip: Strip, result: NewResult, payload: Callable[[int, int], bytes], max_messages: int
    ) -> int | None:
        """Record the result, its message and its sequence number in one durable transaction; return `seq`.

        `payload(seq, ts_ms)` makes the message's bytes. Above `max_messages` the oldest waiting messages are dropped.
        None when the strip has another file than the one that was judged by now (see `_follow_half_written`): nothing
        is recorded, and it waits to be judged again.
        """
        ts_ms = now_ms()
        with self._database.transaction() as db:
            judged = (strip.row, strip.identity.size_bytes, strip.identity.mtime_ns)
            query = "SELECT 1 FROM strips WHERE state = 'waiting' AND id = ? AND size_bytes = ? AND mtime_ns = ?"
            if db.execute(query, judged).fetchone() is None:
                return None
            db.execute("INSERT INTO counters VALUES ('seq', '', '', 1) ON CONFLICT DO UPDATE SET n = n + 1")
            seq = int(db.execute("SELECT n FROM counters WHERE kind = 'seq'").fetchone()[0])
            db.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (seq, strip.row, strip.camera, strip.revision, ts_ms, strip.identity.mtime_ns // 1_000_000,
                 result.verdict, result.reason, result.score, result.model_sha256, result.heatmap_bytes),
            )  # fmt: skip
            db.execute(
                "UPDATE strips SET state = 'judged', digest = ?, disposal = ? WHERE id = ?",
                (result.digest, "after_ack" if result.dispose else "", strip.row),
            )
            db.execute(
                "INSERT INTO outbox (topic, payload, seq, queued_ms) VALUES (?, ?, ?, ?)",
                (result.topic, payload(seq, ts_ms), seq, ts_ms),
            )
            drop_oldest(db, max_messages, ts_ms)
        return seq

    def retry(self, rows: Sequence[int]) -> dict[int, str]:
        """Give strips that have a result, or were skipped or dropped, back to the queue as new revisions.

        One transaction. Return those that were refused, with the reason.
        """
        with self._database.transaction() as db:
            refused = {row: why for row in rows if (why := _why_not_again(db, row))}
            db.executemany(
                "UPDATE strips SET state = 'waiting', attempts = 0, half_written = 0, lane = ?, disposal = '', "
                "revision = revision + (SELECT count(*) > 0 FROM results WHERE strip = strips.id "
                "AND results.revision = strips.revision) WHERE id = ?",
                [(LIVE, row) for row in dict.fromkeys(rows) if row not in refused],
            )
            return refused

    # -- disposal ------------------------------------------------------------------------------------------------------

    def due_for_disposal(self, camera: str, after_row: int, limit: int) -> list[tuple[Strip, str]]:
        """Return the camera's acknowledged strips whose file is to be moved or removed, each with its digest."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT digest, {_STRIP} FROM strips WHERE disposal = 'due' AND camera = ? AND id > ? "  # noqa: S608 - a constant
                "ORDER BY id LIMIT ?",
                (camera, after_row, limit),
            )
            return [(_strip(row), digest) for digest, *row in rows]

    def keep_files(self, camera: str) -> None:
        """Leave the camera's files where they are, also those that were to be moved or removed before."""
        with self._database.transaction() as db:
            db.execute("UPDATE strips SET disposal = '' WHERE disposal = 'due' AND camera = ?", (camera,))

    def disposed(self, row: int, outcome: str) -> None:
        """Record how the disposal ended: done | gone | replaced."""
        with self._database.transaction() as db:
            db.execute("UPDATE strips SET disposal = ? WHERE id = ?", (outcome, row))


def drop_oldest(db: sqlite3.Connection, max_messages: int, ts_ms: int) -> None:
    """Drop the oldest pending messages above the limit; their strips are named as dropped.

    Only so many at once: after the limit was lowered, a commit must not take minutes.
    """
    pending = db.execute("SELECT n FROM counters WHERE kind = 'outbox' AND state = 'pending'").fetchone()
    excess = min((pending[0] if pending else 0) - max_messages, DROPPED_AT_ONCE)
    if excess <= 0:
        return
    rows = db.execute("SELECT id, seq FROM outbox WHERE state = 'pending' ORDER BY id LIMIT ?", (excess,)).fetchall()
    for row, seq in rows:
        db.execute("UPDATE outbox SET state = 'dropped', ended_ms = ? WHERE id = ?", (ts_ms, row))
        db.execute(
            "UPDATE strips SET state = 'dropped' WHERE state = 'judged' AND (id, revision) = "
            "(SELECT strip, revision FROM results WHERE seq = ?)",
            (seq,),
        )


def _same_file(file: SettledFile) -> tuple[Any, ...]:
    return (file.camera, os.fsencode(file.path), file.identity.size_bytes, file.identity.mtime_ns)


def _find_same(db: sqlite3.Connection, file: SettledFile) -> bool:
    query = f"SELECT 1 FROM strips WHERE {_SAME_FILE} AND ctime_ns = ? AND disposal <> 'done'"  # noqa: S608 - a constant
    return db.execute(query, (*_same_file(file), file.identity.ctime_ns)).fetchone() is not None


def _latest_occurrence(db: sqlite3.Connection, file: SettledFile) -> dict[str, Any] | None:
    names = ("id", "occurrence", "ctime_ns", "digest", "state", "disposal")
    query = f"SELECT {', '.join(names)} FROM strips WHERE {_SAME_FILE} ORDER BY occurrence DESC LIMIT 1"  # noqa: S608 - constants
    row = db.execute(query, _same_file(file)).fetchone()
    return None if row is None else dict(zip(names, row, strict=True))


def _follow_half_written(db: sqlite3.Connection, file: SettledFile) -> bool:
    """Let the newest waiting strip of a path that was found incomplete take over the grown file's identity."""
    camera, path, size_bytes, mtime_ns = _same_file(file)
    changed = db.execute(
        "UPDATE strips SET size_bytes = ?, mtime_ns = ?, ctime_ns = ?, occurrence = 0 "
        "WHERE id = (SELECT max(id) FROM strips WHERE camera = ? AND path = ? AND state = 'waiting' "
        "AND half_written = 1)",
        (size_bytes, mtime_ns, file.identity.ctime_ns, camera, path),
    )
    return changed.rowcount > 0


def _why_not_again(db: sqlite3.Connection, row: int) -> str:
    found = db.execute("SELECT state, disposal FROM strips WHERE id = ?", (row,)).fetchone()
    if found is None:
        return "no such strip"
    if found[1] in ("due", "done"):  # from `due` on the file may be on its way
        return "its file has been moved or removed as configured (when_done)"
    return "is waiting to be judged already" if found[0] == "waiting" else ""


def _insert(db: sqlite3.Connection, file: SettledFile, *, occurrence: int) -> None:
    strip_id = make_strip_id(file.camera, file.path, file.identity, occurrence)
    # A half written strip that grew keeps the id of the identity that it was begun with.
    while db.execute("SELECT 1 FROM strips WHERE strip_id = ?", (strip_id,)).fetchone() is not None:
        occurrence += 1
        strip_id = make_strip_id(file.camera, file.path, file.identity, occurrence)
    db.execute(
        "INSERT INTO strips (strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, occurrence, lane, state, seen_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            strip_id,
            *_same_file(file),
            file.identity.ctime_ns,
            occurrence,
            BACKLOG if file.backlog else LIVE,
            "skipped" if file.skip else "waiting",
            now_ms(),
        ),
    )


def _strip(row: Sequence[Any]) -> Strip:
    number, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, attempts, revision, seen_ms, half_written = row
    identity = FileIdentity(size_bytes, mtime_ns, ctime_ns)
    return Strip(number, strip_id, camera, os.fsdecode(path), identity, attempts, revision, seen_ms, bool(half_written))
