"""How strips looked: the last ones of each camera, a sketch of each day, and the references that cameras made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.contract.measures import (
    NAMES,
    Measures,
    Reference,
    format_measures,
    format_reference,
    on_scale,
    parse_measures,
    parse_reference,
)
from agent.drift.sketch import Sketch, parse_steps, step_of

if TYPE_CHECKING:
    import sqlite3

    from agent.ledger.database import Database

KEPT = 200  # strips of each camera
_COUNT_IN = """
    INSERT INTO sketches (camera, model_sha256, day, measure, n, mean, m2, steps)
    VALUES (?1, ?2, ?3, ?4, 1, ?5, 0.0, json_object(?6, 1))
    ON CONFLICT DO UPDATE SET n = n + 1, mean = mean + (?5 - mean) / (n + 1),
    m2 = m2 + (?5 - mean) * (?5 - (mean + (?5 - mean) / (n + 1))),
    steps = CASE WHEN json_valid(steps)
    THEN json_set(steps, '$."' || ?6 || '"', 1 + coalesce(json_extract(steps, '$."' || ?6 || '"'), 0))
    ELSE json_object(?6, 1) END
"""
"""SQL: add a value (?5, which falls into step ?6) to a day's sketch. Here and not in Python, which would read and write
all histograms of the day again with each strip. One that cannot be read begins anew: it is no reason to keep a result
back. Source of the sums: Welford, 1962."""


class Drift:
    """The reading part, and what is learned."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self, camera: str, model_sha256: str, number: int) -> list[tuple[str, Measures]]:
        """Return the last strips of a camera that this model judged, id and measures, the newest last."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT strip_id, measures FROM looks WHERE camera = ? AND model_sha256 = ? ORDER BY seq DESC LIMIT ?",
                (camera, model_sha256, number),
            ).fetchall()
        found = []
        for strip_id, text in reversed(rows):
            try:
                found.append((strip_id, parse_measures(text)))
            except ValueError:  # another version measured something else
                continue
        return found

    def days(self, camera: str, model_sha256: str, measure: str, since_day: str = "") -> dict[str, Sketch]:
        """Return what can be read of a measure's sketches by UTC date, the earliest first; from a date on."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT day, n, mean, m2, steps FROM sketches WHERE camera = ? AND model_sha256 = ? AND measure = ? "
                "AND day >= ? ORDER BY day",
                (camera, model_sha256, measure, since_day),
            ).fetchall()
        found = {}
        for day, n, mean, m2, steps in rows:
            try:
                found[day] = Sketch(n, mean, m2, parse_steps(steps))
            except ValueError:
                continue
        return found

    def own_reference(self, camera: str, model_sha256: str) -> Reference | None:
        """Return the reference that was made of a camera's first strips, if there is one that can be read."""
        with self._database.reading() as db:
            row = db.execute(
                "SELECT reference FROM own_references WHERE camera = ? AND model_sha256 = ?", (camera, model_sha256)
            ).fetchone()
        try:
            return None if row is None else parse_reference(row[0])
        except ValueError:  # of another version: it is made again
            return None

    def keep_own_reference(self, camera: str, model_sha256: str, reference: Reference) -> None:
        """Keep a reference that was made of a camera's first strips."""
        with self._database.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO own_references VALUES (?, ?, ?)",
                (camera, model_sha256, format_reference(reference)),
            )

    def forget(self, before_ms: int) -> None:
        """Forget the days before then, and what cameras learned under models that have not judged since."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM sketches WHERE day < ?", (_day(before_ms),))
            db.execute(
                "DELETE FROM own_references AS own WHERE NOT EXISTS (SELECT 1 FROM sketches AS s "
                "WHERE s.camera = own.camera AND s.model_sha256 = own.model_sha256)"
            )


def note_look(
    db: sqlite3.Connection, camera: str, seq: int, strip_id: str, model_sha256: str, measures: Measures, ts_ms: int
) -> None:
    """Keep how a strip looks, in the transaction of its result."""
    row = (camera, seq, strip_id, model_sha256, format_measures(measures))
    db.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?)", row)
    db.execute(
        "DELETE FROM looks WHERE camera = ?1 AND seq <= "
        "(SELECT seq FROM looks WHERE camera = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        (camera, KEPT),
    )
    day = _day(ts_ms)
    placed = {name: on_scale(name, value) for name in NAMES if (value := getattr(measures, name)) is not None}
    db.executemany(
        _COUNT_IN,
        [(camera, model_sha256, day, name, value, str(step_of(name, value))) for name, value in placed.items()],
    )


def _day(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).date().isoformat()
