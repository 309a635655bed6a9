"""Retries, late acknowledgements, dropped and parked messages: what each of them changes, and what it must not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.config import Config
from agent.control.commands import handle
from agent.control.context import Context
from agent.ledger import Ledger, NewResult, open_ledger
from agent.ledger.schema import MIGRATIONS
from agent.ledger.strips import LIVE, RETRIED
from agent.records import FileIdentity, SettledFile, Strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOR_EVER = 2**62


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def begin(ledger: Ledger, name: str = "a.tif", camera: str = "top") -> Strip:
    """Begin a strip, or take up the one that waits."""
    ledger.strips.begin([SettledFile(camera, name, FileIdentity(10, 1, 1))])
    strip = ledger.strips.next_waiting(camera, LIVE, ()) or ledger.strips.next_waiting(camera, RETRIED, ())
    assert strip is not None
    return strip


def commit(
    ledger: Ledger,
    strip: Strip,
    *,
    model: str = "m",
    heatmap_bytes: int = 0,
    dispose: bool = False,
    max_messages: int = 10**6,
    verdict: str = "ok",
) -> None:
    """Record its result."""
    result = NewResult(verdict, "", 0.1, model, heatmap_bytes, "d", "event/strip/top", dispose=dispose)
    seq = ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), max_messages)
    assert seq is not None


def waiting_rows(ledger: Ledger) -> list[int]:
    """Return the rows of the outbox that wait."""
    return [message.row for message in ledger.outbox.next_outbox_messages(0, 1000)]


def state(ledger: Ledger, name: str = "a.tif") -> str:
    """Return the strip's state."""
    rows = ledger.report.list_strips(state=None, camera=None, limit=1000)
    return next(str(row["state"]) for row in rows if row["file"] == name)


def check(ledger: Ledger) -> None:
    """Let the audit speak."""
    audit = ledger.report.audit()
    assert audit.balanced, audit.problems


def test_a_retried_strip_has_all_its_attempts_again(ledger: Ledger) -> None:
    """Two lost workers made it invalid; judged again it is not at its last attempt from the start."""
    strip = begin(ledger)
    ledger.strips.put_back(strip.row, 1)
    lost = ledger.strips.next_again(["top"], ())
    assert lost is not None
    commit(ledger, lost, verdict="invalid")
    ledger.strips.retry([strip.row])
    again = ledger.strips.next_waiting("top", RETRIED, ())
    assert again is not None
    assert again.attempts == 0


def test_a_retried_strip_is_not_half_written_any_more(ledger: Ledger) -> None:
    """Else the next file of its name would be taken for its continuation, and never judged itself."""
    strip = begin(ledger)
    ledger.strips.mark_half_written(strip.row)
    half = ledger.strips.next_waiting("top", LIVE, ())
    assert half is not None
    commit(ledger, half, verdict="invalid")
    ledger.strips.retry([strip.row])
    again = ledger.strips.next_waiting("top", RETRIED, ())
    assert again is not None
    assert not again.half_written
    grown = SettledFile("top", "a.tif", FileIdentity(11, 2, 2))
    assert ledger.strips.begin([grown]) == []
    assert ledger.report.balances()[0].seen == 2


def test_a_dropped_message_that_arrived_after_all_counts_as_acknowledged(ledger: Ledger) -> None:
    """It was on its way when the outbox overflowed: the broker has it, so the strip is not lost."""
    commit(ledger, begin(ledger))
    (row,) = waiting_rows(ledger)
    commit(ledger, begin(ledger, "b.tif"), max_messages=1)
    assert state(ledger) == "dropped"
    ledger.outbox.acknowledge([row])
    assert state(ledger) == "ok"
    assert ledger.report.depths().outbox_dropped == 0
    check(ledger)


def test_only_the_newest_revision_is_acknowledged_by_its_own_message(ledger: Ledger) -> None:
    """The old message of a strip that was judged again says nothing about the new one."""
    strip = begin(ledger)
    commit(ledger, strip, verdict="anomalous", dispose=True)
    ledger.strips.retry([strip.row])
    commit(ledger, begin(ledger), dispose=True)
    old, new = waiting_rows(ledger)
    ledger.outbox.acknowledge([old])
    assert state(ledger) == "judged"
    assert ledger.strips.due_for_disposal("top", 0, 10) == []
    check(ledger)
    ledger.outbox.acknowledge([new])
    assert state(ledger) == "ok"
    assert len(ledger.strips.due_for_disposal("top", 0, 10)) == 1
    check(ledger)


