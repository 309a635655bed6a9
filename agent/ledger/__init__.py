"""The ledger: every SQL statement of the product is in this folder.

schema.py    tables and triggers          strips.py  begin, commit, retry
versions.py  which strip a file is
database.py  the one writing connection   outbox.py  messages until they are acknowledged
report.py    status, lists, the audit     purge.py   what is forgotten, and when
salvage.py   what can be read of a damaged ledger   wal.py    notice commits that are missing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.ledger.database import Database
from agent.ledger.models import Changes, ModelRecord, Models
from agent.ledger.outbox import Outbox
from agent.ledger.purge import Purge
from agent.ledger.report import Report
from agent.ledger.strips import NewResult, Strips

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Changes", "Ledger", "ModelRecord", "NewResult", "open_ledger"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The parts of one ledger; they share the database."""

    database: Database
    strips: Strips
    outbox: Outbox
    report: Report
    models: Models
    purge: Purge


def open_ledger(path: Path, *, patience: Callable[[float], object] = lambda _: None) -> Ledger:
    """Open the ledger, making or migrating it; `patience` is called with the seconds that this may take.

    A damaged one is set aside (`database.set_aside`), and a new one begins with what can be read of it.

    Raises Fatal where it can be neither read nor made.
    """
    database = Database(path, patience=patience)
    return Ledger(database, Strips(database), Outbox(database), Report(database), Models(database), Purge(database))
