"""Going back to an older version whose newer one has changed the ledger: nothing is lost and no id is used twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.errors import ExitCode, Fatal
from agent.ledger import open_ledger
from agent.ledger.database import take_over_newer
from agent.ledger.schema import MIGRATIONS
from agent.records import FileIdentity, SettledFile
from tests.ledger.test_replays import acknowledge, judge

if TYPE_CHECKING:
    from pathlib import Path

NEWER = f"""
    ALTER TABLE results ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';
    CREATE TABLE of_the_future (seq INTEGER PRIMARY KEY);
    PRAGMA user_version = {len(MIGRATIONS) + 1};
"""


def test_an_older_version_goes_on_with_what_a_newer_one_wrote(tmp_path: Path) -> None:
    """Strips, results and waiting messages are there; the stream is another one, and the newer ledger is kept."""
    path = tmp_path / "ledger.db"
    ledger = open_ledger(path)
    judge(ledger, 4)
    acknowledge(ledger)
    judge(ledger, 3, "waiting-for-the-broker-")
    waiting = [message.payload for message in ledger.outbox.next_outbox_messages(0, 100)]
    stream, balances = ledger.database.stream, ledger.report.balances()
    ledger.database.close()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(NEWER)
    with pytest.raises(Fatal) as refused:
        open_ledger(path)
    assert refused.value.exit_code == ExitCode.CONFIG
    aside = take_over_newer(path)
    assert aside is not None
    assert aside.name.startswith("ledger.db.newer.")
    ledger = open_ledger(path)
    assert ledger.report.balances() == balances
    assert ledger.report.audit().problems == []
    assert [message.payload for message in ledger.outbox.next_outbox_messages(0, 100)] == waiting
    assert ledger.database.stream != stream
    judge(ledger, 1, "later-")
    assert ledger.outbox.next_outbox_messages(0, 100)[-1].payload.startswith(
        b'{"msg_id":"%b-1"' % ledger.database.stream.encode()
    )
    ledger.database.close()


@pytest.mark.parametrize("lost", [False, True])
def test_where_waiting_strips_lie_is_known_afterwards_or_known_to_be_unknown(tmp_path: Path, lost: bool) -> None:
    """What is left of a damaged ledger without the folders' names must not take the next folder for theirs."""
    path = tmp_path / "ledger.db"
    ledger = open_ledger(path)
    ledger.strips.begin([SettledFile("top", "1.tif", FileIdentity(10, 1, 1))], "/before")
    ledger.database.close()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(NEWER)
        if lost:
            db.execute("DELETE FROM folders")
            db.commit()
    assert take_over_newer(path) is not None
    ledger = open_ledger(path)
    ledger.strips.begin([SettledFile("top", "2.tif", FileIdentity(10, 2, 1))], "/now")
    first = ledger.strips.next_waiting("top", 0, ())
    assert first is not None
    assert (first.path, first.folder) == ("1.tif", "" if lost else "/before")
    ledger.database.close()


def test_a_ledger_of_this_version_stays_as_it_is(tmp_path: Path) -> None:
    """There is nothing to take over; not a byte changes."""
    path = tmp_path / "ledger.db"
    open_ledger(path).database.close()
    before = path.read_bytes()
    assert take_over_newer(path) is None
    assert path.read_bytes() == before
