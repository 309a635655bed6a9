"""Two ways out of one outbox: each at its own pace, and nothing is acknowledged before both have it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.ledger import Ledger, open_ledger
from agent.ledger.schema import MIGRATIONS
from tests.ledger.test_replays import judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.ledger.outbox import Outbox, Way

BOTH: tuple[Way, ...] = ("json", "sparkplug")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a ledger with ten results that wait."""
    opened = open_ledger(tmp_path / "ledger.db")
    judge(opened, 10)
    yield opened
    opened.database.close()


def rows(outbox: Outbox) -> list[int]:
    """List what waits for a way."""
    return [message.row for message in outbox.next_outbox_messages(0, 1000)]


def acknowledged(ledger: Ledger) -> int:
    """Count the strips that are done with."""
    return ledger.report.balances()[0].ok


def replays(outbox: Outbox) -> list[int]:
    """List the numbers of what is to be sent again that way."""
    return [json.loads(message.payload)["seq"] for message in outbox.next_replays(0, 1000)]


@pytest.mark.parametrize("first", BOTH)
def test_a_result_is_acknowledged_when_both_ways_have_it(ledger: Ledger, first: Way) -> None:
    """The first one that has it only passes it over from then on."""
    one = ledger.outbox.seen_by(first, BOTH)
    other = ledger.outbox.seen_by("sparkplug" if first == "json" else "json", BOTH)
    waiting = rows(one)
    one.acknowledge(waiting[:4])
    assert (rows(one), rows(other), acknowledged(ledger)) == (waiting[4:], waiting, 0)
    other.acknowledge(waiting[2:6])
    assert (rows(one), rows(other), acknowledged(ledger)) == (waiting[4:], [*waiting[:2], *waiting[6:]], 2)
    one.acknowledge(waiting)
    other.acknowledge(waiting)
    assert (rows(one), rows(other), acknowledged(ledger)) == ([], [], 10)


def test_a_way_that_is_configured_later_gets_what_waits_and_nothing_older(ledger: Ledger) -> None:
    """What is acknowledged is not told again; what waits goes both ways."""
    waiting = rows(ledger.outbox)
    ledger.outbox.acknowledge(waiting[:7])
    assert rows(ledger.outbox.seen_by("sparkplug", BOTH)) == waiting[7:]


def test_what_only_a_way_lacked_that_is_gone_is_acknowledged_at_the_start(ledger: Ledger) -> None:
    """From `both` to `json`: nobody is left who would send it, and the other way has told it."""
    ledger.outbox.seen_by("json", BOTH).acknowledge(rows(ledger.outbox)[:6])
    ledger.outbox.settle()
    assert acknowledged(ledger) == 6
    assert len(rows(ledger.outbox)) == 4


def test_what_is_asked_for_again_goes_both_ways_once(ledger: Ledger) -> None:
    """A replay is done with when both have sent it, and asking anew begins anew."""
    json_way, sparkplug = (ledger.outbox.seen_by(way, BOTH) for way in BOTH)
    for way in (json_way, sparkplug):
        way.acknowledge(rows(way))
    ledger.replays.ask(ledger.database.stream, 3, 5)
    sent = [message.row for message in json_way.next_replays(0, 10)]
    json_way.acknowledge(sent)
    assert (replays(json_way), replays(sparkplug), ledger.replays.waiting()) == ([], [3, 4, 5], 3)
    ledger.replays.ask(ledger.database.stream, 4, 4)
    assert (replays(json_way), replays(sparkplug)) == ([4], [3, 4, 5])
    json_way.acknowledge(sent)
    sparkplug.acknowledge(sent)
    assert ledger.replays.waiting() == 0


def test_a_way_sends_again_what_it_handed_over_last(ledger: Ledger) -> None:
    """Acknowledged or not, and the other way does not: it knows that it has arrived."""
    json_way, sparkplug = (ledger.outbox.seen_by(way, BOTH) for way in BOTH)
    waiting = rows(sparkplug)
    sparkplug.acknowledge(waiting[:3])
    with ledger.database.transaction() as db:
        db.execute("UPDATE outbox SET sparkplug_ms = 1000 WHERE sparkplug_ms > 0")  # long ago
    sparkplug.acknowledge(waiting[3:8])
    json_way.acknowledge(waiting[:6])
    assert sparkplug.send_again_since(2000) == 5
    assert (rows(sparkplug), replays(sparkplug), replays(json_way)) == (waiting[6:], [4, 5, 6], [])
    assert rows(json_way) == waiting[6:]


def test_a_ledger_from_before_there_were_two_ways_goes_on(tmp_path: Path) -> None:
    """What waited waits, what was acknowledged is not sent again."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        for number, step in enumerate(MIGRATIONS[:7], start=1):
            db.executescript(f"BEGIN; {step}; PRAGMA user_version = {number}; COMMIT;")
        for state in ("acknowledged", "pending", "parked", "pending"):
            db.execute(
                "INSERT INTO outbox (topic, payload, queued_ms, state) VALUES ('event/alarm', x'7b7d', 1, ?)", [state]
            )
        db.commit()
    ledger = open_ledger(path)
    ledger.outbox.settle()
    assert rows(ledger.outbox) == rows(ledger.outbox.seen_by("sparkplug", BOTH)) == [2, 4]
    ledger.database.close()
