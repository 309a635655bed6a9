"""Scores over time, and what another threshold would have said: read from the ledger, never written.

Of up to EXACT_UP_TO results in a range each one is looked at, by an index that has all it needs. Beyond that the
tally by the hour answers, for whole hours. Both cost a tenth of a second at the most, whatever the ledger holds.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.ledger.schema_scores import BIN, BINS, HOUR_MS, INVALID_BIN, PIXEL_BINS, TALLY
from agent.records import show_name

if TYPE_CHECKING:
    import sqlite3

    from agent.ledger.database import Database

EXACT_UP_TO = 50_000  # results in a range
SCANNED_AT_MOST = 200_000  # where the clock went back, an hour's results lie far apart
BUCKETS = 250  # a lowest and a highest score in each: 500 points
MAX_LAST = 100_000
FLIPS_NAMED = 100


@dataclass(frozen=True, slots=True)
class Bucket:
    """The results of one part of the range, from `ts_ms` on; scores and threshold are None where there are none."""

    ts_ms: int
    ok: int
    anomalous: int
    invalid: int
    lowest: float | None
    highest: float | None
    threshold: float | None  # of its last result


@dataclass(frozen=True, slots=True)
class Bin:
    """How many scores lie from `low` up to, but without, `high`; 1.0 itself is in the last one."""

    low: float
    high: float
    ok: int
    anomalous: int


@dataclass(frozen=True, slots=True)
class Trend:
    """Results of a camera in a range of time, both ends in Unix milliseconds; buckets without results are left out."""

    from_ms: int
    to_ms: int
    width_ms: int  # of a bucket
    exact: bool  # False: whole hours, out of the tally
    results: int
    other_unit: int  # of them, whose scores are in another unit (pixels or 0 to 1), left out of everything else
    buckets: list[Bucket]
    bins: list[Bin]


@dataclass(frozen=True, slots=True)
class Flip:
    """A result that another threshold would have judged otherwise."""

    strip_id: str
    file: str
    seq: int
    revision: int
    ts_ms: int
    score: float
    verdict: str  # as it is


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What another threshold would have said of the last results of a camera. Nothing is changed by asking."""

    looked_at: int
    judged: int  # of them, with a score in this unit
    invalid: int  # they stay invalid, whatever the threshold
    other_unit: int
    anomalous: int  # as it is
    to_anomalous: int
    to_ok: int
    since_ms: int  # commit of the first one, 0 where there is none
    flips: list[Flip]  # the newest, at most FLIPS_NAMED
    threshold: float | None  # that of the newest result


@dataclass(frozen=True, slots=True)
class _Range:
    from_ms: int
    to_ms: int
    width_ms: int


@dataclass(frozen=True, slots=True)
class _Cell:
    """Results of one bucket with one verdict and one bin of the score."""

    bucket: int
    bin: int
    verdict: str
    n: int
    lowest: float
    highest: float
    last_seq: int


_EACH = (
    f"SELECT (committed_ms - ?) / ?, {BIN}, verdict, count(*), min(score), max(score), max(seq) FROM "  # noqa: S608 - constants
    "(SELECT seq, committed_ms, verdict, score, in_pixels FROM results INDEXED BY results_camera "
    "WHERE camera = ? AND seq BETWEEN ? AND ? AND committed_ms >= ? AND committed_ms < ? "
    f"LIMIT {SCANNED_AT_MOST}) GROUP BY 1, 2, 3"
)
_BY_HOUR = (
    "SELECT (hour - ?) / ?, bin, verdict, sum(n), min(lowest), max(highest), max(last_seq) FROM score_hours "
    "WHERE camera = ? AND hour BETWEEN ? AND ? GROUP BY 1, 2, 3"
)
_LAST = (
    "(SELECT seq, committed_ms, CASE WHEN verdict = 'invalid' THEN 'invalid' WHEN in_pixels <> :unit THEN 'other' "
    "WHEN verdict = 'anomalous' THEN CASE WHEN score >= :threshold THEN 'anomalous' ELSE 'to_ok' END "
    "WHEN score >= :threshold THEN 'to_anomalous' ELSE 'ok' END AS kind "
    "FROM results INDEXED BY results_camera WHERE camera = :camera ORDER BY seq DESC LIMIT :last)"
)
"""SQL: the last results of a camera, and what becomes of each with another threshold."""


