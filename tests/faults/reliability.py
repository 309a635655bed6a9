"""Rows of docs/reliability.md: each fault test tells what it promised, what it did and what it saw."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = ROOT / "build" / "reliability"
GROUPS = ("Power", "Processes", "Files", "TIFF", "Disk", "Ledger", "Broker", "Models", "Clock", "Load")


@dataclass(frozen=True, slots=True)
class Row:
    """One fault, as it was tried in one run; `run` says whether by `make test` or by the longer `make soak`."""

    group: Literal["Power", "Processes", "Files", "TIFF", "Disk", "Ledger", "Broker", "Models", "Clock", "Load"]
    fault: str
    promise: str
    how: str
    figures: str
    run: Literal["test", "soak"] = "test"  # by which of them
    day: str = ""
    share: float = 1.0  # of the soak's repetitions or time that was run


def tell(row: Row) -> None:
    """Keep the row for `make reliability`; call it after the last assertion."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", f"{row.group} {row.fault}".lower()).strip("-")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    text = json.dumps(asdict(row) | {"day": day}, indent=1, ensure_ascii=False)
    (FOLDER / f"{name[:100]}.{row.run}.json").write_text(text + "\n", encoding="utf-8")


def collect() -> list[Row]:
    """Return the rows of the last runs."""
    return [Row(**json.loads(path.read_text(encoding="utf-8"))) for path in FOLDER.glob("*.json")]


def one_for_each_fault(rows: Iterable[Row]) -> list[Row]:
    """Choose the longest run's row, of equal ones the newest; in the order of the table."""
    chosen: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row.run == "soak", row.share, row.day)):
        chosen[row.group, row.fault] = row
    return sorted(chosen.values(), key=lambda row: (GROUPS.index(row.group), row.fault))