def test_a_strip_with_an_older_message_on_its_way_is_not_forgotten(ledger: Ledger) -> None:
    """The newest result has arrived, the older one has not: its message would go with the row."""
    strip = begin(ledger)
    commit(ledger, strip)
    ledger.strips.retry([strip.row])
    commit(ledger, begin(ledger))
    old, new = waiting_rows(ledger)
    ledger.outbox.acknowledge([new])
    assert ledger.purge.old_strips("top", FOR_EVER, 0, 10) == []
    ledger.purge.forget([strip.row])
    assert waiting_rows(ledger) == [old]
    ledger.outbox.acknowledge([old])
    assert len(ledger.purge.old_strips("top", FOR_EVER, 0, 10)) == 1
    ledger.purge.forget([strip.row])
    check(ledger)


@pytest.mark.parametrize("disposal", ["due", "going", "stays"])
def test_a_strip_whose_file_is_still_to_go_is_not_forgotten(ledger: Ledger, disposal: str) -> None:
    """Without its row the file would lie there for ever, and be judged again."""
    strip = begin(ledger)
    commit(ledger, strip, dispose=True)
    assert ledger.purge.old_strips("top", FOR_EVER, 0, 10) == []
    ledger.outbox.acknowledge(waiting_rows(ledger))
    if disposal == "going":
        assert ledger.strips.begin_disposal([strip.row]) == set()
        assert ledger.strips.begin_disposal([strip.row]) == {strip.row}
    elif disposal == "stays":
        ledger.strips.disposed(strip.row, "stays", "a.tif is a symbolic link")
    assert ledger.purge.old_strips("top", FOR_EVER, 0, 10) == []
    ledger.purge.forget([strip.row])
    assert state(ledger) == "ok"
    ledger.strips.disposed(strip.row, "done")
    assert len(ledger.purge.old_strips("top", FOR_EVER, 0, 10)) == 1


def test_every_commit_is_flushed(ledger: Ledger) -> None:
    """With less than FULL the last commits may be gone after a power cut, and their ids be used again."""
    with ledger.database.reading() as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


@pytest.mark.parametrize("ending", ["parked", "dropped"])
def test_a_message_that_was_never_delivered_ends_with_a_successful_retry(ledger: Ledger, ending: str) -> None:
    """Count and alarm go once the broker has the new result; the row can be forgotten, the heatmaps removed."""
    strip = begin(ledger)
    commit(ledger, strip, heatmap_bytes=5)
    if ending == "parked":
        ledger.outbox.park(waiting_rows(ledger)[0], "too_large")
    else:
        commit(ledger, begin(ledger, "b.tif"), max_messages=1)
        ledger.outbox.acknowledge(waiting_rows(ledger))
    depths = ledger.report.depths()
    assert depths.outbox_parked + depths.outbox_dropped == 1
    ledger.strips.retry([strip.row])
    commit(ledger, begin(ledger), heatmap_bytes=7)
    assert ledger.report.depths().outbox_parked + ledger.report.depths().outbox_dropped == 1, "not before it arrives"
    ledger.outbox.acknowledge(waiting_rows(ledger))
    depths = ledger.report.depths()
    assert (depths.outbox_parked, depths.outbox_dropped) == (0, 0)
    check(ledger)
    saved = ledger.purge.oldest_heatmaps(10)
    assert sorted(heatmap.size_bytes for heatmap in saved) == [5, 7]
    ledger.purge.heatmaps_removed([heatmap.seq for heatmap in saved])
    ledger.purge.forget([strip.row])
    check(ledger)
    with pytest.raises(StopIteration):
        state(ledger)


def test_strips_of_cameras_that_are_gone_are_not_retried(ledger: Ledger, tmp_path: Path) -> None:
    """Acknowledged would become `waits for ever`: the command says why not, and judges the others."""
    config = Config.model_validate(
        {"agent": {"state_folder": str(tmp_path)}, "cameras": [{"name": "top", "folder": str(tmp_path / "camera")}]}
    )
    ids = {}
    for camera in ("top", "gone"):
        strip = begin(ledger, camera=camera)
        commit(ledger, strip, model="cafe" * 16)
        ids[camera] = strip.strip_id
    ledger.outbox.acknowledge(waiting_rows(ledger))
    for arguments in ({"strip_ids": list(ids.values())}, {"strip_ids": [], "model": "cafecafe"}):
        answer = handle(Context(config, ledger, {}), {"command": "retry", **arguments}, "tester")
        assert answer["retried"] == ([ids["top"]] if arguments["strip_ids"] else [])
        assert "not configured any more" in answer["refused"][ids["gone"]]
    assert [balance.waiting for balance in ledger.report.balances()] == [0, 1]