class Trends:
    """The looking back part of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def trend(self, camera: str, from_ms: int, to_ms: int, *, in_pixels: bool) -> Trend:
        """Return the scores of a camera's results committed from `from_ms` up to, but without, `to_ms`."""
        first, last = from_ms // HOUR_MS, (to_ms - 1) // HOUR_MS
        with self._database.snapshot() as db:
            number, low, high = db.execute(
                "SELECT coalesce(sum(n), 0), min(first_seq), max(last_seq) FROM score_hours "
                "WHERE camera = ? AND hour BETWEEN ? AND ?",
                (camera, first, last),
            ).fetchone()
            exact = number <= EXACT_UP_TO
            if exact:
                width = max(1, -(-(to_ms - from_ms) // BUCKETS))
                range_ms = _Range(from_ms, to_ms, width)
                cells = db.execute(_EACH, (from_ms, width, camera, low, high, from_ms, to_ms)).fetchall()
            else:
                width = -(-(last - first + 1) // BUCKETS) * HOUR_MS
                range_ms = _Range(first * HOUR_MS, (last + 1) * HOUR_MS, width)
                cells = db.execute(_BY_HOUR, (first, width // HOUR_MS, camera, first, last)).fetchall()
            return _trend(db, range_ms, [_Cell(*cell) for cell in cells], exact=exact, in_pixels=in_pixels)

    def what_if(self, camera: str, threshold: float, last: int, *, in_pixels: bool) -> WhatIf:
        """Judge a camera's last results (at most MAX_LAST) by another threshold, in the unit that `in_pixels` says."""
        values = {"camera": camera, "threshold": threshold, "last": min(last, MAX_LAST), "unit": in_pixels}
        with self._database.snapshot() as db:
            counts = dict.fromkeys(("invalid", "other", "ok", "to_anomalous", "to_ok", "anomalous"), 0)
            since_ms, newest = 0, None
            grouped = db.execute(
                f"SELECT kind, count(*), min(committed_ms), max(seq) FROM {_LAST} GROUP BY kind",  # noqa: S608 - a constant
                values,
            )
            for kind, number, first_ms, seq in grouped:
                counts[kind] = number
                since_ms = min(since_ms or first_ms, first_ms)
                newest = max(seq if newest is None else newest, seq)
            rows = db.execute(
                "SELECT s.strip_id, s.path, r.seq, r.revision, r.committed_ms, r.score, r.verdict "  # noqa: S608 - constants
                f"FROM (SELECT seq FROM {_LAST} WHERE kind IN ('to_anomalous', 'to_ok') "
                f"ORDER BY seq DESC LIMIT {FLIPS_NAMED}) AS flipped "
                "JOIN results AS r ON r.seq = flipped.seq JOIN strips AS s ON s.id = r.strip ORDER BY r.seq DESC",
                values,
            )
            flips = [Flip(strip_id, show_name(os.fsdecode(path)), *rest) for strip_id, path, *rest in rows]
            held_to = _threshold(db, newest)
        looked_at = sum(counts.values())
        return WhatIf(
            looked_at=looked_at,
            judged=looked_at - counts["invalid"] - counts["other"],
            invalid=counts["invalid"],
            other_unit=counts["other"],
            anomalous=counts["anomalous"] + counts["to_ok"],
            to_anomalous=counts["to_anomalous"],
            to_ok=counts["to_ok"],
            since_ms=since_ms,
            flips=flips,
            threshold=held_to,
        )


def count_score(db: sqlite3.Connection, seq: int) -> None:
    """Count a result in, in the caller's transaction."""
    db.execute(TALLY.format(which="seq = ?"), (seq,))


def _trend(db: sqlite3.Connection, span: _Range, cells: list[_Cell], *, exact: bool, in_pixels: bool) -> Trend:
    """Make buckets and bins of the cells of the unit that is asked for, and of those without a score."""
    parts: dict[int, list[_Cell]] = {}
    bins: dict[int, dict[str, int]] = {}
    other_unit = 0
    for cell in cells:
        if cell.bin != INVALID_BIN and (cell.bin >= PIXEL_BINS) != in_pixels:
            other_unit += cell.n
            continue
        parts.setdefault(cell.bucket, []).append(cell)
        if cell.bin != INVALID_BIN:
            counts = bins.setdefault(cell.bin, {})
            counts[cell.verdict] = counts.get(cell.verdict, 0) + cell.n
    return Trend(
        span.from_ms,
        span.to_ms,
        span.width_ms,
        exact,
        results=sum(cell.n for cell in cells),
        other_unit=other_unit,
        buckets=[_bucket(db, span.from_ms + number * span.width_ms, part) for number, part in sorted(parts.items())],
        bins=_filled(bins, in_pixels=in_pixels),
    )


def _bucket(db: sqlite3.Connection, ts_ms: int, cells: list[_Cell]) -> Bucket:
    counts = {"ok": 0, "anomalous": 0, "invalid": 0}
    for cell in cells:
        counts[cell.verdict] += cell.n
    scored = [cell for cell in cells if cell.bin != INVALID_BIN]
    return Bucket(
        ts_ms,
        **counts,
        lowest=min((cell.lowest for cell in scored), default=None),
        highest=max((cell.highest for cell in scored), default=None),
        threshold=_threshold(db, max(cell.last_seq for cell in cells)),
    )


def _filled(bins: dict[int, dict[str, int]], *, in_pixels: bool) -> list[Bin]:
    """Return the bins from the lowest score to the highest, the empty ones too; of a score of 0 to 1 always all."""
    if not bins:
        return []
    numbers = range(min(bins), max(bins) + 1) if in_pixels else range(BINS)
    found = ((number, bins.get(number, {})) for number in numbers)
    return [Bin(*_edges(number), counts.get("ok", 0), counts.get("anomalous", 0)) for number, counts in found]


def _edges(number: int) -> tuple[float, float]:
    if number < PIXEL_BINS:
        return number / BINS, (number + 1) / BINS
    step = number - PIXEL_BINS
    return float(1 << (step - 1) if step else 0), float(1 << step)


def _threshold(db: sqlite3.Connection, seq: int | None) -> float | None:
    """Return the threshold that a result was held to; only its message says so."""
    row = db.execute("SELECT payload FROM outbox WHERE seq = ?", (seq,)).fetchone()
    try:
        value = json.loads(row[0])["threshold"] if row is not None else None
    except (ValueError, KeyError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) else None
