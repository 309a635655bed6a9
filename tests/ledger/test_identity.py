"""Which strip a file is when only its times have changed: the same one, told once, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger import Ledger, NewResult, open_ledger
from agent.ledger.strips import LIVE
from agent.records import FileIdentity, SettledFile
from tests.helpers.examples import ON_DISK

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def file(mtime: int, ctime: int | None = None, *, size: int = 10, inode: int = 7, skip: bool = False) -> SettledFile:
    """Make a settled file of one and the same name."""
    identity = FileIdentity(size, mtime, mtime if ctime is None else ctime, inode)
    return SettledFile("top", "a.tif", identity, backlog=skip, skip=skip)


def settle(ledger: Ledger, settled: SettledFile, content: str) -> bool:
    """Do as the intake does: `begin`, and read the content where that has to decide; return whether it was read."""
    doubtful = ledger.strips.begin([settled])
    for each in doubtful:
        if ledger.strips.begin_by_digest(each, content) is None:
            ledger.strips.begin_by_digest(each, content, is_there=True)
    assert not settled.identity.size_bytes or settled.path in ledger.strips.known([settled])
    return bool(doubtful)


def judge(ledger: Ledger, content: str, *, dispose: bool = False) -> int:
    """Judge what is next, with the broker's acknowledgement; return its row."""
    strip = ledger.strips.next_waiting("top", LIVE, ())
    assert strip is not None
    result = NewResult("ok", "", 0.1, "m", 0, content, "event/strip/top", dispose=dispose)
    assert ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 100)])
    return strip.row


def seen(ledger: Ledger) -> int:
    """Return how many strips there are; the ledger balances."""
    assert ledger.report.audit().balanced
    return ledger.report.balances()[0].seen


def test_the_same_content_with_other_times_is_the_same_strip(ledger: Ledger) -> None:
    """Touched, restored, an hour later on a FAT disk: not published again, read once for each change, and counted."""
    settle(ledger, file(1), "x")
    judge(ledger, "x")
    for number, again in enumerate((file(2), file(2, 3), file(1), file(9, 9, inode=8)), start=1):
        assert settle(ledger, again, "x")
        assert not settle(ledger, again, "x"), "known from now on: not read at the next scan"
        assert (seen(ledger), ledger.strips.seen_again()) == (1, number)


def test_other_content_with_other_times_is_a_strip_of_its_own(ledger: Ledger) -> None:
    """A camera that uses its names again loses nothing, also where it comes back to an image it had before."""
    for number, content in enumerate(("x", "y", "x", "y"), start=1):
        settle(ledger, file(number), content)
        judge(ledger, content)
        assert seen(ledger) == number
    assert ledger.strips.seen_again() == 0


def test_another_size_is_a_new_strip_unread(ledger: Ledger) -> None:
    """The content is only read where path and size are known."""
    settle(ledger, file(1), "x")
    judge(ledger, "x")
    assert not settle(ledger, file(2, size=11), "x")
    assert seen(ledger) == 2


@pytest.mark.parametrize(("mtime", "inode", "is_read"), [(1, 7, True), (2, 7, True), (1, 8, False), (2, 8, False)])
def test_the_same_content_after_a_disposal_by_the_agent_is_new(
    ledger: Ledger, mtime: int, inode: int, *, is_read: bool
) -> None:
    """Whatever its times: the file of the first strip is gone. One of the same number is read, for it may be gone."""
    settle(ledger, file(1), "x")
    row = judge(ledger, "x", dispose=True)
    ledger.strips.disposed(row, "done")
    assert settle(ledger, file(mtime, inode=inode), "x") == is_read
    assert judge(ledger, "x") != row
    assert seen(ledger) == 2


def test_a_waiting_strip_whose_times_change_stays_one_strip(ledger: Ledger) -> None:
    """The file itself was touched: it is judged once, with the times that it has by then."""
    for mtime in (1, 2, 5, 3):
        settle(ledger, file(mtime), "never read")
    strip = ledger.strips.next_waiting("top", LIVE, ())
    assert strip is not None
    assert strip.identity.mtime_ns == 3
    judge(ledger, "x")
    assert (seen(ledger), ledger.strips.seen_again()) == (1, 3)
    assert ledger.strips.next_waiting("top", LIVE, ()) is None


