"""Counts and durations since the ledger began, for monitoring: they only rise, over restarts and kills too.

They are rows of `counters`, written in the transaction of the result or of its acknowledgement. Kinds: `result` (by
camera, verdict and reason), and for each `Duration` its buckets and its sum.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from agent.ledger.database import Database

Duration = Literal["inference", "judged", "acknowledged"]
"""The run of the model; from when a strip was found whole to its result; and to the broker's acknowledgement."""

DURATIONS: tuple[Duration, ...] = ("inference", "judged", "acknowledged")
BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_RESULT = "result"
_SUM = "sum_us"  # state of the row that holds a duration's sum, in microseconds
_SEPARATOR = " "  # between verdict and reason, which hold none


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a camera's strips took how long: `counts` has one number for each bucket and one for the rest."""

    camera: str
    counts: tuple[int, ...]
    sum_seconds: float


@dataclass(frozen=True, slots=True)
class Results:
    """How many results a camera had of one kind."""

    camera: str
    verdict: str
    reason: str
    number: int


class Tallies:
    """The reading part."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def results(self) -> list[Results]:
        """Return the number of results by camera, verdict and reason."""
        with self._database.reading() as db:
            rows = db.execute("SELECT name, state, n FROM counters WHERE kind = ?", (_RESULT,)).fetchall()
        found = ((camera, *state.partition(_SEPARATOR), n) for camera, state, n in rows)
        return [Results(camera, verdict, reason, n) for camera, verdict, _, reason, n in found]

    def histograms(self, duration: Duration) -> list[Histogram]:
        """Return a duration of every camera."""
        with self._database.reading() as db:
            rows = db.execute("SELECT name, state, n FROM counters WHERE kind = ?", (_kind(duration),)).fetchall()
        found: dict[str, dict[str, int]] = {}
        for camera, state, n in rows:
            found.setdefault(camera, {})[state] = n
        buckets = [str(place) for place in range(len(BUCKETS_SECONDS) + 1)]
        return [
            Histogram(camera, tuple(states.get(bucket, 0) for bucket in buckets), states.get(_SUM, 0) / 1e6)
            for camera, states in sorted(found.items())
        ]


def count_result(
    db: sqlite3.Connection, camera: str, verdict: str, reason: str, durations: Iterable[tuple[Duration, float]]
) -> None:
    """Count a result, in the caller's transaction; durations are in seconds."""
    rows = [(_RESULT, camera, f"{verdict}{_SEPARATOR}{reason}", 1)]
    for duration, seconds in durations:
        rows += _rows_of(camera, duration, seconds)
    _add(db, rows)


def count_acknowledged(db: sqlite3.Connection, seq: int, now_ms: int) -> None:
    """Count how long a strip's first result took to the acknowledgement; later revisions were asked for by people."""
    found = db.execute(
        "SELECT s.camera, s.seen_ms FROM results AS r JOIN strips AS s ON s.id = r.strip WHERE r.seq = ? "
        "AND r.revision = 1",
        (seq,),
    ).fetchone()
    if found is not None:
        _add(db, _rows_of(found[0], "acknowledged", (now_ms - found[1]) / 1000))


def _rows_of(camera: str, duration: Duration, seconds: float) -> list[tuple[str, str, str, int]]:
    inside = max(0.0, seconds)  # the clock may have been set back
    kind = _kind(duration)
    return [(kind, camera, str(bisect_left(BUCKETS_SECONDS, inside)), 1), (kind, camera, _SUM, round(inside * 1e6))]


def _add(db: sqlite3.Connection, rows: list[tuple[str, str, str, int]]) -> None:
    db.executemany("INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", rows)


def _kind(duration: Duration) -> str:
    return f"seconds_{duration}"
