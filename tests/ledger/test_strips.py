"""The ledger: every strip in exactly one state, every result with its message, nothing forgotten too early."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger import Ledger, NewResult, open_ledger
from agent.ledger.schema import MIGRATIONS
from agent.ledger.strips import BACKLOG, LIVE, RETRIED
from agent.records import FileIdentity, SettledFile, Strip
from tests.helpers.examples import ON_DISK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLENTY = 1_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def file(name: str = "a.tif", *, mtime: int = 1, ctime: int = 1, camera: str = "top", **more: bool) -> SettledFile:
    """Make a settled file."""
    return SettledFile(camera, name, FileIdentity(10, mtime, ctime), **more)


def result(verdict: str = "ok", **more: object) -> NewResult:
    """Make a result."""
    values = {"reason": "", "score": 0.1, "model_sha256": "m", "heatmap_bytes": 0, "digest": "d", "dispose": False}
    return NewResult(verdict=verdict, topic="event/strip/top", **values | more)  # type: ignore[arg-type]


def payload(seq: int, ts_ms: int) -> bytes:
    """Make a message."""
    return json.dumps({"seq": seq, "ts_ms": ts_ms}).encode()


def begin(ledger: Ledger, *files: SettledFile) -> Strip:
    """Begin files and return the next strip of the first one's camera."""
    ledger.strips.begin(files)
    lane = BACKLOG if files[0].backlog else LIVE
    strip = ledger.strips.next_waiting(files[0].camera, lane, ())
    assert strip is not None
    return strip


def acknowledge_all(ledger: Ledger) -> None:
    """Let the broker have everything."""
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 1000)])


def states(ledger: Ledger) -> dict[str, str]:
    """Return path -> state."""
    return {row["file"]: row["state"] for row in ledger.report.list_strips(state=None, camera=None, limit=1000)}


def test_whether_any_strip_waits_is_known_without_asking_for_each_camera(ledger: Ledger) -> None:
    """Fresh ones, and those that a worker was lost on; of whatever camera, besides those that are in work already."""
    assert not ledger.strips.any_waits(())
    strip = begin(ledger, file(camera="side"))
    assert ledger.strips.any_waits(())
    assert not ledger.strips.any_waits({strip.row})
    ledger.strips.put_back(strip.row, 1)
    assert ledger.strips.any_waits(())
    another = begin(ledger, file("b.tif"))
    assert ledger.strips.any_waits({strip.row})
    assert not ledger.strips.any_waits({strip.row, another.row})
    for judged in (strip, another):
        ledger.strips.commit(judged, result(), payload, PLENTY)
    assert not ledger.strips.any_waits(())


def test_a_strip_is_accounted_for_from_begin_on(ledger: Ledger) -> None:
    """Seen, judged, acknowledged: at each moment the strip counts once."""
    strip = begin(ledger, file())
    assert states(ledger) == {"a.tif": "waiting"}
    assert ledger.report.audit().balanced
    ledger.strips.commit(strip, result("anomalous"), payload, PLENTY)
    assert states(ledger) == {"a.tif": "judged"}
    assert ledger.report.audit().balanced
    acknowledge_all(ledger)
    assert states(ledger) == {"a.tif": "anomalous"}
    audit = ledger.report.audit()
    assert audit.balanced
    assert audit.unpublished == []


def test_the_same_file_seen_again_is_the_same_strip(ledger: Ledger) -> None:
    """Rescans, events and restarts bring a file many times; it is begun once."""
    for _ in range(3):
        assert ledger.strips.begin([file()]) == []
    assert ledger.report.balances()[0].seen == 1
    assert ledger.strips.known([file(), file("b.tif")]) == {"a.tif"}


def test_the_same_name_with_another_mtime_is_a_new_strip(ledger: Ledger) -> None:
    """A camera that uses its names again loses nothing."""
    ledger.strips.begin([file(mtime=1), file(mtime=2)])
    assert ledger.report.balances()[0].seen == 2


def test_another_ctime_alone_is_decided_by_the_digest(ledger: Ledger) -> None:
    """A chmod makes no new strip; other bytes under the same size and mtime do."""
    strip = begin(ledger, file())
    ledger.strips.commit(strip, result(digest="old"), payload, PLENTY)
    touched = file(ctime=2)
    assert ledger.strips.begin([touched]) == [touched]
    assert not ledger.strips.begin_by_digest(touched, "old")
    assert ledger.strips.known([touched]) == {"a.tif"}
    rewritten = file(ctime=3)
    assert ledger.strips.begin_by_digest(rewritten, "new")
    assert ledger.report.balances()[0].seen == 2
    assert ledger.report.audit().balanced


