"""Strips and their results: begin, next, commit, put back, retry."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.ledger import identity
from agent.ledger.drift import note_look
from agent.ledger.outbox import drop_oldest, next_number
from agent.ledger.tallies import count_result
from agent.ledger.trends import count_score
from agent.names import natural_key
from agent.printable import printable
from agent.records import FileIdentity, SettledFile, Strip, show_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

    from agent.contract.measures import Measures
    from agent.ledger.database import Database
    from agent.ledger.tallies import Duration

LIVE, BACKLOG, RETRIED = 0, 1, 2  # lanes
LANES = (LIVE, RETRIED, BACKLOG)
"""In the order in which they are served: those of a later one wait while the camera has any of an earlier one."""
MAX_DETAIL = 2000  # characters of a sentence
_STRIP = (
    "id, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, attempts, revision, seen_ms, half_written, "
    "(SELECT known.path FROM folders AS known WHERE known.id = folder)"
)
_ELSEWHERE = "folder NOT IN (SELECT id FROM folders WHERE path IN (SELECT value FROM json_each(:hanging)))"


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
    detail: str = ""  # the reason as a sentence
    in_pixels: bool = False  # the score is an area
    inference_seconds: float | None = None  # None where the model did not run
    measures: Measures | None = None  # how the strip looks, where that can be compared


class Strips:
    """The strips' and results' part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- begin ---------------------------------------------------------------------------------------------------------

    def known(self, files: Sequence[SettledFile]) -> set[str]:
        """Return the paths of those files that the ledger already holds in just this state."""
        with self._database.reading() as db:
            return {file.path for file in files if identity.find_same(db, file)}

    def begin(self, files: Sequence[SettledFile], folder: str = "") -> list[SettledFile]:
        """Account for settled files, in one transaction; from here on each is in exactly one state.

        `folder` is the camera's, in which they lie, "" where that is not known. Return those that only differ in
        their times from what the ledger knows: their content decides, see `begin_by_digest`.
        """
        with self._database.transaction() as db:
            number = identity.number_of(db, folder)
            in_order = sorted(files, key=lambda file: (file.identity.mtime_ns, natural_key(file.path)))
            return [file for file in in_order if not identity.begin(db, file, number)]

    def begin_by_digest(
        self, file: SettledFile, digest: str, folder: str = "", *, is_there: bool = False
    ) -> bool | None:
        """Decide a file whose path and size are known, with other times; True when it is a new strip.

        `digest` is the sha256 of its bytes, "" where they cannot be read. None: it may have been moved or removed by
        the agent while it was read; ask again, with `is_there`, if it is there still.
        """
        with self._database.transaction() as db:
            return identity.begin_by_digest(db, file, identity.number_of(db, folder), digest, is_there=is_there)

    def seen_again(self) -> int:
        """Return how often a file was seen with other times and turned out to be the same strip."""
        with self._database.reading() as db:
            return identity.seen_again(db)

    def has_newer_version(self, strip: Strip) -> bool:
        """Say whether the ledger knows a later strip of the same path."""
        with self._database.reading() as db:
            query = "SELECT 1 FROM strips INDEXED BY strips_path WHERE camera = ? AND path = ? AND id > ?"
            return db.execute(query, (strip.camera, os.fsencode(strip.path), strip.row)).fetchone() is not None

    def camera_was_scanned(self, camera: str) -> bool:
        """Say whether this ledger has ever seen a whole scan of the camera's folder."""
        with self._database.reading() as db:
            return db.execute("SELECT 1 FROM cameras WHERE name = ?", (camera,)).fetchone() is not None

    def record_first_scan(self, camera: str) -> None:
        """Record that the camera's first scan has been begun in full: the backlog rule is done with."""
        with self._database.transaction() as db:
            db.execute("INSERT OR IGNORE INTO cameras VALUES (?, ?)", (camera, now_ms()))

    def forget_first_scan(self, camera: str) -> None:
        """Let the backlog rule count anew, for a camera whose strips were forgotten without a look at its files."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM cameras WHERE name = ?", (camera,))

    # -- waiting -------------------------------------------------------------------------------------------------------

    def any_waits(self, excluding: Collection[int]) -> bool:
        """Say whether any other strip waits, of whatever camera: one look instead of one for each camera and lane."""
        with self._database.reading() as db:
            query = "SELECT id FROM strips INDEXED BY strips_oldest_waiting WHERE state = 'waiting' LIMIT ?"
            return any(row not in excluding for (row,) in db.execute(query, (len(excluding) + 1,)))

    def next_waiting(
        self, camera: str, lane: int, excluding: Collection[int], hanging: Sequence[str] = ()
    ) -> Strip | None:
        """Return the camera's oldest waiting strip of that lane, by mtime and then as begun; else as `next_again`."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT {_STRIP} FROM strips WHERE state = 'waiting' AND attempts = 0 AND camera = :camera "  # noqa: S608 - constants
                f"AND lane = :lane AND {_ELSEWHERE} ORDER BY mtime_ns, id LIMIT :limit",
                {"camera": camera, "lane": lane, "hanging": json.dumps(hanging), "limit": len(excluding) + 1},
            )
            return next((_strip(row) for row in rows if row[0] not in excluding), None)

    def next_again(
        self, cameras: Sequence[str], excluding: Collection[int], hanging: Sequence[str] = ()
    ) -> Strip | None:
        """Return a strip that a worker was lost on, once everything that waited at that time has been served.

        `cameras` are those whose folders can be read. Others, the rows in `excluding`, and those that were taken in
        from one of the folders in `hanging`, keep nobody waiting.
        """
        lists = {"cameras": list(cameras), "excluding": list(excluding), "hanging": list(hanging)}
        with self._database.reading() as db:
            row = db.execute(
                f"SELECT {_STRIP} FROM strips AS again WHERE state = 'waiting' AND attempts > 0 "  # noqa: S608 - constants
                "AND camera IN (SELECT value FROM json_each(:cameras)) "
                f"AND again.{_ELSEWHERE} "
                "AND id NOT IN (SELECT value FROM json_each(:excluding)) "
                "AND NOT EXISTS (SELECT 1 FROM strips AS fresh INDEXED BY strips_oldest_waiting "
                "WHERE fresh.state = 'waiting' AND fresh.attempts = 0 AND fresh.id <= again.requeued_after "
                "AND fresh.camera IN (SELECT value FROM json_each(:cameras)) "
                f"AND fresh.{_ELSEWHERE} "
                "AND fresh.id NOT IN (SELECT value FROM json_each(:excluding))) "
                "ORDER BY requeued_after, id LIMIT 1",
                {name: json.dumps(values) for name, values in lists.items()},
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
            seq = next_number(db, "seq")
            db.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (seq, strip.row, strip.camera, strip.revision, ts_ms, strip.identity.mtime_ns // 1_000_000,
                 result.verdict, result.reason, result.score, result.model_sha256, result.heatmap_bytes,
                 printable(result.detail[:MAX_DETAIL]), result.in_pixels),
            )  # fmt: skip
            count_score(db, seq)
            db.execute(
                "UPDATE strips SET state = 'judged', digest = ?, disposal = ? WHERE id = ?",
                (result.digest, "after_ack" if result.dispose else "", strip.row),
            )
            db.execute(
                "INSERT INTO outbox (topic, payload, seq, queued_ms) VALUES (?, ?, ?, ?)",
                (result.topic, payload(seq, ts_ms), seq, ts_ms),
            )
            drop_oldest(db, "seq IS NOT NULL", max_messages, ts_ms)
            durations: list[tuple[Duration, float]] = []
            if result.inference_seconds is not None:
                durations.append(("inference", result.inference_seconds))
            if strip.revision == 1:
                durations.append(("judged", (ts_ms - strip.seen_ms) / 1000))
            count_result(db, strip.camera, result.verdict, result.reason, durations)
            if result.measures is not None and strip.revision == 1:
                note_look(db, strip.camera, seq, strip.strip_id, result.model_sha256, result.measures, ts_ms)
        return seq

    def retry(self, rows: Sequence[int], cameras: Collection[str] | None = None) -> dict[int, str]:
        """Give strips that have a result, or were skipped or dropped, back to the queue as new revisions.

        Only those of `cameras`, of all where that is None: nobody would ever judge the others. One transaction. Return
        those that were refused, with the reason.
        """
        with self._database.transaction() as db:
            refused = {row: why for row in rows if (why := _why_not_again(db, row, cameras))}
            db.executemany(
                "UPDATE strips SET state = 'waiting', attempts = 0, half_written = 0, lane = ?, disposal = '', "
                "disposal_note = '', "
                "revision = revision + (SELECT count(*) > 0 FROM results WHERE strip = strips.id "
                "AND results.revision = strips.revision) WHERE id = ?",
                [(RETRIED, row) for row in dict.fromkeys(rows) if row not in refused],
            )
            return refused

    # -- disposal ------------------------------------------------------------------------------------------------------

    def due_for_disposal(self, camera: str, after_row: int, limit: int) -> list[tuple[Strip, str]]:
        """Return the camera's acknowledged strips whose file is to be moved or removed, each with its digest."""
        with self._database.reading() as db:
            return self._with_digests(db, "disposal IN ('due', 'going')", camera, after_row, limit)

    def staying(self, camera: str, after_row: int, limit: int) -> list[tuple[Strip, str]]:
        """Return those whose file stays because nothing may touch what is there now (a link, a pipe)."""
        with self._database.reading() as db:
            return self._with_digests(db, "disposal = 'stays'", camera, after_row, limit)

    def name_staying(self, limit: int) -> dict[str, list[str]]:
        """Return camera -> "file: why" of up to `limit` of them for each camera."""
        named: dict[str, list[str]] = {}
        with self._database.reading() as db:
            cameras = [name for (name,) in db.execute("SELECT DISTINCT name FROM counters WHERE kind = 'seen'")]
            for camera in cameras:
                rows = db.execute(
                    "SELECT path, disposal_note FROM strips WHERE disposal = 'stays' AND camera = ? "
                    "ORDER BY id LIMIT ?",
                    (camera, limit),
                ).fetchall()
                if rows:
                    named[camera] = [f"{show_name(os.fsdecode(path))}: {why}" for path, why in rows]
        return named

    def _with_digests(
        self, db: sqlite3.Connection, which: str, camera: str, after_row: int, limit: int
    ) -> list[tuple[Strip, str]]:
        rows = db.execute(
            f"SELECT digest, {_STRIP} FROM strips WHERE {which} AND camera = ? AND id > ? ORDER BY id LIMIT ?",  # noqa: S608 - constants
            (camera, after_row, limit),
        )
        return [(_strip(row), digest) for digest, *row in rows]

    def begin_disposal(self, rows: Sequence[int]) -> set[int]:
        """Record that the files are about to go; return those of which that was recorded before.

        Where one of the latter is gone it was the agent that moved or removed it, just before it ended.
        """
        with self._database.transaction() as db:
            marks = ",".join("?" * len(rows))
            found = db.execute(f"SELECT id FROM strips WHERE disposal = 'going' AND id IN ({marks})", rows)  # noqa: S608 - a constant
            before = {row for (row,) in found}
            db.executemany(
                "UPDATE strips SET disposal = 'going' WHERE disposal = 'due' AND id = ?", [(row,) for row in rows]
            )
            return before

    def keep_files(self, camera: str) -> None:
        """Leave the camera's files where they are, also those that were to be moved or removed before."""
        with self._database.transaction() as db:
            for which in ("IN ('due', 'going')", "= 'stays'"):
                query = f"UPDATE strips SET disposal = '', disposal_note = '' WHERE disposal {which} AND camera = ?"  # noqa: S608 - constants
                db.execute(query, (camera,))

    def disposed(self, row: int, outcome: str, why: str = "") -> None:
        """Record how the disposal ended: done | gone | replaced | stays."""
        with self._database.transaction() as db:
            db.execute("UPDATE strips SET disposal = ?, disposal_note = ? WHERE id = ?", (outcome, why, row))


def _why_not_again(db: sqlite3.Connection, row: int, cameras: Collection[str] | None) -> str:
    found = db.execute("SELECT state, disposal, camera FROM strips WHERE id = ?", (row,)).fetchone()
    if found is None:
        return "no such strip"
    if cameras is not None and found[2] not in cameras:
        return f"its camera {found[2]} is not configured any more: it would wait for ever"
    if found[1] in ("due", "going", "done"):  # from `due` on the file may be on its way
        return "its file has been moved or removed as configured (when_done)"
    return "is waiting to be judged already" if found[0] == "waiting" else ""


def _strip(row: Sequence[Any]) -> Strip:
    (
        number,
        strip_id,
        camera,
        path,
        size_bytes,
        mtime_ns,
        ctime_ns,
        attempts,
        revision,
        seen_ms,
        half_written,
        folder,
    ) = row
    identity = FileIdentity(size_bytes, mtime_ns, ctime_ns)
    return Strip(
        number, strip_id, camera, os.fsdecode(path), identity, attempts, revision, seen_ms, bool(half_written),
        folder or "",
    )  # fmt: skip
