"""What the ledger tells: the status, lists of strips, and the audit that proves that nothing is lost."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.ledger import audit
from agent.ledger.audit import ACKNOWLEDGED, PENDING, STATES
from agent.ledger.database import last_seq
from agent.records import show_name

if TYPE_CHECKING:
    import sqlite3

    from agent.ledger.audit import Counts
    from agent.ledger.database import Database

NAMED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Balance:
    """seen = pending + acknowledged + skipped + dropped, of one camera; `pending` is waiting + judged."""

    camera: str
    seen: int
    waiting: int
    judged: int
    ok: int
    anomalous: int
    invalid: int
    skipped: int
    dropped: int

    @property
    def balanced(self) -> bool:
        """Say whether the sum holds."""
        return self.seen == sum(int(getattr(self, state)) for state in STATES)


@dataclass(frozen=True, slots=True)
class Audit:
    """The proof: balances by camera, what is not published and why, and what does not agree (nothing, one hopes)."""

    stream: str
    last_seq: int
    cameras: list[Balance]
    unpublished: list[dict[str, Any]]
    unpublished_up_to: int  # row of the last one that is named
    unpublished_not_named: int
    problems: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """True when nothing disagrees."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Depths:
    """How much waits; the ages are Unix milliseconds of the oldest, 0 when there is none."""

    outbox_pending: int
    outbox_parked: int
    outbox_dropped: int
    oldest_outbox_ms: int
    oldest_waiting_ms: int
    last_seq: int
    replays: int  # results that are to be sent again


class Report:
    """The reading part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def balances(self) -> list[Balance]:
        """Return today's balances from the counters: the same cost whatever the ledger holds."""
        with self._database.reading() as db:
            return _balances(_counted(db), _seen(db))

    def depths(self) -> Depths:
        """Return how much waits in the outbox and in the queue."""
        with self._database.reading() as db:
            outbox = dict(db.execute("SELECT state, n FROM counters WHERE kind = 'outbox'").fetchall())
            oldest = db.execute("SELECT queued_ms FROM outbox WHERE state = 'pending' ORDER BY id LIMIT 1").fetchone()
            waiting = db.execute(
                "SELECT seen_ms FROM strips INDEXED BY strips_oldest_waiting WHERE state = 'waiting' "
                "ORDER BY id LIMIT 1"
            ).fetchone()
            return Depths(
                outbox_pending=outbox.get("pending", 0),
                outbox_parked=outbox.get("parked", 0),
                outbox_dropped=outbox.get("dropped", 0),
                oldest_outbox_ms=oldest[0] if oldest else 0,
                oldest_waiting_ms=waiting[0] if waiting else 0,
                last_seq=last_seq(db),
                replays=db.execute("SELECT count(*) FROM replays").fetchone()[0],
            )

    def audit(self, *, since_ms: int = 0) -> Audit:
        """Count every row and compare; with `since_ms` only strips begun since then (then without purged days)."""
        with self._database.snapshot() as db:
            rows = audit.count_strips(db)
            problems = audit.disagreements(db, rows)
            if since_ms:
                rows = audit.count_strips_since(db, since_ms)
                balances = _balances(rows, {camera: sum(states.values()) for camera, states in rows.items()})
            else:
                balances = _balances(_with_purged(db, rows), _seen(db))
                problems += [
                    f"camera {balance.camera}: seen {balance.seen} is not the sum of its strips"
                    for balance in balances
                    if not balance.balanced
                ]
                problems += audit.counter_disagreements(db, rows)
            unpublished, up_to = _unpublished(db, since_ms, 0)
            total = sum(b.waiting + b.judged + b.skipped + b.dropped for b in balances)
            not_named = max(0, total - len(unpublished))
            return Audit(self._database.stream, last_seq(db), balances, unpublished, up_to, not_named, problems)

    def unpublished(self, *, since_ms: int, after_row: int) -> tuple[list[dict[str, Any]], int]:
        """Name the next NAMED_AT_ONCE strips that are not published, and the row of the last of them."""
        with self._database.snapshot() as db:
            return _unpublished(db, since_ms, after_row)

    def list_strips(
        self, *, state: str | None, camera: str | None, model: str | None = None, limit: int
    ) -> list[dict[str, Any]]:
        """Return the newest strips first; `state` may also be pending or acknowledged, `model` a digest's beginning."""
        states = {None: STATES, "pending": PENDING, "acknowledged": ACKNOWLEDGED}.get(state, (str(state),))
        marks = ",".join("?" * len(states))
        where = f"s.state IN ({marks})"
        values: list[Any] = [*states]
        if camera is not None:
            where, values = f"{where} AND s.camera = ?", [*values, camera]
        if model is not None:
            where, values = f"{where} AND r.model_sha256 >= ? AND r.model_sha256 < ?", [*values, *_beginning(model)]
        with self._database.snapshot() as db:
            rows = db.execute(
                "SELECT s.strip_id, s.camera, s.path, s.state, s.revision, s.attempts, s.seen_ms, s.mtime_ns, r.seq, "  # noqa: S608 - constants
                "r.verdict, r.reason, r.score, r.model_sha256 FROM strips AS s LEFT JOIN results AS r "
                f"ON r.strip = s.id AND r.revision = s.revision WHERE {where} ORDER BY s.id DESC LIMIT ?",
                (*values, limit),
            )
            return [_listed(row) for row in rows]

    def find_strips(self, beginning: str) -> list[tuple[int, str]]:
        """Return (row, strip_id) of the strips whose id begins so: none, one, or the first two of several."""
        with self._database.reading() as db:
            query = "SELECT id, strip_id FROM strips WHERE strip_id >= ? AND strip_id < ? LIMIT 2"
            return db.execute(query, _beginning(beginning)).fetchall()

    def judged_by(self, model: str, after_row: int, limit: int) -> list[tuple[int, str]]:
        """Return (row, strip_id) of strips whose newest result is of the model whose digest begins so, by row."""
        with self._database.snapshot() as db:
            query = (
                "SELECT s.id, s.strip_id FROM strips AS s JOIN results AS r "
                "ON r.strip = s.id AND r.revision = s.revision "
                "WHERE s.id > ? AND r.model_sha256 >= ? AND r.model_sha256 < ? ORDER BY s.id LIMIT ?"
            )
            return db.execute(query, (after_row, *_beginning(model), limit)).fetchall()

    def show_strip(self, strip_id: str) -> dict[str, Any] | None:
        """Return everything known of one strip (or of the only one whose id begins so), with all its results."""
        with self._database.snapshot() as db:
            found = db.execute(
                "SELECT id, strip_id, camera, path, size_bytes, mtime_ns, digest, state, attempts, revision, seen_ms, "
                "disposal FROM strips WHERE strip_id >= ? AND strip_id < ? LIMIT 2",
                _beginning(strip_id),
            ).fetchall()
            if len(found) != 1:
                return None
            (row, *columns) = found[0]
            names = ("strip_id", "camera", "file", "size_bytes", "mtime_ns", "digest", "state", "attempts", "revision",
                     "seen_ms", "disposal")  # fmt: skip
            shown = dict(zip(names, columns, strict=True))
            shown["row"] = row
            shown["file"] = show_name(os.fsdecode(shown["file"]))
            results = db.execute(
                "SELECT o.state, o.ended_ms, o.note, r.detail, o.payload FROM results AS r "
                "JOIN outbox AS o ON o.seq = r.seq WHERE r.strip = ? ORDER BY r.seq",
                (row,),
            )
            shown["results"] = [
                {"delivery": state, "delivery_ended_ms": ended, "delivery_note": note, "detail": detail}
                | json.loads(payload)
                for state, ended, note, detail, payload in results
            ]
            return shown


