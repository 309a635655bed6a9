"""Results that somebody asks for again: which they are, what they carry, and that they survive."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.ledger import Ledger, NewResult, open_ledger
from agent.ledger.strips import LIVE
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a ledger with ten acknowledged results."""
    opened = open_ledger(tmp_path / "ledger.db")
    judge(opened, 10)
    acknowledge(opened)
    yield opened
    opened.database.close()


def judge(ledger: Ledger, number: int, name: str = "") -> None:
    """Bring so many strips to a result, whose bytes look like those of a message."""
    stream = ledger.database.stream
    ledger.strips.begin([SettledFile("top", f"{name}{n}.tif", FileIdentity(10, n, 1)) for n in range(number)])
    result = NewResult("ok", "", 0.1, "m", 0, "d", "event/strip/top", dispose=False)
    while (strip := ledger.strips.next_waiting("top", LIVE, ())) is not None:

        def payload(seq: int, _: int, file: str = strip.path) -> bytes:
            values = {"msg_id": f"{stream}-{seq}", "stream": stream, "seq": seq, "file": file, "replayed": False}
            return json.dumps(values, separators=(",", ":")).encode()

        ledger.strips.commit(strip, result, payload, 10**6)


def acknowledge(ledger: Ledger) -> None:
    """Let the broker have everything."""
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 1000)])


def replays(ledger: Ledger) -> dict[int, bytes]:
    """Return what waits to be sent again, by its number, in the order of sending."""
    return {json.loads(m.payload)["seq"]: m.payload for m in ledger.outbox.next_replays(0, 20_000)}


def test_what_is_sent_again_are_the_stored_bytes_that_say_so(ledger: Ledger) -> None:
    """The same msg_id, in order, on a topic of their own; only `replayed` differs."""
    asked = ledger.replays.ask(ledger.database.stream, 3, 5)
    assert (asked.queued, asked.waiting, asked.purged) == (3, 0, [])
    found = ledger.outbox.next_replays(0, 100)
    assert [message.topic for message in found] == ["replay/strip/top"] * 3
    with closing(sqlite3.connect(ledger.database.path)) as db:
        stored = [row[0] for row in db.execute("SELECT payload FROM outbox WHERE seq BETWEEN 3 AND 5 ORDER BY seq")]
    assert [message.payload for message in found] == [
        payload.replace(b'"replayed":false', b'"replayed":true') for payload in stored
    ]
    assert all(json.loads(message.payload)["replayed"] is True for message in found)


def test_a_file_name_that_looks_like_the_key_changes_nothing(ledger: Ledger) -> None:
    """Only the key itself is turned, whatever a camera calls its files."""
    judge(ledger, 1, name='x","replayed":false,"y":"')
    acknowledge(ledger)
    ledger.replays.ask(ledger.database.stream, 11, 11)
    (message,) = ledger.outbox.next_replays(0, 10)
    values = json.loads(message.payload)
    assert (values["file"], values["replayed"]) == ('x","replayed":false,"y":"0.tif', True)


def test_they_wait_over_a_restart_until_they_are_acknowledged(tmp_path: Path, ledger: Ledger) -> None:
    """What was promised to somebody is sent after a kill as well, and once."""
    ledger.replays.ask(ledger.database.stream, 1, 4)
    ledger.replays.ask(ledger.database.stream, 2, 6)
    first, second, *_ = ledger.outbox.next_replays(0, 100)
    ledger.outbox.acknowledge([first.row, second.row])
    again = open_ledger(tmp_path / "ledger.db")
    assert list(replays(again)) == [3, 4, 5, 6]
    assert again.report.depths().replays == again.replays.waiting() == 4
    assert again.report.audit().balanced
    again.database.close()


def test_what_waits_for_the_broker_is_not_sent_twice(ledger: Ledger) -> None:
    """It arrives by itself; numbers that were never given are not called purged."""
    judge(ledger, 3, "new")
    asked = ledger.replays.ask(ledger.database.stream, 9, 20)
    assert (asked.queued, asked.waiting, asked.purged, asked.last_seq) == (2, 3, [], 13)
    assert list(replays(ledger)) == [9, 10]


def test_purged_numbers_are_named_and_purging_takes_replays_along(ledger: Ledger) -> None:
    """Nobody waits for what the ledger does not hold any more."""
    ledger.replays.ask(ledger.database.stream, 1, 10)
    rows = [strip.row for strip in ledger.purge.old_strips("top", 1 << 62, 0, 100)]
    ledger.purge.forget([*rows[:3], rows[5]])
    assert list(replays(ledger)) == [4, 5, 7, 8, 9, 10]
    asked = ledger.replays.ask(ledger.database.stream, 1, 10)
    assert (asked.queued, asked.purged) == (6, [(1, 3), (6, 6)])


def test_dropped_results_can_be_sent(ledger: Ledger) -> None:
    """The broker was away for longer than the outbox is long: what was dropped is still in the ledger."""
    judge(ledger, 1, "dropped")
    with ledger.database.transaction() as db:
        db.execute("UPDATE outbox SET state = 'dropped' WHERE seq = 11")
    assert ledger.replays.ask(ledger.database.stream, 11, 11).queued == 1


def test_results_of_a_damaged_ledger_are_found_by_their_own_stream(tmp_path: Path, ledger: Ledger) -> None:
    """What was brought over keeps its name and number for subscribers."""
    old = ledger.database.stream
    ledger.database.close()
    path = tmp_path / "ledger.db"
    later = []
    for _ in range(2):  # damaged twice
        with closing(sqlite3.connect(path)) as db:
            (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'models'").fetchone()
        data = bytearray(path.read_bytes())
        data[4096 * (page - 1) : 4096 * page] = b"\xff" * 4096
        path.write_bytes(data)
        again = open_ledger(path)
        assert again.database.set_aside is not None
        judge(again, 2, again.database.stream)
        acknowledge(again)
        later.append(again.database.stream)
        again.database.close()
    again = open_ledger(path)
    assert again.replays.ask(old, 4, 12).purged == [(11, 12)]
    assert [json.loads(payload)["msg_id"] for payload in replays(again).values()] == [
        f"{old}-{n}" for n in range(4, 11)
    ]
    assert again.replays.ask(later[0], 1, 2).queued == 2
    assert again.replays.ask("0" * 8, 1, 2).purged == [(1, 2)]
    again.database.close()