def test_a_path_that_the_agent_removed_itself_is_always_new(ledger: Ledger) -> None:
    """After a disposal the same name, size and mtime is a strip of its own."""
    strip = begin(ledger, file())
    ledger.strips.commit(strip, result(dispose=True), payload, PLENTY)
    assert ledger.strips.due_for_disposal(strip.camera, 0, 10) == []  # not before the broker has it
    acknowledge_all(ledger)
    assert [due.row for due, _ in ledger.strips.due_for_disposal(strip.camera, 0, 10)] == [strip.row]
    ledger.strips.disposed(strip.row, "done")
    assert ledger.strips.known([file()]) == set()
    ledger.strips.begin([file()])
    assert ledger.report.balances()[0].seen == 2


def test_a_half_written_strip_grows_with_its_file(ledger: Ledger) -> None:
    """A writer that pauses longer than the settle time makes one strip, not two."""
    strip = begin(ledger, file(mtime=1))
    ledger.strips.mark_half_written(strip.row)
    ledger.strips.begin([file(mtime=2)])
    assert ledger.report.balances()[0].seen == 1
    grown = ledger.strips.next_waiting("top", LIVE, ())
    assert grown is not None
    assert grown.row == strip.row
    assert grown.identity.mtime_ns == 2


def test_order_is_by_mtime_and_path_within_a_lane(ledger: Ledger) -> None:
    """The oldest picture of a camera comes first, and what waits for something else does not stand in the way."""
    ledger.strips.begin([file("b.tif", mtime=2), file("c.tif", mtime=1), file("a.tif", mtime=2)])
    found: list[str] = []
    taken: set[int] = set()
    while strip := ledger.strips.next_waiting("top", LIVE, taken):
        found.append(strip.path)
        taken.add(strip.row)
    assert found == ["c.tif", "a.tif", "b.tif"]


def test_backlog_is_a_lane_of_its_own_and_skipped_strips_are_counted(ledger: Ledger) -> None:
    """What the backlog rule leaves out is seen and skipped, never silently ignored."""
    ledger.strips.begin([file("old.tif", backlog=True), file("older.tif", backlog=True, skip=True), file("new.tif")])
    assert ledger.strips.next_waiting("top", LIVE, ()).path == "new.tif"  # type: ignore[union-attr]
    assert ledger.strips.next_waiting("top", BACKLOG, ()).path == "old.tif"  # type: ignore[union-attr]
    balance = ledger.report.balances()[0]
    assert (balance.seen, balance.waiting, balance.skipped) == (3, 2, 1)


def test_a_strip_that_cost_a_worker_goes_to_the_end_of_the_queue(ledger: Ledger) -> None:
    """Everything that waited at that time is served first; what came later is not."""
    lost = begin(ledger, file("lost.tif"))
    ledger.strips.begin([file("waits.tif", mtime=2)])
    ledger.strips.put_back(lost.row, 1)
    ledger.strips.begin([file("later.tif", mtime=3)])
    assert ledger.strips.next_again(["top"], ()) is None
    waits = ledger.strips.next_waiting("top", LIVE, ())
    assert waits is not None
    assert waits.path == "waits.tif"
    ledger.strips.commit(waits, result(), payload, PLENTY)
    again = ledger.strips.next_again(["top"], ())
    assert again is not None
    assert (again.path, again.attempts) == ("lost.tif", 1)


def test_a_strip_that_cost_a_worker_waits_for_nobody_who_cannot_be_served(ledger: Ledger) -> None:
    """Neither a camera whose folder is away nor a half written file keeps it from its second attempt."""
    lost = begin(ledger, file("lost.tif"))
    ledger.strips.begin([file("away.tif", camera="away"), file("half.tif", mtime=2)])
    ledger.strips.put_back(lost.row, 1)
    half = ledger.strips.next_waiting("top", LIVE, ())
    assert half is not None
    assert ledger.strips.next_again(["top"], ()) is None
    assert ledger.strips.next_again(["top", "away"], {half.row}) is None
    assert ledger.strips.next_again([], {half.row}) is None
    assert ledger.strips.next_again(["top"], {half.row, lost.row}) is None
    again = ledger.strips.next_again(["top"], {half.row})
    assert again is not None
    assert again.row == lost.row


