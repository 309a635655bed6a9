"""The ledger: every SQL statement of the product is in this folder.

schema.py    tables and triggers               strips.py    begin, commit, retry
identity.py  which strip a file is             models.py    what happened to models
database.py  the one writing connection        outbox.py    messages until they are acknowledged
report.py    status, lists                     audit.py     does everything add up
alarms.py    which alarms subscribers know of  replays.py   results that are sent again
salvage.py   what can be read of a damaged one purge.py     what is forgotten, and when
commands.py  who had what changed              operators.py paused cameras, operators' thresholds
wal.py       notice commits that are missing   tallies.py   counts and durations for monitoring
history.py   what was said of strips, for those who look back
reviews.py   what people say about strips      trends.py   scores over time, and what-if
shadow.py    what a shadow model says          drift.py    how strips look, by day
pages.py     what the page on the box shows    folders.py   where waiting strips were taken in
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.ledger.alarms import AlarmChange, AlarmRow, Alarms
from agent.ledger.commands import CommandRow, Commands, Ending, NewCommand
from agent.ledger.database import Database
from agent.ledger.drift import Drift
from agent.ledger.folders import Folders
from agent.ledger.history import Choice, History, Said
from agent.ledger.models import Changes, ModelRecord, Models
from agent.ledger.operators import Operators
from agent.ledger.outbox import Outbox
from agent.ledger.pages import Pages
from agent.ledger.purge import Purge
from agent.ledger.replays import Replays
from agent.ledger.report import Report
from agent.ledger.reviews import NewReview, Review, Reviews
from agent.ledger.shadow import Comparison, ShadowResults
from agent.ledger.strips import NewResult, Strips
from agent.ledger.tallies import Tallies
from agent.ledger.trends import Trends

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "AlarmChange",
    "AlarmRow",
    "Changes",
    "Choice",
    "CommandRow",
    "Comparison",
    "Ending",
    "Ledger",
    "ModelRecord",
    "NewCommand",
    "NewResult",
    "NewReview",
    "Review",
    "Said",
    "ShadowResults",
    "open_ledger",
]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The parts of one ledger; they share the database."""

    database: Database
    strips: Strips
    outbox: Outbox
    report: Report
    models: Models
    purge: Purge
    alarms: Alarms
    replays: Replays
    commands: Commands
    operators: Operators
    tallies: Tallies
    history: History
    reviews: Reviews
    trends: Trends
    shadow: ShadowResults
    drift: Drift
    pages: Pages
    folders: Folders


def open_ledger(path: Path, *, patience: Callable[[float], object] = lambda _: None) -> Ledger:
    """Open the ledger, making or migrating it; `patience` is called with the seconds that this may take.

    A damaged one is set aside (`database.set_aside`), and a new one begins with what can be read of it.

    Raises Fatal where it can be neither read nor made.
    """
    database = Database(path, patience=patience)
    return Ledger(
        database,
        Strips(database),
        Outbox(database),
        Report(database),
        Models(database),
        Purge(database),
        Alarms(database),
        Replays(database),
        Commands(database),
        Operators(database),
        Tallies(database),
        History(database),
        Reviews(database),
        Trends(database),
        ShadowResults(database),
        Drift(database),
        Pages(database),
        Folders(database),
    )
