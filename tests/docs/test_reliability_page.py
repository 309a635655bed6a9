"""docs/reliability.md: one row for each fault, and none is lost when the page is written again."""

from __future__ import annotations

from tests.faults.reliability import Row, one_for_each_fault
from tools.make_reliability import PAGE, _table, rows_of


def test_each_fault_has_one_row_and_the_page_is_read_back_as_it_was_written() -> None:
    """A fault that is not tried again keeps its row, its figures and its day."""
    rows = rows_of(PAGE.read_text(encoding="utf-8"))
    assert rows
    assert one_for_each_fault(rows) == rows
    cells = Row("Disk", "a | b", "stays whole", "by hand", "1 of 2 (50 %)", "soak", "2026-01-02")
    part = Row("Disk", "a part", "stays whole", "by hand", "1", "soak", "2026-01-02", share=0.05)
    assert rows_of(f"## Disk\n\n{_table([cells, part])}\n") == [cells, part]


def test_the_long_run_of_a_fault_stands_for_it() -> None:
    """The figures of the short run, which is made at every change, do not displace those of the long one."""
    long_run = Row("Disk", "full", "", "", "long", "soak", "2026-01-01")
    short = Row("Disk", "full", "", "", "short", "test", "2026-02-01")
    newer = Row("Disk", "full", "", "", "longer", "soak", "2026-03-01")
    assert one_for_each_fault([short, long_run]) == [long_run]
    assert one_for_each_fault([newer, short, long_run]) == [newer]
    part = Row("Disk", "full", "", "", "a part", "soak", "2026-04-01", share=0.05)
    assert one_for_each_fault([part, short]) == [part]
    assert one_for_each_fault([part, long_run]) == [long_run]