def test_retry_is_a_new_revision_with_a_new_message(ledger: Ledger) -> None:
    """The old result stays; the strip is pending again until the new one is acknowledged."""
    strip = begin(ledger, file())
    ledger.strips.commit(strip, result("invalid", reason="incomplete", score=-1.0), payload, PLENTY)
    acknowledge_all(ledger)
    assert ledger.strips.retry([strip.row]) == {}
    assert ledger.strips.retry([strip.row]) == {strip.row: "is waiting to be judged already"}
    again = ledger.strips.next_waiting("top", RETRIED, ())
    assert again is not None
    assert again.revision == 2
    assert again.strip_id == strip.strip_id
    ledger.strips.commit(again, result("ok"), payload, PLENTY)
    acknowledge_all(ledger)
    assert states(ledger) == {"a.tif": "ok"}
    assert ledger.report.audit().balanced


def test_a_late_acknowledgement_of_an_old_revision_changes_nothing(ledger: Ledger) -> None:
    """Only the newest result decides what a strip is."""
    strip = begin(ledger, file())
    ledger.strips.commit(strip, result("anomalous"), payload, PLENTY)
    ledger.strips.retry([strip.row])
    acknowledge_all(ledger)
    assert states(ledger) == {"a.tif": "waiting"}
    assert ledger.report.audit().balanced


def test_outbox_limit_drops_the_oldest_and_names_it(ledger: Ledger) -> None:
    """Above the limit the oldest message goes, and the audit says which strip that was."""
    for number in range(5):
        ledger.strips.commit(begin(ledger, file(f"{number}.tif", mtime=number)), result(), payload, 3)
    assert [json.loads(m.payload)["seq"] for m in ledger.outbox.next_outbox_messages(0, 10)] == [3, 4, 5]
    audit = ledger.report.audit()
    assert audit.balanced
    assert audit.cameras[0].dropped == 2
    assert [item["file"] for item in audit.unpublished if item["state"] == "dropped"] == ["0.tif", "1.tif"]


def test_parked_message_stays_pending_and_is_named(ledger: Ledger) -> None:
    """What no broker takes is neither lost nor acknowledged."""
    ledger.strips.commit(begin(ledger, file()), result(), payload, PLENTY)
    ledger.outbox.park(ledger.outbox.next_outbox_messages(0, 1)[0].row, "too_large")
    audit = ledger.report.audit()
    assert audit.balanced
    assert audit.cameras[0].judged == 1
    assert audit.unpublished[0]["why"] == "parked: too_large"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("UPDATE counters SET n = n + 1 WHERE kind = 'seen'", "is not the sum"),
        ("UPDATE counters SET n = n - 1 WHERE kind = 'strip' AND state = 'ok'", "the rows count"),
        ("UPDATE strips SET state = 'ok' WHERE state = 'judged'", "no acknowledged message"),
        ("DELETE FROM outbox WHERE state = 'pending'", "no message waiting"),
        ("UPDATE strips SET state = 'lost' WHERE state = 'waiting'", "does not exist"),
        ("UPDATE counters SET n = n + 1 WHERE kind = 'seq'", "sequence numbers"),
        ("UPDATE strips SET state = 'waiting' WHERE state = 'judged'", "although their result exists"),
    ],
)
def test_audit_notices_every_kind_of_imbalance(ledger: Ledger, damage: str, complaint: str) -> None:
    """The audit is a proof only if it fails when something is wrong."""
    ledger.strips.commit(begin(ledger, file("a.tif", mtime=1)), result(), payload, PLENTY)
    acknowledge_all(ledger)
    ledger.strips.commit(begin(ledger, file("b.tif", mtime=2)), result(), payload, PLENTY)
    ledger.strips.begin([file("c.tif", mtime=3)])
    assert ledger.report.audit().balanced
    with ledger.database.transaction() as db:
        db.execute(damage)
    problems = ledger.report.audit().problems
    assert any(complaint in problem for problem in problems), problems


