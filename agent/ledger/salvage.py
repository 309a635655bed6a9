"""What can still be read of a damaged ledger, brought over into a new one.

Rows are read from both ends of each table up to the damage. Everything keeps its place: finished strips are not scored
again, messages that wait are sent with their old bytes and ids. What lost a part is put right: a strip whose result is
gone waits again, a strip whose acknowledgement cannot be shown any more is forgotten, and its file, if it still exists,
is a new one.

How far the damaged ledger had counted cannot be known, so the new one has its own stream and begins with `seq` 1: no id
is ever used for two messages. The rows that were brought over keep their order below zero.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from agent.ledger.schema_scores import TALLY

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = ("strips", "results", "outbox", "models", "activations", "purged", "cameras", "alarms", "commands", "paused",
          "thresholds", "reviews", "folders")  # fmt: skip
_BY_ROW = (
    "strips",
    "results",
    "outbox",
    "activations",
    "commands",
    "reviews",
)  # the others are small and have no row numbers
_NUMBERED = {"results": ("seq",), "outbox": ("seq",), "activations": ("after_seq", "until_seq")}
MOVED_BY = 1 << 40
_TYPES: dict[str, type | tuple[type, ...]] = {"INTEGER": int, "TEXT": str, "BLOB": bytes, "REAL": (int, float)}

_ITS_RESULT = """SELECT 1 FROM results AS r JOIN outbox AS o ON o.seq = r.seq
                 WHERE r.strip = s.id AND r.revision = s.revision"""
_PUT_RIGHT = f"""
    DELETE FROM outbox WHERE NOT json_valid(CAST(payload AS TEXT));
    DELETE FROM results WHERE strip NOT IN (SELECT id FROM strips)
        OR NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.seq = results.seq);
    DELETE FROM strips AS s WHERE state IN ('ok', 'anomalous', 'invalid')
        AND NOT EXISTS ({_ITS_RESULT} AND r.verdict = s.state AND o.state = 'acknowledged');
    DELETE FROM strips WHERE state NOT IN ('waiting', 'judged', 'ok', 'anomalous', 'invalid', 'skipped', 'dropped');
    UPDATE strips AS s SET state = 'waiting', attempts = 0 WHERE state = 'judged'
        AND NOT EXISTS ({_ITS_RESULT} AND o.state IN ('pending', 'parked'));
    DELETE FROM results WHERE strip NOT IN (SELECT id FROM strips) OR (strip, revision) IN
        (SELECT id, revision FROM strips WHERE state = 'waiting');
    DELETE FROM outbox WHERE state IN ('acknowledged', 'dropped', 'superseded')
        AND seq NOT IN (SELECT seq FROM results);
    UPDATE outbox SET seq = NULL WHERE seq NOT IN (SELECT seq FROM results);
    UPDATE results SET delivery_ended =
        (SELECT o.state IN ('acknowledged', 'dropped', 'superseded') FROM outbox AS o WHERE o.seq = results.seq);
    DELETE FROM counters WHERE kind IN ('seen', 'seq', 'purged_results', 'judged_by');
    INSERT INTO counters SELECT 'judged_by', model_sha256, '', count(*) FROM results AS r WHERE NOT EXISTS
        (SELECT 1 FROM results AS newer WHERE newer.strip = r.strip AND newer.revision > r.revision)
        GROUP BY model_sha256;
    INSERT INTO counters SELECT 'seen', camera, '', sum(n) FROM (
        SELECT camera, count(*) AS n FROM strips GROUP BY camera
        UNION ALL SELECT camera, sum(n) FROM purged GROUP BY camera) GROUP BY camera;
    UPDATE strips SET folder = 0 WHERE folder NOT IN (SELECT id FROM folders);
    DELETE FROM reviews WHERE strip NOT IN (SELECT id FROM strips);
    INSERT INTO counters SELECT 'review', model_sha256, verdict || ' ' || finding, count(*) FROM reviews
        WHERE replaced = 0 GROUP BY model_sha256, verdict, finding;
    UPDATE results SET in_pixels = 1 WHERE score > 1.0;
    {TALLY.format(which="true")};
    INSERT INTO counters SELECT 'purged_results', '', '', -count(*) FROM results;
    DELETE FROM cameras WHERE NOT EXISTS (SELECT 1 FROM strips);
"""  # noqa: S608 - constants
# The last line: where no strip could be read, the backlog rule applies as it does to a new ledger.


def salvage(damaged: sqlite3.Connection, new: sqlite3.Connection) -> dict[str, int]:
    """Bring over what can be read, in one transaction; return the number of rows for each table.

    `new` is an empty ledger of the present schema. Raises sqlite3.Error where it cannot be written.
    """
    damaged.text_factory = lambda raw: raw.decode("utf-8", "replace")
    damaged.execute("PRAGMA writable_schema = ON")  # reads a file that was cut, too; nothing is written to it
    new.execute("PRAGMA foreign_keys = OFF")
    new.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        columns = {name: kind for _, name, kind, *_ in new.execute(f"PRAGMA table_info({table})")}
        older = _columns_there(damaged, table)
        columns = {name: kind for name, kind in columns.items() if name in older or not older}
        if not columns:  # somebody else's table of that name
            continue
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        rows = (_moved(table, columns, row) for row in _read(damaged, table, list(columns)) if _sound(columns, row))
        new.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 - constants
    for statement in _PUT_RIGHT.split(";"):
        new.execute(statement)
    kept = {table: int(new.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in TABLES}  # noqa: S608 - constants
    new.execute("COMMIT")
    return kept


def _columns_there(damaged: sqlite3.Connection, table: str) -> set[str]:
    """Return the columns of the table in a ledger that may be of an older version; none where that is unreadable."""
    try:
        return {str(row[1]) for row in damaged.execute(f"PRAGMA table_info({table})")}
    except sqlite3.DatabaseError:
        return set()


def _read(damaged: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    query = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - constants
    last = None
    try:
        for row in damaged.execute(f"{query} NOT INDEXED ORDER BY rowid" if table in _BY_ROW else query):
            last = row[0]
            yield row
    except sqlite3.DatabaseError:
        if table in _BY_ROW:
            yield from _read_backwards(damaged, f"{query} NOT INDEXED ORDER BY rowid DESC", last)


def _read_backwards(damaged: sqlite3.Connection, query: str, last: int | None) -> Iterator[tuple[Any, ...]]:
    try:
        for row in damaged.execute(query):
            if last is not None and isinstance(row[0], int) and row[0] <= last:
                return
            yield row
    except sqlite3.DatabaseError:
        return


def _sound(columns: dict[str, str], row: tuple[Any, ...]) -> bool:
    """Say whether the values are of the kind that they should be; a damaged page may hold anything."""
    may_be_null = {"seq", "until_ms", "until_seq"}
    return all(
        isinstance(value, _TYPES[kind]) or (value is None and name in may_be_null)
        for (name, kind), value in zip(columns.items(), row, strict=True)
    )


def _moved(table: str, columns: dict[str, str], row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Move sequence numbers below zero."""
    numbered = _NUMBERED.get(table, ())
    return tuple(
        value - MOVED_BY if name in numbered and value is not None else value
        for name, value in zip(columns, row, strict=True)
    )
