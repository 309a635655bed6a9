"""A ledger of two million strips: what is done for every strip, and the status, against an empty ledger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from agent.ledger import open_ledger
from tests.faults.reliability import Row, tell
from tests.helpers.large_ledger import fill_ledger, measure_ledger
from tests.helpers.soak import SHARE, share_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_million_rows_against_an_empty_ledger(tmp_path: Path) -> None:
    """Measured, told, not asserted; that everything still balances is."""
    rows = share_of(2_000_000)
    (tmp_path / "empty").mkdir()
    (tmp_path / "large").mkdir()
    fill_ledger(tmp_path / "large" / "ledger.db", rows)
    empty = open_ledger(tmp_path / "empty" / "ledger.db")
    began = time.perf_counter()
    large = open_ledger(tmp_path / "large" / "ledger.db")
    open_seconds = time.perf_counter() - began
    try:
        small_ms = measure_ledger(empty, tmp_path / "empty")
        large_ms = measure_ledger(large, tmp_path / "large")
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
            share=SHARE,
        )
    )
