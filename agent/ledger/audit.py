"""What the audit holds against each other: the rows among themselves, and the rows and the counters.

A ledger may hold millions of rows, so each of them is looked at once, in the order in which it lies on the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

PENDING = ("waiting", "judged")
ACKNOWLEDGED = ("ok", "anomalous", "invalid")
STATES = (*PENDING, *ACKNOWLEDGED, "skipped", "dropped")

Counts = dict[str, dict[str, int]]  # camera -> state -> number of strips

# Message by message in the order of `seq`, with its result, and with its strip where that is of the result's revision.
# There is one message at most for each result. `state IN (...)` would look into a table for each of them.
_WALK = """
    SELECT count(*),
        total(CASE o.state WHEN 'acknowledged' THEN s.state = r.verdict
                  AND (s.state = 'ok' OR s.state = 'anomalous' OR s.state = 'invalid') END),
        total(CASE o.state WHEN 'pending' THEN s.state = 'judged' WHEN 'parked' THEN s.state = 'judged' END),
        total(CASE o.state WHEN 'acknowledged' THEN r.delivery_ended <> 1 WHEN 'dropped' THEN r.delivery_ended <> 1
                  WHEN 'superseded' THEN r.delivery_ended <> 1 ELSE r.delivery_ended <> 0 END),
        total(r.heatmap_bytes)
    FROM outbox AS o INDEXED BY outbox_delivery CROSS JOIN results AS r ON r.seq = o.seq
        LEFT JOIN strips AS s ON s.id = r.strip AND s.revision = r.revision
    WHERE o.seq IS NOT NULL"""
_COUNTS = """
    SELECT camera, state, count(*) FROM strips INDEXED BY strips_acknowledged
        WHERE state IN ('ok', 'anomalous', 'invalid') GROUP BY camera, state
    UNION ALL SELECT camera, state, count(*) FROM strips INDEXED BY strips_unpublished
        WHERE state IN ('waiting', 'judged', 'skipped', 'dropped') GROUP BY camera, state"""
_WAITING_WITH_RESULT = """
    SELECT count(*) FROM strips AS s WHERE s.state = 'waiting' AND EXISTS (
        SELECT 1 FROM results AS r WHERE r.strip = s.id AND r.revision = s.revision)"""


def count_strips(db: sqlite3.Connection) -> Counts:
    """Count the rows of strips in every state that exists."""
    return _by_camera(db.execute(_COUNTS))


def count_strips_since(db: sqlite3.Connection, since_ms: int) -> Counts:
    """Count those begun since then."""
    query = "SELECT camera, state, count(*) FROM strips WHERE seen_ms >= ? GROUP BY camera, state"
    return _by_camera(db.execute(query, (since_ms,)))


def _by_camera(rows: Iterable[tuple[str, str, int]]) -> Counts:
    counts: Counts = {}
    for camera, state, n in rows:
        counts.setdefault(camera, {})[state] = n
    return counts


def disagreements(db: sqlite3.Connection, strips: Counts) -> list[str]:
    """Say in sentences what the rows contradict each other in; `strips` is from `count_strips`."""
    messages, acknowledged, judged, wrongly_ended, heatmap_bytes = map(int, db.execute(_WALK).fetchone())
    all_strips = _number(db, "SELECT count(*) FROM strips")
    results = _number(db, "SELECT count(*) FROM results")
    if messages != results:  # those without a message were not met on the way
        heatmap_bytes = _number(db, "SELECT coalesce(sum(heatmap_bytes), 0) FROM results")
    in_state = {state: sum(states.get(state, 0) for states in strips.values()) for state in STATES}
    found = {
        "strips are in a state that does not exist": all_strips - sum(in_state.values()),
        "strips count as acknowledged although no acknowledged message says so": (
            sum(in_state[state] for state in ACKNOWLEDGED) - acknowledged
        ),
        "strips are judged but have no message waiting for the broker": in_state["judged"] - judged,
        "strips wait although their result exists": _number(db, _WAITING_WITH_RESULT),
        "sequence numbers have no result": _counter(db, "seq") - _counter(db, "purged_results") - results,
        "bytes of heatmaps are counted that no result has": _counter(db, "heatmap_bytes") - heatmap_bytes,
        "results disagree with their message about whether it was delivered": wrongly_ended,
        "results have no message": results - messages,
    }
    return [f"{number} {text}" for text, number in found.items() if number]


def counter_disagreements(db: sqlite3.Connection, strips: Counts) -> list[str]:
    """Say where the counters, which triggers keep, differ from the rows."""
    query = "SELECT name, state, n FROM counters WHERE kind = 'strip' AND n <> 0"
    counted = _by_camera(db.execute(query))
    return [
        f"camera {camera}: the rows count {strips.get(camera, {})}, the counters {counted.get(camera, {})}"
        for camera in sorted(set(strips) | set(counted))
        if strips.get(camera, {}) != counted.get(camera, {})
    ]


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])


def _counter(db: sqlite3.Connection, kind: str) -> int:
    row = db.execute("SELECT n FROM counters WHERE kind = ?", (kind,)).fetchone()
    return int(row[0]) if row else 0
