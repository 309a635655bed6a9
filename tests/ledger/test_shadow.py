"""What the ledger knows of a shadow model: which strips are next, how the two compare, and that it stays small."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Literal

import pytest

from agent.ledger import Ledger, NewResult, open_ledger
from agent.ledger import shadow as shadow_file
from agent.ledger.shadow import Opinion, Published
from agent.ledger.strips import LIVE, RETRIED
from agent.records import FileIdentity, SettledFile
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Verdict = Literal["ok", "anomalous", "invalid"]
ACTIVE, SHADOW = "a" * 64, "b" * 64


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def judge(ledger: Ledger, number: int, verdict: str = "ok", score: float = 0.1, *, dispose: bool = False) -> int:
    """Bring a strip of the camera `top` to its result; return its `seq`."""
    ledger.strips.begin([SettledFile("top", f"{number}.tif", FileIdentity(10, number, 1))])
    strip = ledger.strips.next_waiting("top", LIVE, ()) or ledger.strips.next_waiting("top", RETRIED, ())
    assert strip is not None
    result = NewResult(verdict, "", score, ACTIVE, 0, "d", "event/strip/top", dispose=dispose)
    seq = ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
    assert seq is not None
    return seq


def all_published(ledger: Ledger, after_seq: int = 0) -> list[Published]:
    """Give everything that the shadow may judge."""
    return ledger.shadow.published(["top"], after_seq, ledger.shadow.newest_seq(), 100)


def record(ledger: Ledger, *said: tuple[Verdict, float], missed: int = 0) -> None:
    """Record what the shadow says of the strips in turn, as a journey would."""
    strips = all_published(ledger)[-len(said) :] if said else []
    opinions = [Opinion(strip, *one, threshold=0.5, inference_ms=7.0) for strip, one in zip(strips, said, strict=True)]
    ledger.shadow.progress("default", SHADOW, 1)
    ledger.shadow.record("default", SHADOW, ledger.shadow.newest_seq(), opinions, {ACTIVE: missed} if missed else {})


def test_a_new_shadow_begins_with_what_comes_now_and_goes_on_after_a_restart(ledger: Ledger) -> None:
    """What was published before it became the shadow is not its business; the same digest set anew begins anew."""
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    judge(ledger, 1)
    assert ledger.shadow.progress("default", SHADOW, later_ms) == 1
    judge(ledger, 2)
    assert ledger.shadow.progress("default", SHADOW, later_ms) == 1
    assert [strip.seq for strip in all_published(ledger, 1)] == [2]
    ledger.shadow.record("default", SHADOW, 2, [], {})
    assert ledger.shadow.progress("default", SHADOW, later_ms) == 2
    judge(ledger, 3)
    assert ledger.shadow.progress("default", SHADOW, later_ms + 1) == 3


def test_what_is_published_before_a_new_shadow_looks_for_the_first_time_is_compared(ledger: Ledger) -> None:
    """It counts from when it became the shadow, not from when its loop came round to it."""
    judge(ledger, 1)
    before_ms = time.time_ns() // 1_000_000
    wait_for(lambda: time.time_ns() // 1_000_000 > before_ms, "a later millisecond")
    since_ms = time.time_ns() // 1_000_000
    judge(ledger, 2)
    judge(ledger, 3)
    assert ledger.shadow.progress("default", SHADOW, since_ms) == 1
    assert [strip.seq for strip in all_published(ledger, 1)] == [2, 3]


def test_only_verdicts_that_stand_are_compared(ledger: Ledger) -> None:
    """An invalid result has nothing to compare with, and a strip that is judged again is compared afterwards."""
    judge(ledger, 1, "invalid", -1.0)
    judge(ledger, 2, "anomalous", 0.9)
    judge(ledger, 3)
    row = all_published(ledger)[-1].strip.row
    assert [strip.seq for strip in all_published(ledger)] == [2, 3]
    assert ledger.strips.retry([row]) == {}
    assert [strip.seq for strip in all_published(ledger)] == [2]
    judge(ledger, 3)
    assert [strip.seq for strip in all_published(ledger)] == [2, 4]
    assert ledger.shadow.published(["side"], 0, 100, 100) == []
    assert ledger.shadow.count_published(["top"], 0, 3) == {ACTIVE: 2}


def test_what_the_shadow_has_not_come_to_is_counted(ledger: Ledger) -> None:
    """Verdicts of its cameras; none of a model that is no shadow."""
    ledger.shadow.progress("default", SHADOW, 1)
    assert ledger.shadow.behind("default", SHADOW, ["top"]) == 0
    judge(ledger, 1)
    judge(ledger, 2, "invalid", -1.0)
    judge(ledger, 3, "anomalous", 0.9)
    assert ledger.shadow.behind("default", SHADOW, ["top"]) == 2
    assert ledger.shadow.behind("default", SHADOW, ["side"]) == 0
    assert ledger.shadow.behind("default", ACTIVE, ["top"]) == 0
    record(ledger, ("ok", 0.2))
    assert ledger.shadow.behind("default", SHADOW, ["top"]) == 0


def test_a_file_that_is_moved_or_removed_is_said_to_be_gone(ledger: Ledger) -> None:
    """The ledger knows it, so no worker looks for it."""
    judge(ledger, 1, dispose=True)
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 10)])
    [strip] = all_published(ledger)
    assert strip.is_there
    ledger.strips.begin_disposal([strip.strip.row])
    assert not all_published(ledger)[0].is_there


def test_flips_agreement_and_shifts_add_up(ledger: Ledger) -> None:
    """Both ways, the unjudged and the missed ones; what is left out of the means."""
    for number, (verdict, score) in enumerate([("ok", 0.1), ("ok", 0.2), ("anomalous", 0.8), ("anomalous", 0.9)]):
        judge(ledger, number, verdict, score)
    record(ledger, ("ok", 0.2), ("anomalous", 0.7), ("ok", 0.4), ("invalid", -1.0), missed=3)
    found = ledger.shadow.comparison("default", SHADOW, ACTIVE)
    assert (found.compared, found.agreed, found.to_anomalous, found.to_ok) == (4, 1, 1, 1)
    assert (found.invalid, found.missed, found.agreement) == (1, 3, 0.25)
    assert found.mean_shift == pytest.approx((0.1 + 0.5 - 0.4) / 3)
    assert found.mean_abs_shift == pytest.approx((0.1 + 0.5 + 0.4) / 3)
    assert found.mean_inference_ms == pytest.approx(7.0)
    assert ledger.shadow.comparison("default", ACTIVE, SHADOW).compared == 0
    worst = ledger.shadow.worst("default", SHADOW, ACTIVE, 10)
    assert [(pair["file"], pair["verdict"], pair["shadow_verdict"]) for pair in worst] == [
        ("3.tif", "anomalous", "invalid"), ("1.tif", "ok", "anomalous"), ("2.tif", "anomalous", "ok"),
        ("0.tif", "ok", "ok"),
    ]  # fmt: skip
    others = ledger.shadow.disagreements(limit=2)
    assert [pair["file"] for pair in others] == ["3.tif", "2.tif"]
    assert others[0]["row"] == all_published(ledger)[-1].strip.row
    assert ledger.shadow.disagreements(since_ms=others[0]["judged_ms"] + 1, limit=9) == []


def test_rows_are_bounded_and_totals_go_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Months of a shadow fill no disk, and its figures are of all strips all the same."""
    monkeypatch.setattr(shadow_file, "ROWS_KEPT", 3)
    monkeypatch.setattr(shadow_file, "TOTALS_KEPT", 2)
    for number in range(10):
        judge(ledger, number)
        record(ledger, ("ok", 0.3))
    assert len(ledger.shadow.worst("default", SHADOW, ACTIVE, 100)) == 3
    assert ledger.shadow.comparison("default", SHADOW, ACTIVE).compared == 10
    for active in ("c", "d", "e"):
        ledger.shadow.record("default", SHADOW, 0, [], {active: 1})
    with ledger.database.reading() as db:
        assert db.execute("SELECT count(*) FROM shadow_totals").fetchone() == (2,)


