"""When a file has settled, and which old files the backlog rule skips."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records import FileIdentity
from agent.settling import BacklogCutoff, Settling

FIRST = FileIdentity(size_bytes=10, mtime_ns=1, ctime_ns=1)
GROWN = FileIdentity(size_bytes=11, mtime_ns=1, ctime_ns=1)
REWRITTEN = FileIdentity(size_bytes=10, mtime_ns=2, ctime_ns=1)
CHMODDED = FileIdentity(size_bytes=10, mtime_ns=1, ctime_ns=2)


def test_a_file_that_stands_still_settles_at_the_second_look() -> None:
    """One look is never enough; the second, settle_seconds later, is."""
    settling = Settling(0.5)
    assert settling.look("a", FIRST, 100.0) is None
    assert settling.look("a", FIRST, 100.4) is None
    assert settling.due(100.49, 9) == []
    assert settling.next_due() == 100.5
    assert settling.due(100.5, 9) == ["a"]
    settled = settling.look("a", FIRST, 100.5)
    assert settled is not None
    assert settled.identity == FIRST


@pytest.mark.parametrize("changed", [GROWN, REWRITTEN])
def test_any_change_of_size_or_mtime_starts_the_wait_again(changed: FileIdentity) -> None:
    """A file that is being written never settles before it has stood still for the whole time."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    assert settling.look("a", changed, 100.5) is None
    assert settling.look("a", changed, 100.9) is None
    assert settling.look("a", changed, 101.0) is not None


def test_a_ctime_that_changes_alone_does_not_delay_and_is_handed_on() -> None:
    """A chmod or a hard link is no write, but the identity that is handed out is the last one seen."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    settled = settling.look("a", CHMODDED, 100.5)
    assert settled is not None
    assert settled.identity == CHMODDED


def test_settle_seconds_zero_settles_at_once_but_still_looks_twice() -> None:
    """With 0 the second look may follow the first immediately."""
    settling = Settling(0.0)
    assert settling.look("a", FIRST, 100.0) is None
    assert settling.due(100.0, 9) == ["a"]
    assert settling.look("a", FIRST, 100.0) is not None


def test_a_file_that_vanishes_before_it_settled_is_counted_once() -> None:
    """Vanished candidates are a number in health; a path that never was a candidate is not."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    settling.look("a", None, 100.1)
    settling.look("a", None, 100.2)
    assert (len(settling), settling.vanished) == (0, 1)


def test_a_settled_file_stays_until_it_is_forgotten() -> None:
    """When handing it out fails, the next look settles it again."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    assert settling.look("a", FIRST, 100.5) == settling.look("a", FIRST, 100.6)
    settling.forget("a")
    assert "a" not in settling


def test_live_files_come_before_the_backlog() -> None:
    """However long the backlog has been due, a live file that is due is looked at first."""
    settling = Settling(0.5)
    for number in range(50):
        settling.look(f"old{number}", FIRST, 100.0, backlog=True)
    settling.look("new", FIRST, 100.2)
    assert settling.due(200.0, 3) == ["new", "old0", "old1"]


@pytest.mark.parametrize("change", ["content", "event"])
def test_a_backlog_file_that_moves_is_a_live_one(change: str) -> None:
    """Somebody writes it now: it is neither skipped by the backlog rule nor served behind live strips."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0, backlog=True, skip=True)
    seen = GROWN if change == "content" else FIRST
    assert settling.look("a", seen, 100.3, hinted=change == "event") is None
    assert settling.backlog_waiting == 0
    settled = settling.look("a", seen, 100.8)
    assert settled is not None
    assert (settled.backlog, settled.skip) == (False, False)


looks = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([FIRST, GROWN, REWRITTEN, CHMODDED, None]),
        st.floats(0, 1),
        st.booleans(),
        st.booleans(),
    ),
    max_size=60,
)


@given(looks, st.sampled_from([0.0, 0.25, 0.5]))
def test_whatever_is_seen_settled_means_still_for_the_whole_time(
    steps: list[tuple[str, FileIdentity | None, float, bool, bool]], settle_seconds: float
) -> None:
    """A settled file showed the same size and mtime in every look of a stretch of at least settle_seconds."""
    settling = Settling(settle_seconds)
    still_since: dict[str, tuple[FileIdentity, float]] = {}
    now = 0.0
    for path, seen, pause, backlog, hinted in steps:
        now += pause
        before = still_since.get(path)
        settled = settling.look(path, seen, now, backlog=backlog, hinted=hinted)
        if seen is None:
            assert settled is None
            still_since.pop(path, None)
        elif before is None or not before[0].same_content_expected(seen):
            assert settled is None
            still_since[path] = (seen, now)
        elif settled is not None:
            assert now - before[1] >= settle_seconds - 1e-9
            assert settled.identity == seen
        assert set(still_since) == {path for path in "abc" if path in settling}


@given(looks)
def test_what_is_due_is_found_in_the_order_it_fell_due(
    steps: list[tuple[str, FileIdentity | None, float, bool, bool]],
) -> None:
    """`due` misses nothing, `next_due` is the earliest of all, and a limit takes the longest due of each lane."""
    settling = Settling(0.5)
    now = 0.0
    for path, seen, pause, backlog, hinted in steps:
        now += pause
        settling.look(path, seen, now, backlog=backlog, hinted=hinted)
        waiting = {**settling._live, **settling._backlog}
        assert settling.next_due() == min((one.due for one in waiting.values()), default=math.inf)
        due = settling.due(now, 9)
        assert set(due) == {name for name, one in waiting.items() if one.due <= now}
        assert due == sorted(due, key=lambda name: (waiting[name].backlog, waiting[name].due))
        assert settling.due(now, 1) == due[:1]


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=2)), unique=True), st.integers(0, 6), st.randoms())
def test_backlog_keeps_exactly_the_newest(keys: list[tuple[int, bytes]], newest: int, order: object) -> None:
    """All but the N newest by (mtime, natural key) are skipped, in whatever order the scan finds them."""
    shuffled = list(keys)
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands over a random.Random
    cutoff = BacklogCutoff(newest)
    cutoff.count(shuffled)
    kept = {key for key in keys if not cutoff.skips(key)}
    assert kept == set(sorted(keys)[len(keys) - newest :] if newest < len(keys) else keys)
    oldest, youngest = (-1, b""), (9, b"")  # files that came after the count
    assert cutoff.skips(oldest) == (newest <= len(keys))
    assert cutoff.skips(youngest) == (newest == 0)


def test_records_stay_small() -> None:
    """Ten thousand candidates may wait at once: no instance dictionary."""
    settling = Settling(1.0)
    settling.look("a", FIRST, 0.0)
    candidate = settling.forget("a")
    assert candidate is not None
    assert not hasattr(candidate, "__dict__")
