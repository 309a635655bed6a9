"""What people say about strips: every word is kept for as long as the strip, the last one of each person counts.

A review never changes a result. The counts by model are rows of `counters`, so that they outlive the strips: kind
`review`, by the model's digest and by verdict and finding.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from agent.clock import now_ms
from agent.ledger.outbox import next_number, queue_event

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from agent.ledger.database import Database

Finding = Literal["defect", "no_defect", "unsure"]
"""What somebody says of a strip: there is a defect on it, there is none, or it cannot be said."""

FINDINGS: tuple[Finding, ...] = get_args(Finding)
MAX_REVIEWS = 100  # of one strip: who may give them must not be able to fill the disk with them
_KIND = "review"
_SEPARATOR = " "  # between verdict and finding, which hold none
_COLUMNS = ("v.id, s.id, s.strip_id, s.camera, s.path, v.revision, v.verdict, v.model_sha256, v.finding, v.person, "
            "v.remark, v.sender, v.reviewed_ms, v.replaced")  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewReview:
    """What somebody says. `revision` is that of the result it is about, None for the newest one."""

    strip: int  # its row
    finding: Finding
    person: str
    remark: str
    sender: str  # who gave the command, as the system knows it
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A review with its strip. `verdict` and `model_sha256` are those of the result it is about, "" without one."""

    row: int
    strip: int  # its row
    strip_id: str
    camera: str
    path: str  # relative to the camera's folder, as os.fsdecode gives it
    revision: int  # of the result it is about; 0: there was none
    verdict: str
    model_sha256: str
    finding: Finding
    person: str
    remark: str
    sender: str
    reviewed_ms: int
    replaced: bool  # the same person has said something of this strip later


@dataclass(frozen=True, slots=True)
class ReviewCount:
    """How often a verdict of a model was answered with a finding, since the ledger began; replaced ones not."""

    model_sha256: str
    verdict: str
    finding: Finding
    number: int


class Reviews:
    """The reviews' part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        new: NewReview,
        topic: str,
        payload: Callable[[Review, dict[str, Any], bool, str], bytes],
        max_messages: int,
    ) -> Review:
        """Write a review and queue the event that `payload(review, result, replaces, msg_id)` makes: one transaction.

        `result` is the message of the result it is about, {} where there is none; `replaces` says that the same person
        had reviewed the strip before. Raises LookupError where there is no such strip or result, or where the strip
        has MAX_REVIEWS already.
        """
        ts_ms = now_ms()
        with self._database.transaction() as db:
            revision, verdict, model, result = _result(db, new)
            before = db.execute("SELECT id, person, replaced FROM reviews WHERE strip = ?", (new.strip,)).fetchall()
            if len(before) >= MAX_REVIEWS:
                raise LookupError(f"this strip has {MAX_REVIEWS} reviews already: no more are taken")
            same = [row for row, person, replaced in before if not replaced and _same(person, new.person)]
            for row in same:
                _count(db, row, -1)
                db.execute("UPDATE reviews SET replaced = 1 WHERE id = ?", (row,))
            row = db.execute(
                "INSERT INTO reviews (strip, revision, verdict, model_sha256, finding, person, remark, sender, "
                "reviewed_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (new.strip, revision, verdict, model, new.finding, new.person, new.remark, new.sender, ts_ms),
            ).lastrowid
            _count(db, int(row or 0), 1)
            (review,) = _found(db, "v.id = ?", (row,), 1)
            msg_id = f"{self._database.stream}-r{next_number(db, 'review_event')}"
            queue_event(db, topic, payload(review, result, bool(same), msg_id), max_messages, ts_ms)
            return review

    def of_strip(self, strip: int) -> list[Review]:
        """Return everything that was said of a strip, by its row: the earliest first, what was replaced as well."""
        with self._database.reading() as db:
            return _found(db, "v.strip = ?", (strip,), MAX_REVIEWS)

    def latest(self, *, since_ms: int = 0, after_row: int = 0, limit: int = 1000) -> list[Review]:
        """Return the last review of each strip, whoever gave it, that was given since then (Unix milliseconds).

        The earliest first; go on behind the `row` of the last one until there is none.
        """
        newest = "NOT EXISTS (SELECT 1 FROM reviews AS later WHERE later.strip = v.strip AND later.id > v.id)"
        with self._database.snapshot() as db:
            return _found(db, f"v.id > ? AND v.reviewed_ms >= ? AND {newest}", (after_row, since_ms), limit)

    def since(self, *, since_ms: int = 0, after_row: int = 0, limit: int = 1000) -> list[Review]:
        """Return all reviews given since then (Unix milliseconds), behind a row; the earliest first."""
        with self._database.snapshot() as db:
            return _found(db, "v.id > ? AND v.reviewed_ms >= ?", (after_row, since_ms), limit)

    def counts(self) -> list[ReviewCount]:
        """Return the counts of all models."""
        with self._database.reading() as db:
            rows = db.execute("SELECT name, state, n FROM counters WHERE kind = ? AND n > 0", (_KIND,)).fetchall()
        found = ((model, *state.partition(_SEPARATOR), number) for model, state, number in rows)
        return [ReviewCount(model, verdict, finding, number) for model, verdict, _, finding, number in found]


def _result(db: sqlite3.Connection, new: NewReview) -> tuple[int, str, str, dict[str, Any]]:
    """Return revision, verdict, model and message of the result that is meant; 0 and nothing where there is none."""
    found = db.execute(
        "SELECT r.revision, r.verdict, r.model_sha256, o.payload FROM results AS r JOIN outbox AS o ON o.seq = r.seq "
        "WHERE r.strip = ? AND r.revision = coalesce(?, r.revision) ORDER BY r.revision DESC LIMIT 1",
        (new.strip, new.revision),
    ).fetchone()
    if found is not None:
        revision, verdict, model, payload = found
        return revision, verdict, model, json.loads(payload)
    if new.revision is not None:
        raise LookupError(f"the strip has no result of revision {new.revision}")
    if db.execute("SELECT 1 FROM strips WHERE id = ?", (new.strip,)).fetchone() is None:
        raise LookupError("no such strip")
    return 0, "", "", {}


def _same(person: str, other: str) -> bool:
    return person.casefold() == other.casefold()


def _count(db: sqlite3.Connection, row: int, number: int) -> None:
    db.execute(
        "INSERT INTO counters SELECT ?, model_sha256, verdict || ? || finding, ? FROM reviews WHERE id = ? "
        "ON CONFLICT DO UPDATE SET n = n + excluded.n",
        (_KIND, _SEPARATOR, number, row),
    )


def _found(db: sqlite3.Connection, which: str, values: tuple[Any, ...], limit: int) -> list[Review]:
    query = (
        f"SELECT {_COLUMNS} FROM reviews AS v JOIN strips AS s ON s.id = v.strip WHERE {which} ORDER BY v.id LIMIT ?"  # noqa: S608 - constants
    )
    return [
        Review(
            row, strip, strip_id, camera, os.fsdecode(path), revision, verdict, model, finding, person, remark, sender,
            reviewed_ms, bool(replaced),
        )
        for row, strip, strip_id, camera, path, revision, verdict, model, finding, person, remark, sender,
            reviewed_ms, replaced in db.execute(query, (*values, limit))
    ]  # fmt: skip