def test_a_waiting_strip_that_another_file_takes_the_place_of_is_told(ledger: Ledger) -> None:
    """Renamed over: what was to be judged is gone, and that is a result of its own."""
    settle(ledger, file(1), "x")
    settle(ledger, file(2, inode=8), "y")
    assert seen(ledger) == 2
    first = ledger.strips.next_waiting("top", LIVE, ())
    assert first is not None
    assert ledger.strips.has_newer_version(first)


def test_a_retried_strip_whose_times_change_stays_one_strip(ledger: Ledger) -> None:
    """Its content is known: restored from a backup while it waits it is still the same."""
    settle(ledger, file(1), "x")
    ledger.strips.retry([judge(ledger, "x")])
    settle(ledger, file(2, inode=8), "x")
    assert seen(ledger) == 1
    settle(ledger, file(3, inode=9), "y")
    assert seen(ledger) == 2


def test_what_the_backlog_rule_skipped_stays_skipped_after_a_chmod(ledger: Ledger) -> None:
    """Another ctime alone, of chmod -R or cp -al, makes no waiting strips out of them; other times do."""
    settle(ledger, file(1, skip=True), "never read")
    for ctime in (2, 3):
        settle(ledger, file(1, ctime), "never read")
    balance = ledger.report.balances()[0]
    assert (balance.seen, balance.skipped, balance.waiting) == (1, 1, 0)
    settle(ledger, file(4), "written anew")
    balance = ledger.report.balances()[0]
    assert (balance.seen, balance.skipped, balance.waiting) == (2, 1, 1)


def test_heatmaps_of_a_strip_that_was_touched_are_still_found(ledger: Ledger) -> None:
    """Their names hold the time at which the file was judged, not the one that it has now."""
    ten_days_ns = 864_000 * 10**9
    settle(ledger, file(1), "x")
    strip = ledger.strips.next_waiting("top", LIVE, ())
    assert strip is not None
    result = NewResult("ok", "", 0.1, "m", 5, "x", "event/strip/top", dispose=False)
    ledger.strips.commit(strip, result, lambda _seq, _ts: b"{}", 10**6)
    ledger.outbox.acknowledge([1])
    settle(ledger, file(ten_days_ns), "x")
    (saved,) = ledger.purge.oldest_heatmaps(10)
    assert saved.mtime_ns < ten_days_ns


def test_files_of_one_mtime_are_begun_as_people_count(ledger: Ledger) -> None:
    """img_8 to img_12 of one second, found in any order, are judged as they were taken; then as they were begun."""
    names = [f"img_{number}.tif" for number in (10, 12, 8, 11, 9)]
    ledger.strips.begin([SettledFile("top", name, FileIdentity(10, 1, 1)) for name in names])
    ledger.strips.begin([SettledFile("top", "img_1.tif", FileIdentity(10, 1, 1))])
    found: list[str] = []
    taken: set[int] = set()
    while strip := ledger.strips.next_waiting("top", LIVE, taken):
        found.append(strip.path)
        taken.add(strip.row)
    assert found == [f"img_{number}.tif" for number in (8, 9, 10, 11, 12, 1)]


CHANGES = st.tuples(st.sampled_from(["touch", "write", "rename over", "remove", "judge"]), st.integers(0, 2))


@ON_DISK
@given(st.lists(CHANGES, max_size=25))
def test_every_content_is_told_once_whatever_happens_to_the_times(changes: list[tuple[str, int]]) -> None:
    """A file is touched, written, replaced and judged in any order: as many strips as contents that followed."""
    with TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder) / "ledger.db")
        content, inode, expected, waits = "", 1, 0, False
        for now, (change, number) in enumerate(changes, start=1):
            if change == "judge":
                while (strip := ledger.strips.next_waiting("top", LIVE, ())) is not None:
                    gone = ledger.strips.has_newer_version(strip)
                    judge(ledger, "" if gone else content)
                waits = False
                continue
            before = content
            if change == "remove" or (change == "touch" and not content):
                continue
            if change != "touch":
                content = f"content {number}"
            replaced = change == "rename over"
            inode += replaced
            expected += before != content and not (waits and not replaced)
            if waits and replaced and before == content:
                expected += 1  # nobody knows the content of what waited
            settle(ledger, file(now, inode=inode), content)
            waits = waits or before != content or (replaced and waits)
            assert seen(ledger) == expected
        ledger.database.close()