def _beginning(digits: str) -> tuple[str, str]:
    """Return the range of all hexadecimal names that begin so: from the first, up to but without the second."""
    return digits, f"{digits}g"


def _listed(row: tuple[Any, ...]) -> dict[str, Any]:
    names = ("strip_id", "camera", "file", "state", "revision", "attempts", "seen_ms", "mtime_ns", "seq", "verdict",
             "reason", "score", "model_sha256")  # fmt: skip
    listed = dict(zip(names, row, strict=True))
    listed["file"] = show_name(os.fsdecode(listed["file"]))
    return listed


def _seen(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT name, n FROM counters WHERE kind = 'seen'").fetchall())


def _counted(db: sqlite3.Connection) -> Counts:
    counts: Counts = {}
    for camera, state, n in db.execute("SELECT name, state, n FROM counters WHERE kind = 'strip'"):
        counts.setdefault(camera, {})[state] = n
    return _with_purged(db, counts)


def _with_purged(db: sqlite3.Connection, counts: Counts) -> Counts:
    total = {camera: dict(states) for camera, states in counts.items()}
    for camera, state, n in db.execute("SELECT camera, state, sum(n) FROM purged GROUP BY camera, state"):
        states = total.setdefault(camera, {})
        states[state] = states.get(state, 0) + n
    return total


def _balances(counts: Counts, seen: dict[str, int]) -> list[Balance]:
    return [
        Balance(camera, seen.get(camera, 0), **{state: counts.get(camera, {}).get(state, 0) for state in STATES})
        for camera in sorted(set(counts) | set(seen))
    ]


def _unpublished(db: sqlite3.Connection, since_ms: int, after_row: int) -> tuple[list[dict[str, Any]], int]:
    rows = db.execute(
        "SELECT s.id, s.strip_id, s.camera, s.path, s.state, s.attempts, s.seen_ms, s.half_written, o.state, o.note "
        "FROM strips AS s LEFT JOIN results AS r ON r.strip = s.id AND r.revision = s.revision "
        "LEFT JOIN outbox AS o ON o.seq = r.seq "
        "WHERE s.state IN ('waiting', 'judged', 'skipped', 'dropped') AND s.seen_ms >= ? "
        "AND s.id > ? ORDER BY s.id LIMIT ?",
        (since_ms, after_row, NAMED_AT_ONCE),
    ).fetchall()
    named = [
        {
            "strip_id": strip_id,
            "camera": camera,
            "file": show_name(os.fsdecode(path)),
            "state": state,
            "seen_ms": seen_ms,
            "why": _why(state, attempts, half_written, delivery, note),
        }
        for _, strip_id, camera, path, state, attempts, seen_ms, half_written, delivery, note in rows
    ]
    return named, rows[-1][0] if rows else after_row


def _why(state: str, attempts: int, half_written: int, delivery: str | None, note: str | None) -> str:
    if state == "skipped":
        return "skipped by the backlog rule"
    if state == "dropped":
        return "dropped: the outbox was full (outbox.max_messages)"
    if state == "judged":
        return f"parked: {note}" if delivery == "parked" else "waits for the broker's acknowledgement"
    if attempts:
        return f"waits to be tried again after {attempts} lost workers"
    return "waits for its half written file" if half_written else "waits to be scored"
