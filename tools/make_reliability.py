"""Writes docs/reliability.md from what the fault tests told in their last runs; called by `make reliability`.

Faults that were not tried again keep the row that the page has, with its date.
"""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.reliability import GROUPS, Row, collect, one_for_each_fault

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"

HEAD = """# Every fault, tried

This page is written by the fault tests themselves (`make reliability`); nobody types a figure. Each row is a fault,
what is promised, how the fault is made for real, and what the last run saw.

Two judges speak in every test that runs the service: a subscriber that keeps every message, and `strip-agent audit
--json`. Both have to agree with the list of the files that the test has written: every strip published once for each
revision, repeats with the same id and the same bytes, sequence numbers without a gap, the same counts by camera and
verdict, nothing pending, nothing dropped.

What a folder that hangs or is away costs is told place by place in [folders](folders.md).

Each row has its day. Rows marked *soak* are of the longer runs (`make soak`); where only a part of one was run the row
says how much of it (those of before 2026-11-29 do not: their figures do). The longest run of a fault stands here, of
equal ones the newest; a row of an earlier day tells of the code of that day.

The runs of 2026-11-29 had little of the processor: at a low priority, on 2 cores that 20 to 60 processes wanted. Their
times and rates say nothing of a box's; one stop took longer than is promised.
"""

LIMITS = """## What is not promised

- A write-ahead log that is removed by hand (or whose very last transaction is damaged) after a kill cannot be told from
  one that was never written: the strips concerned are scored again, and their messages may carry ids that were used
  before. Damage further in front is noticed, and a new stream begins.
- Bits that flip inside a row of the ledger without breaking a page are not noticed; SQLite keeps no checksums of pages.
- Heatmaps of a ledger that could not be read at all are not removed by retention, which only touches files that the
  ledger knows. Remove the folders of old dates by hand after the alarm `ledger_was_damaged`.
- A disk that says "flushed" and has not is beyond any program.
- What a broker has acknowledged is the broker's. One that is killed, or loses power, may have forgotten it before it
  reached its subscribers or its own disk; the tests that kill it tell such messages apart by the time of the kill.
  `seq` shows the gap, and `strip-agent strips list` has the results.
- A file that its writer leaves alone for longer than `settle_seconds` looks complete. It is published as `invalid` at
  worst, and scored once it is whole; `settle_seconds` is the setting for slow writers.
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(rows: list[Row]) -> str:
    lines = ["| fault | promised | how it is made | seen |", "|---|---|---|---|"]
    for row in rows:
        when = f"{row.day}, soak" if row.run == "soak" else row.day
        when += f", {100 * row.share:.0f} % of its length" if row.share < 1 else ""
        lines.append(
            f"| {_cell(row.fault)} | {_cell(row.promise)} | {_cell(row.how)} | {_cell(row.figures)} *({when})* |"
        )
    return "\n".join(lines)


ROW = re.compile(
    r"^\| (.*?) \| (.*?) \| (.*?) \| (.*) \*\((\d{4}-\d\d-\d\d)(, soak)?(?:, (\d+) % of its length)?\)\* \|$"
)


def rows_of(page: str) -> list[Row]:
    """Read the page's rows back."""
    rows: list[Row] = []
    group = ""
    for line in page.splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif group in GROUPS and (found := ROW.match(line)):
            fault, promise, how, figures, day, soak, percent = (
                cell.replace("\\|", "|") for cell in found.groups(default="")
            )
            share = int(percent) / 100 if percent else 1.0
            rows.append(Row(group, fault, promise, how, figures, "soak" if soak else "test", day, share))  # type: ignore[arg-type] # one of GROUPS
    return rows


def main() -> int:
    """Write the page; 1 when no test has told anything."""
    told = collect()
    if not told:
        print("no fault test has run yet; run: make reliability")
        return 1
    rows = one_for_each_fault([*rows_of(PAGE.read_text(encoding="utf-8")), *told])
    machine = (
        f"Last written on Linux {platform.release().split('-')[0]} ({platform.machine()}), {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}.\n"
    )
    parts = [HEAD, machine]
    parts += [
        f"## {group}\n\n{_table(found)}\n" for group in GROUPS if (found := [row for row in rows if row.group == group])
    ]
    PAGE.write_text("\n".join([*parts, LIMITS]), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