def test_a_forgotten_strip_takes_the_shadows_word_with_it(ledger: Ledger) -> None:
    """No row speaks of a result that is not there; one that is forgotten while the shadow is at it only counts."""
    judge(ledger, 1, "ok", 0.1)
    record(ledger, ("anomalous", 0.9))
    published = all_published(ledger)
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 10)])
    ledger.purge.forget([strip.row for strip in ledger.purge.old_strips("top", 2**62, 0, 10)])
    assert all_published(ledger) == []
    assert ledger.shadow.disagreements(limit=10) == []
    late = Opinion(published[0], "ok", 0.1, 0.5, 1.0)
    ledger.shadow.record("default", SHADOW, 1, [late], {})
    assert ledger.shadow.worst("default", SHADOW, ACTIVE, 10) == []
    assert ledger.shadow.comparison("default", SHADOW, ACTIVE).compared == 2
    assert ledger.report.audit().balanced


def test_what_waits_of_other_cameras_does_not_count(ledger: Ledger) -> None:
    """A camera that is paused or away keeps no shadow from its work; a strip that cost a worker does."""
    assert not ledger.shadow.any_waits(["top", "side"])
    ledger.strips.begin([SettledFile("side", "1.tif", FileIdentity(10, 1, 1))])
    assert ledger.shadow.any_waits(["top", "side"])
    assert not ledger.shadow.any_waits(["top"])
    strip = ledger.strips.next_waiting("side", LIVE, ())
    assert strip is not None
    ledger.strips.put_back(strip.row, 1)
    assert ledger.shadow.any_waits(["side"])
