"""A ledger of two million strips: what is done for every strip, and the status, against an empty ledger."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pytest

from agent.config import Config
from agent.housekeeping import Housekeeping
from agent.ledger import Ledger, NewResult, open_ledger
from agent.records import FileIdentity, SettledFile
from tests.faults.reliability import Row, tell
from tests.helpers.soak import share_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROUNDS = 300

# The triggers would count each row by itself, which takes minutes; their sums are written instead.
_FILL = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO strips (id, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, occurrence, lane, state,
                            seen_ms)
        SELECT i, lower(hex(randomblob(8))), 'top', CAST('2026-11-' || i || '.tif' AS BLOB), 2000000,
               1700000000000000000 + i, 1, 0, 0, 'ok', 1700000000000 + i FROM n;
    INSERT INTO results SELECT id, id, camera, 1, seen_ms, seen_ms, 'ok', '', 0.1, 'm', id % 2 * 2000, 1 FROM strips;
    INSERT INTO outbox (id, topic, payload, seq, queued_ms, state)
        SELECT id, 'event/strip/top', randomblob(400), id, seen_ms, 'acknowledged' FROM strips;
    INSERT INTO counters VALUES ('seen', 'top', '', {rows}), ('strip', 'top', 'ok', {rows}), ('seq', '', '', {rows}),
        ('outbox', '', 'acknowledged', {rows}), ('heatmap_bytes', '', '', {rows} / 2 * 2000);
"""


def _fill(path: Path, rows: int) -> None:
    ledger = open_ledger(path)
    db = ledger.database._connection
    triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    db.execute("PRAGMA synchronous = OFF")
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    db.executescript(f"BEGIN; {_FILL.format(rows=rows)} COMMIT;")
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


def _measure(ledger: Ledger, folder: Path) -> dict[str, float]:
    """Return milliseconds, medians of many rounds."""
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
            "heatmaps": {"keep_days": 100000, "min_free_gib": 0, "keep_gib": 100000},
        }
    )
    housekeeping = Housekeeping(config, ledger)
    return {
        "known": _median_ms(lambda number: ledger.strips.known([files[number]])),
        "begin": _median_ms(lambda number: ledger.strips.begin([files[number]])),
        "commit": _median_ms(commit),
        "acknowledge": _median_ms(acknowledge),
        "status": _median_ms(lambda _: (ledger.report.balances(), ledger.report.depths())),
        "heatmap retention": _median_ms(lambda _: housekeeping.remove_old_heatmaps(), 5),
    }


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_million_rows_against_an_empty_ledger(tmp_path: Path) -> None:
    """Measured, told, not asserted; that everything still balances is."""
    rows = share_of(2_000_000)
    (tmp_path / "empty").mkdir()
    (tmp_path / "large").mkdir()
    _fill(tmp_path / "large" / "ledger.db", rows)
    empty = open_ledger(tmp_path / "empty" / "ledger.db")
    began = time.perf_counter()
    large = open_ledger(tmp_path / "large" / "ledger.db")
    open_seconds = time.perf_counter() - began
    try:
        small_ms = _measure(empty, tmp_path / "empty")
        large_ms = _measure(large, tmp_path / "large")
        began = time.perf_counter()
        audit = large.report.audit()
        audit_seconds = time.perf_counter() - began
        assert audit.balanced, audit.problems
        size_mib = large.database.path.stat().st_size >> 20
    finally:
        empty.database.close()
        large.database.close()
    told = [
        f"{name} {small_ms[name]:.2f} -> {large_ms[name]:.2f} ms ({large_ms[name] / small_ms[name]:.1f} times)"
        for name in small_ms
    ]
    figures = (
        f"empty -> {rows:,} strips ({size_mib} MiB): {', '.join(told)}; opened and checked in {open_seconds:.1f} s, "
        f"audit {audit_seconds:.1f} s"
    )
    print(figures)  # noqa: T201 - a measurement
    tell(
        Row(
            "Ledger",
            "two million strips",
            "begin, commit, acknowledge and status take no longer than twice as long as in an empty ledger",
            "rows made by SQL, then 300 strips one by one; medians",
            figures,
            "soak",
        )
    )
