"""What the page on the box asks for: lists of results in both directions, each by an index and never longer than asked.

Results are in the order of their commit (`seq`), so a page goes on where the last one ended, whatever came meanwhile.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.ledger.database import last_seq
from agent.ledger.searching import PART_ID
from agent.records import show_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from agent.ledger.database import Database

LOOKED_THROUGH = 20_000  # results in one go, where no index finds what is asked for
SEARCH_SECONDS = 0.1  # then the page goes on from where the search has come to
_COLUMNS = (
    "r.seq, s.strip_id, r.camera, r.revision, r.committed_ms, r.captured_ts_ms, r.verdict, r.reason, r.score, s.path, "
    "s.revision"
)
_NAMES = ("seq", "strip_id", "camera", "revision", "ts_ms", "captured_ts_ms", "verdict", "reason", "score", "file",
          "newest_revision")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filter:
    """Which results: None or "" is any; `until_ms` those committed up to then."""

    camera: str | None = None
    verdict: str | None = None
    reason: str | None = None
    part: str | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Results, the newest first, and up to which `seq` was looked: None where there is nothing beyond."""

    results: list[dict[str, Any]]
    looked_to: int | None


class Pages:
    """The page's part of the ledger; it only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def news(self) -> tuple[int, int]:
        """Return the number of the newest result, and how many messages have ever left the outbox."""
        with self._database.reading() as db:
            row = db.execute("SELECT n FROM counters WHERE kind = 'outbox' AND state = 'acknowledged'").fetchone()
            return last_seq(db), int(row[0]) if row else 0

    def newest(self, camera: str, limit: int) -> list[dict[str, Any]]:
        """Return a camera's newest results, the newest first."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM results AS r INDEXED BY results_camera JOIN strips AS s ON s.id = r.strip "  # noqa: S608 - constants
                "WHERE r.camera = ? ORDER BY r.seq DESC LIMIT ?",
                (camera, limit),
            )
            return [_shown(row) for row in rows]

    def message(self, strip_id: str, revision: int | None = None) -> dict[str, Any] | None:
        """Return the message of a strip's result, by default of the newest one, as it was sent; None: there is none."""
        with self._database.reading() as db:
            row = db.execute(
                "SELECT o.payload FROM strips AS s JOIN results AS r ON r.strip = s.id "
                "JOIN outbox AS o ON o.seq = r.seq WHERE s.strip_id = ? AND (? IS NULL OR r.revision = ?) "
                "ORDER BY r.revision DESC LIMIT 1",
                (strip_id, revision, revision),
            ).fetchone()
            return json.loads(row[0]) if row else None

    def file_of(self, strip_id: str) -> dict[str, Any] | None:
        """Return where a strip's file was: camera, path (`os.fsdecode`), size, mtime, disposal; None: no such strip."""
        names = ("camera", "path", "size_bytes", "mtime_ns", "disposal")
        with self._database.reading() as db:
            row = db.execute(f"SELECT {', '.join(names)} FROM strips WHERE strip_id = ?", (strip_id,)).fetchone()  # noqa: S608 - constants
            if row is None:
                return None
            found = dict(zip(names, row, strict=True))
            found["path"] = os.fsdecode(found["path"])
            return found

    def older(self, wanted: Filter, before_seq: int | None, limit: int) -> Found:
        """Return results that fit, the newest first, from before a `seq` on (None: the newest of all)."""
        with self._database.snapshot() as db:
            top = last_seq(db) + 1 if before_seq is None else before_seq
            if wanted.until_ms is not None:
                top = min(top, _first_after(db, wanted.until_ms))
            return _search(db, wanted, top, limit, older=True)

    def newer(self, wanted: Filter, after_seq: int, limit: int) -> Found:
        """Return results that fit and follow a `seq`, the nearest first."""
        with self._database.snapshot() as db:
            return _search(db, wanted, after_seq, limit, older=False)


def _search(db: sqlite3.Connection, wanted: Filter, start: int, limit: int, *, older: bool) -> Found:
    """Go from `start` on, window by window: what fits may be rare, and whoever asks has no time."""
    conditions, values = _conditions(wanted)
    source = "results AS r JOIN strips AS s ON s.id = r.strip"
    if wanted.part:
        source = f"outbox AS o CROSS JOIN {source} AND r.seq = o.seq"
    until = time.monotonic() + SEARCH_SECONDS
    results: list[dict[str, Any]] = []
    looked_to: int | None = None
    for low, high in _windows(db, wanted, start, older=older):
        if looked_to is not None and time.monotonic() > until:
            return Found(results, looked_to)
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM {source} "  # noqa: S608 - constants
            f"WHERE r.seq > ? AND r.seq < ?{conditions} ORDER BY r.seq {'DESC' if older else 'ASC'} LIMIT ?",
            (low, high, *values, limit - len(results)),
        )
        results += [_shown(row) for row in rows]
        if len(results) == limit:
            return Found(results, results[-1]["seq"])
        looked_to = low + 1 if older else high - 1
    return Found(results, None)


def _windows(db: sqlite3.Connection, wanted: Filter, start: int, *, older: bool) -> Iterator[tuple[int, int]]:
    """Yield ranges of `seq`, both ends excluded, away from `start`; one for all where nothing has to be searched."""
    first, last = _ends(db)
    searched = (wanted.camera or wanted.verdict or wanted.reason) and not wanted.part
    step = LOOKED_THROUGH if searched else last - first + 2
    if older:
        high = min(start, last + 1)
        while high > first:
            low = max(high - step - 1, first - 1)
            yield low, high
            high = low + 1
    else:
        low = max(start, first - 1)
        while low < last:
            high = min(low + step + 1, last + 1)
            yield low, high
            low = high - 1


def _conditions(wanted: Filter) -> tuple[str, Sequence[Any]]:
    """Return SQL behind the range of `seq`, and its values; constants in it let SQLite take the partial indices."""
    text, values = "", []
    for column in ("camera", "verdict", "reason"):
        if value := getattr(wanted, column):
            text += f" AND r.{column} = ?"
            values.append(value)
    if wanted.verdict in {"anomalous", "invalid"}:
        text += " AND r.verdict <> 'ok'"
    if wanted.reason:
        text += " AND r.reason <> ''"
    if wanted.part:
        text += f" AND {PART_ID} = ? AND {PART_ID} <> ''"
        values.append(wanted.part)
    return text, values


def _first_after(db: sqlite3.Connection, ms: int) -> int:
    """Return the lowest `seq` of the results committed after a time (Unix ms), as far as clocks go forward."""
    low, last = _ends(db)
    high = last + 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute(
            "SELECT seq, committed_ms FROM results WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if row is None or row[1] > ms:
            high = middle
        else:
            low = row[0] + 1
    return int(low)


def _ends(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the lowest and the highest `seq` that are there, 0 where there is none."""
    # One query for each: asked for both at once, SQLite goes through all rows.
    first, last = (db.execute(f"SELECT {which}(seq) FROM results").fetchone()[0] for which in ("min", "max"))  # noqa: S608 - constants
    return first or 0, last or 0


def _shown(row: Sequence[Any]) -> dict[str, Any]:
    shown = dict(zip(_NAMES, row, strict=True))
    shown["file"] = show_name(os.fsdecode(shown["file"]))
    return shown
