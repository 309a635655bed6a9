"""What must cost the same whatever the ledger holds, and what it finds that way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.config import Config
from agent.heatmap_folder import HeatmapFolder
from agent.ledger import Ledger, NewResult, audit, open_ledger
from agent.ledger.strips import LIVE, RETRIED
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLENTY = 1_000_000
MANY_JUDGED = """
    WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO strips (strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, occurrence, lane, state, seen_ms)
        SELECT i, 'top', CAST(i AS BLOB), 10, i, 1, 0, 0, 'judged', i FROM n;
    INSERT INTO results (seq, strip, camera, revision, committed_ms, captured_ts_ms, verdict, reason, score,
                         model_sha256, heatmap_bytes)
        SELECT id, id, camera, 1, id, id, 'ok', '', 0.1, 'm', 7 FROM strips WHERE id > 1;
    INSERT INTO outbox (topic, payload, seq, queued_ms) SELECT 'event/strip/top', '{}', seq, 1 FROM results
        WHERE seq > 1;
    UPDATE counters SET n = 2000 WHERE kind = 'seq'
"""  # as two thousand commits would leave it


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def judge(
    ledger: Ledger, mtime_ms: int, *, camera: str = "top", heatmap_bytes: int = 0, max_messages: int = PLENTY
) -> int:
    """Bring a strip to its result; return its row."""
    ledger.strips.begin([SettledFile(camera, f"{mtime_ms}.tif", FileIdentity(10, mtime_ms * 10**6, 1))])
    strip = ledger.strips.next_waiting(camera, LIVE, ()) or ledger.strips.next_waiting(camera, RETRIED, ())
    assert strip is not None
    result = NewResult("ok", "", 0.1, "m", heatmap_bytes, "d", f"event/strip/{camera}", dispose=False)
    ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), max_messages)
    return strip.row


def acknowledge_all(ledger: Ledger) -> None:
    """Let the broker have everything."""
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 1000)])


def steps(ledger: Ledger, do: Callable[[], object]) -> int:
    """Return how many of SQLite's instructions something takes, in hundreds."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection: sqlite3.Connection = ledger.database._connection
    connection.set_progress_handler(count, 100)
    do()
    connection.set_progress_handler(None, 100)
    return taken


def test_what_is_asked_every_second_does_not_grow_with_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    """Two thousand messages that nobody acknowledges make no difference to the status, heatmaps and newest strips."""
    judge(ledger, 1, camera="idle", heatmap_bytes=7)
    with ledger.database.transaction() as db:
        for statement in MANY_JUDGED.split(";"):
            db.execute(statement)
    assert ledger.report.audit().balanced
    ledger.strips.begin([SettledFile("top", "waits.tif", FileIdentity(10, 1, 1))])
    sections = {"agent": {"state_folder": str(tmp_path)}, "cameras": [{"name": "top", "folder": str(tmp_path)}]}
    keep_all = {"keep_days": 36_500, "keep_gib": 100_000, "min_free_gib": 0}
    heatmap_folder = HeatmapFolder(Config.model_validate({**sections, "heatmaps": keep_all}), ledger)
    heatmap_folder.remove_old_heatmaps()  # the first one looks for what time it was
    asked: dict[str, Callable[[], object]] = {
        "depths": ledger.report.depths,
        "balances": ledger.report.balances,
        "heatmap bytes": ledger.purge.heatmap_bytes,
        "oldest heatmaps": lambda: ledger.purge.oldest_heatmaps(200),
        "events to forget": lambda: ledger.purge.forget_events(2),
        "newest strips": lambda: ledger.outbox.newest_payloads(["top", "idle"]),
        "heatmap retention": heatmap_folder.remove_old_heatmaps,
    }
    costs = {name: steps(ledger, do) for name, do in asked.items()}
    assert all(cost <= 3 for cost in costs.values()), costs
    assert ledger.report.depths().oldest_waiting_ms > 2000
    assert ledger.purge.heatmap_bytes() == 2000 * 7


def test_the_audit_walks_once_through_the_ledger(ledger: Ledger) -> None:
    """It looks at each message, result and strip once, sorts nothing, and counts by indexes alone."""
    judge(ledger, 1)
    with ledger.database.transaction() as db:
        for statement in MANY_JUDGED.split(";"):
            db.execute(statement)
        db.execute("UPDATE outbox SET state = 'acknowledged' WHERE seq > 50")
        db.execute("UPDATE strips SET state = 'ok' WHERE id > 50")
    assert ledger.report.audit().balanced, ledger.report.audit().problems
    with ledger.database.reading() as db:
        taken = steps(ledger, lambda: audit.disagreements(db, audit.count_strips(db)))
        assert taken <= 2000 * 60 / 100, taken
        plan = "\n".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {audit._WALK}"))
        assert "COVERING INDEX outbox_delivery" in plan
        assert plan.count("USING INTEGER PRIMARY KEY") == 2  # results and strips, by the number of their row
        assert "TEMP B-TREE" not in plan