def test_strips_of_a_model_are_counted_as_their_newest_results_say(ledger: Ledger) -> None:
    """Through retries by other models and forgetting; the count is kept, not made."""
    rows = []
    for name in ("a.tif", "b.tif", "c.tif"):
        strip = begin(ledger, name)
        commit(ledger, strip, model="old")
        rows.append(strip.row)
    assert ledger.models.count_judged("old") == 3
    ledger.strips.retry(rows[:2])
    for model in ("new", "old"):
        strip_again = ledger.strips.next_waiting("top", RETRIED, ())
        assert strip_again is not None
        commit(ledger, strip_again, model=model)
    assert (ledger.models.count_judged("old"), ledger.models.count_judged("new")) == (2, 1)
    ledger.outbox.acknowledge(waiting_rows(ledger))
    ledger.purge.forget(rows[:1])
    assert (ledger.models.count_judged("old"), ledger.models.count_judged("new")) == (2, 0)
    ledger.purge.forget(rows)
    assert (ledger.models.count_judged("old"), ledger.models.count_judged("none")) == (0, 0)
    check(ledger)


def test_an_older_ledger_keeps_everything_when_it_is_brought_over(tmp_path: Path) -> None:
    """The first version with strips, results and models: nothing is lost, and the new counts are right."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
        db.executescript(OLD)
    ledger = open_ledger(path)
    assert ledger.database.set_aside is None
    check(ledger)
    assert (ledger.models.count_judged("m1"), ledger.models.count_judged("m2")) == (1, 1)
    assert [row["sha256"] for row in ledger.models.list_models()] == ["m1"]
    assert [strip.row for strip, _ in ledger.strips.due_for_disposal("top", 0, 10)] == [2]
    ledger.outbox.acknowledge(waiting_rows(ledger))
    check(ledger)
    ledger.database.close()


def test_a_damaged_ledger_of_an_older_version_is_brought_over_too(tmp_path: Path) -> None:
    """It lacks columns that this version has; what it has is kept all the same."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
        db.executescript(OLD)
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'counters'").fetchone()
    data = bytearray(path.read_bytes())
    data[4096 * (page - 1) : 4096 * page] = b"\xff" * 4096
    path.write_bytes(data)
    ledger = open_ledger(path)
    assert ledger.database.set_aside is not None
    check(ledger)
    assert len(ledger.report.list_strips(state=None, camera=None, limit=10)) == 2
    assert [row["sha256"] for row in ledger.models.list_models()] == ["m1"]
    assert len(waiting_rows(ledger)) == 1
    assert (ledger.models.count_judged("m1"), ledger.models.count_judged("m2")) == (1, 1)
    ledger.database.close()


OLD = """
    INSERT INTO meta VALUES ('stream', 'abcd');
    INSERT INTO strips (id, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, occurrence, digest, lane, state,
                        revision, seen_ms, disposal) VALUES
        (1, 'a1', 'top', CAST('a.tif' AS BLOB), 10, 1, 1, 0, 'd', 0, 'judged', 2, 1, ''),
        (2, 'b2', 'top', CAST('b.tif' AS BLOB), 10, 2, 1, 0, 'd', 0, 'ok', 1, 1, 'due');
    INSERT INTO results (seq, strip, camera, revision, committed_ms, captured_ts_ms, verdict, reason, score,
                         model_sha256, heatmap_bytes) VALUES
        (1, 1, 'top', 1, 1, 1, 'ok', '', 0.1, 'm1', 0), (2, 2, 'top', 1, 2, 2, 'ok', '', 0.1, 'm1', 9),
        (3, 1, 'top', 2, 3, 1, 'ok', '', 0.1, 'm2', 0);
    INSERT INTO outbox (topic, payload, seq, queued_ms) SELECT 't', CAST('{}' AS BLOB), seq, 1 FROM results;
    UPDATE outbox SET state = 'acknowledged' WHERE seq IN (1, 2);
    INSERT INTO counters VALUES ('seq', '', '', 3);
    INSERT INTO models (slot, key, sha256, state, file, first_seen_ms, changed_ms)
        VALUES ('default', 'm1', 'm1', 'active', 'm.onnx', 1, 1);
"""
