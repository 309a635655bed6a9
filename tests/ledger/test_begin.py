"""What a file's name, time and content make of it at `begin`: strange times, names and identities that come back."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from agent.heatmap_names import heatmap_stem
from agent.ledger import Ledger, NewResult, open_ledger
from agent.ledger.strips import LIVE
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def commit(ledger: Ledger, verdict: str = "ok") -> None:
    """Judge the strip that is next."""
    strip = ledger.strips.next_waiting("top", LIVE, ())
    assert strip is not None
    result = NewResult(verdict, "", 0.1, "m", 0, "d", "event/strip/top", dispose=False)
    ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10)


def file(mtime: int) -> SettledFile:
    """Make a settled file of one and the same name."""
    return SettledFile("top", "a.tif", FileIdentity(10, mtime, mtime))


@pytest.mark.parametrize("seconds", [10**10, -(10**10)])
def test_a_file_from_another_century_is_a_strip_like_any_other(ledger: Ledger, seconds: int) -> None:
    """A clock that is wrong by centuries makes no integer that the ledger cannot hold."""
    times = {"st_mtime_ns": seconds * 10**9, "st_ctime_ns": seconds * 10**9}
    identity = FileIdentity.of(os.stat_result((0o100644, 1, 1, 1, 0, 0, 10, seconds, seconds, seconds), times))
    settled = SettledFile("top", "a.tif", identity)
    assert ledger.strips.begin([settled]) == []
    assert ledger.strips.known([settled]) == {"a.tif"}
    strip = ledger.strips.next_waiting("top", LIVE, ())
    assert strip is not None
    assert strip.identity == identity
    assert heatmap_stem("top", strip.identity.mtime_ns, "a.tif", strip.strip_id, 1).startswith("top/")
    commit(ledger)
    assert ledger.report.audit().balanced


def test_the_first_identity_of_a_strip_that_grew_may_come_back(ledger: Ledger) -> None:
    """Somebody copies the half file once more: a strip of its own, with an id of its own, known from then on."""
    ledger.strips.begin([file(1)])
    half = ledger.strips.next_waiting("top", LIVE, ())
    assert half is not None
    ledger.strips.mark_half_written(half.row)
    ledger.strips.begin([file(2)])
    commit(ledger)
    assert ledger.strips.begin([file(1)]) == [file(1)]
    assert ledger.strips.begin_by_digest(file(1), "the half")
    again = ledger.strips.next_waiting("top", LIVE, ())
    assert again is not None
    assert again.strip_id != half.strip_id
    assert again.identity == half.identity
    assert ledger.strips.begin([file(1), file(2)]) == []
    assert ledger.report.balances()[0].seen == 2


def test_of_two_half_written_strips_of_a_path_the_newest_grows(ledger: Ledger) -> None:
    """The older one cannot become the same file; it goes on waiting until its time is over."""
    ledger.strips.begin([file(1), file(2)])
    ledger.strips.mark_half_written(1)
    ledger.strips.mark_half_written(2)
    ledger.strips.begin([file(3)])
    first, second = (ledger.strips.next_waiting("top", LIVE, rows) for rows in ((), (1,)))
    assert first is not None
    assert second is not None
    assert [(first.row, first.identity.mtime_ns), (second.row, second.identity.mtime_ns)] == [(1, 1), (2, 3)]