BREAKS = {
    "strips are in a state that does not exist": "UPDATE strips SET state = 'lost' WHERE id = 1",
    "strips count as acknowledged": "UPDATE results SET verdict = 'anomalous' WHERE seq = 1",
    "strips are judged but have no message": "UPDATE strips SET state = 'judged' WHERE id = 2",
    "strips wait although their result exists": "UPDATE strips SET state = 'waiting' WHERE id = 3",
    "sequence numbers have no result": "UPDATE counters SET n = n + 1 WHERE kind = 'seq'",
    "bytes of heatmaps are counted": "UPDATE counters SET n = n + 1 WHERE kind = 'heatmap_bytes'",
    "results disagree with their message": "UPDATE results SET delivery_ended = 0 WHERE seq = 4",
    "results have no message": "DELETE FROM outbox WHERE seq = 5",
}


@pytest.mark.parametrize("problem", BREAKS)
def test_the_audit_finds_each_kind_of_disagreement(ledger: Ledger, problem: str) -> None:
    """Of five strips that the broker has, and one that waits for it, one row is wrong: it is told, with the number."""
    for mtime in range(1, 6):
        judge(ledger, mtime, heatmap_bytes=10)
    acknowledge_all(ledger)
    judge(ledger, 6, heatmap_bytes=10)
    assert ledger.report.audit().problems == []
    with ledger.database.transaction() as db:
        db.execute(BREAKS[problem])
    assert any(told.startswith(f"1 {problem}") for told in ledger.report.audit().problems)


def test_the_last_strip_is_the_one_committed_last_whatever_its_files_time(ledger: Ledger) -> None:
    """A file whose time lies ahead, by a wrong clock, does not stay the camera's last strip, also over restarts."""
    ahead = judge(ledger, 5000)
    judge(ledger, 3000)
    judge(ledger, 1000, camera="idle")
    assert {camera: found[0] for camera, found in ledger.outbox.newest_payloads(["top", "idle", "none"]).items()} == {
        "top": 3000,
        "idle": 1000,
    }
    ledger.strips.retry([ahead])
    assert ledger.outbox.newest_payloads(["top"])["top"] == (3000, b'{"seq": 2}')
    judge(ledger, 5000)  # begun already: the next that waits is the second revision
    assert ledger.outbox.newest_payloads(["top"])["top"] == (5000, b'{"seq": 4}')


def test_the_size_of_all_heatmaps_is_counted_through_removal_and_purging(ledger: Ledger) -> None:
    """The sum is kept, not added up; whatever goes is taken off, and a row that still has heatmaps does not go."""
    rows = [judge(ledger, mtime, heatmap_bytes=100 * mtime) for mtime in (1, 2, 3)]
    assert ledger.purge.heatmap_bytes() == 600
    acknowledge_all(ledger)
    ledger.purge.heatmaps_removed([1, 1])
    assert ledger.purge.heatmap_bytes() == 500
    ledger.purge.forget(rows[:2])
    assert ledger.purge.heatmap_bytes() == 500
    ledger.purge.heatmaps_removed([2])
    ledger.purge.forget(rows[:2])
    assert ledger.purge.heatmap_bytes() == 300
    assert ledger.report.audit().balanced
    with ledger.database.transaction() as db:
        db.execute("UPDATE counters SET n = n + 1 WHERE kind = 'heatmap_bytes'")
    assert any("bytes of heatmaps" in problem for problem in ledger.report.audit().problems)


def test_heatmaps_may_go_once_their_message_is_delivered_or_dropped(ledger: Ledger) -> None:
    """Oldest first; one whose message is parked or waits is never among them."""
    judge(ledger, 1, heatmap_bytes=1)
    ledger.outbox.park(1, "too_large")
    judge(ledger, 2, heatmap_bytes=1)
    judge(ledger, 3, heatmap_bytes=1, max_messages=1)
    assert [saved.seq for saved in ledger.purge.oldest_heatmaps(10)] == [2]
    acknowledge_all(ledger)
    assert [saved.seq for saved in ledger.purge.oldest_heatmaps(10)] == [2, 3]
    assert ledger.report.audit().balanced
