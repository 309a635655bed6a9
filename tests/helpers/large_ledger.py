"""A ledger of any number of finished strips, and what the steps of every strip cost in it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from agent.clock import DAY_MS
from agent.config import Config
from agent.heatmap_folder import HeatmapFolder
from agent.ledger import Ledger, NewResult, open_ledger
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROUNDS = 300
DAYS = 90  # over which the strips came

# The triggers would count each row by itself, which takes minutes; their sums are written instead.
_FILL = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO strips (id, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, occurrence, lane, state,
                            seen_ms)
        SELECT i, lower(hex(randomblob(8))), 'top', CAST('2026-11-' || i || '.tif' AS BLOB), 2000000,
               1700000000000000000 + i, 1, 0, 0, 'ok', 1700000000000 + i * {apart_ms} FROM n;
    INSERT INTO results (seq, strip, camera, revision, committed_ms, captured_ts_ms, verdict, reason, score,
                         model_sha256, heatmap_bytes, delivery_ended, detail)
        SELECT id, id, camera, 1, seen_ms, seen_ms, 'ok', '', (id * 7919 % 1000) / 2000.0, 'm', id % 2 * 2000, 1, ''
        FROM strips;
    INSERT INTO outbox (id, topic, payload, seq, queued_ms, state)
        SELECT id, 'event/strip/top', randomblob(400), id, seen_ms, 'acknowledged' FROM strips;
    INSERT INTO counters VALUES ('seen', 'top', '', {rows}), ('strip', 'top', 'ok', {rows}), ('seq', '', '', {rows}),
        ('outbox', '', 'acknowledged', {rows}), ('heatmap_bytes', '', '', {rows} / 2 * 2000);
"""


def fill_ledger(path: Path, rows: int) -> None:
    """Write a ledger in which so many strips are judged and acknowledged."""
    ledger = open_ledger(path)
    db = ledger.database._connection
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    db.execute("PRAGMA synchronous = OFF")
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    if rows:  # the first one is always made
        db.executescript(f"BEGIN; {_FILL.format(rows=rows, apart_ms=DAYS * DAY_MS // rows)} COMMIT;")
    for _, sql in triggers:
        db.execute(sql)
    ledger.database.close()


def _median_ms(step: Callable[[int], object], rounds: int = ROUNDS) -> float:
    times = []
    for number in range(rounds):
        began = time.perf_counter()
        step(number)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def measure_ledger(ledger: Ledger, folder: Path) -> dict[str, float]:
    """Return milliseconds of each step by its name, medians of many rounds."""
    files = [SettledFile("top", f"new{number}.tif", FileIdentity(10, number, 1)) for number in range(ROUNDS)]
    result = NewResult("ok", "", 0.1, "m", 0, "d", "event/strip/top", dispose=False)

    def commit(_: int) -> None:
        strip = ledger.strips.next_waiting("top", 0, ())
        assert strip is not None
        ledger.strips.commit(strip, result, lambda _seq, _ts: b"x" * 900, 10**7)

    def acknowledge(_: int) -> None:
        ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 1)])

    config = Config.model_validate(
        {
            "agent": {"state_folder": str(folder)},
            "cameras": [{"name": "top", "folder": str(folder)}],
            "heatmaps": {"keep_days": 36500, "min_free_gib": 0, "keep_gib": 100000},
        }
    )
    heatmap_folder = HeatmapFolder(config, ledger)
    return {
        "known": _median_ms(lambda number: ledger.strips.known([files[number]])),
        "begin": _median_ms(lambda number: ledger.strips.begin([files[number]])),
        "commit": _median_ms(commit),
        "acknowledge": _median_ms(acknowledge),
        "status": _median_ms(lambda _: (ledger.report.balances(), ledger.report.depths())),
        "heatmap retention": _median_ms(lambda _: heatmap_folder.remove_old_heatmaps(), 5),
    }