def test_forgotten_strips_stay_in_the_totals(ledger: Ledger) -> None:
    """Retention removes rows, never the count of what was seen."""
    for number in range(3):
        ledger.strips.commit(begin(ledger, file(f"{number}.tif", mtime=number)), result(), payload, PLENTY)
    acknowledge_all(ledger)
    pending = begin(ledger, file("pending.tif", mtime=9))
    ledger.strips.commit(pending, result(), payload, PLENTY)
    old = ledger.purge.old_strips("top", 2**62, 0, 100)
    assert [strip.path for strip in old] == ["0.tif", "1.tif", "2.tif"]  # never the unacknowledged one
    ledger.purge.forget([strip.row for strip in old[:2]])
    audit = ledger.report.audit()
    assert audit.balanced
    assert (audit.cameras[0].seen, audit.cameras[0].ok, audit.cameras[0].judged) == (4, 3, 1)
    assert ledger.report.audit(since_ms=1).balanced


def test_heatmaps_of_unacknowledged_results_are_not_offered_for_removal(ledger: Ledger) -> None:
    """A subscriber must find the heatmap of a message that is still on its way."""
    ledger.strips.commit(begin(ledger, file("a.tif", mtime=1)), result(heatmap_bytes=100), payload, PLENTY)
    assert ledger.purge.heatmap_bytes() == 100
    assert ledger.purge.oldest_heatmaps(10) == []
    acknowledge_all(ledger)
    (saved,) = ledger.purge.oldest_heatmaps(10)
    ledger.purge.heatmaps_removed([saved.seq])
    assert ledger.purge.heatmap_bytes() == 0


@pytest.mark.parametrize("damage", ["header", "page", "text", "empty_wal"])
def test_damaged_ledger_is_set_aside_and_the_line_goes_on(tmp_path: Path, damage: str) -> None:
    """A ledger that cannot be read never stops the service: a new one with a new stream is started."""
    path = tmp_path / "ledger.db"
    first = open_ledger(path)
    first.strips.begin([file(f"{number}.tif") for number in range(500)])
    stream = first.database.stream
    first.database.close()
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[0:16] = b"no sqlite at all"
    elif damage == "page":
        data[4096 * 3 : 4096 * 9] = b"\xff" * 4096 * 6
    elif damage == "text":
        data = bytearray(b"hello " * 1000)
    if damage == "empty_wal":
        path.with_name("ledger.db-wal").write_bytes(b"")
    else:
        path.write_bytes(data)
    second = open_ledger(path)
    try:
        second.strips.begin([file("new.tif")])
        if damage == "empty_wal":
            assert second.database.set_aside is None
            assert second.database.stream == stream
        else:
            assert second.database.set_aside is not None
            assert second.database.set_aside.exists()
            assert second.database.stream != stream
    finally:
        second.database.close()


def test_each_migration_brings_an_older_ledger_to_this_version(tmp_path: Path) -> None:
    """A ledger of any older version opens and works."""
    for version in range(len(MIGRATIONS) + 1):
        path = tmp_path / f"{version}.db"
        with sqlite3.connect(path) as db:
            for step in MIGRATIONS[:version]:
                db.executescript(step)
            db.execute(f"PRAGMA user_version = {version}")
        db.close()
        opened = open_ledger(path)
        opened.strips.begin([file()])
        assert opened.report.audit().balanced
        opened.database.close()


@ON_DISK
@given(st.lists(st.tuples(st.sampled_from("bcaprdx"), st.integers(0, 5)), max_size=40))
def test_no_sequence_of_events_unbalances_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Begin, commit, acknowledge, put back, retry, drop, purge in any order: the audit balances after each."""
    opened = open_ledger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    try:
        for step, number in steps:
            waiting = (opened.strips.next_waiting("top", lane, ()) for lane in (LIVE, RETRIED))
            strip = next(filter(None, waiting), None) or opened.strips.next_again(["top"], ())
            if step == "b":
                opened.strips.begin([file(f"{number}.tif", mtime=number)])
            elif step == "c" and strip:
                opened.strips.commit(strip, result(("ok", "anomalous", "invalid")[number % 3]), payload, 3 + number)
            elif step == "a":
                rows = [message.row for message in opened.outbox.next_outbox_messages(0, number)]
                opened.outbox.acknowledge(rows + rows)
            elif step == "p" and strip:
                opened.strips.put_back(strip.row, 1)
            elif step == "r":
                opened.strips.retry([number])
            elif step == "d":
                opened.purge.forget([strip.row for strip in opened.purge.old_strips("top", 2**62, 0, number)])
            elif step == "x":
                for message in opened.outbox.next_outbox_messages(0, 1):
                    opened.outbox.park(message.row, "too_large")
            audit = opened.report.audit()
            assert audit.balanced, audit.problems
    finally:
        opened.database.close()
