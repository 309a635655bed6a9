"""The clock of the rules that remove by age: a jump far forward makes nothing old until it is confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.clock import BUILT_MS, DAY_MS, AgeClock, look_at_clock
from agent.ledger import open_ledger

if TYPE_CHECKING:
    from pathlib import Path

NOW = BUILT_MS + 300 * DAY_MS
HOUR_MS = 3_600_000
YEARS = 3650 * DAY_MS


def looks(clock: AgeClock | None, wall_ms: int, *, hours: int, restart: bool = False) -> AgeClock:
    """Look once an hour at a clock that goes on rightly from `wall_ms`; the first look may be after a restart."""
    clock = look_at_clock(clock, wall_ms, None if restart else HOUR_MS)
    for hour in range(1, hours + 1):
        clock = look_at_clock(clock, wall_ms + hour * HOUR_MS, HOUR_MS)
    return clock


@pytest.mark.parametrize("restart", [False, True])
def test_a_jump_far_forward_makes_nothing_old_until_both_clocks_have_agreed_for_a_day(*, restart: bool) -> None:
    """Ten years ahead: the age goes on with the monotonic clock for a day of running, then the jump is believed."""
    before = look_at_clock(None, NOW, None)
    clock = looks(before, NOW + YEARS, hours=23, restart=restart)
    assert clock.in_doubt
    assert clock.age_ms <= NOW + DAY_MS
    clock = looks(clock, clock.wall_ms + HOUR_MS, hours=1)
    assert not clock.in_doubt
    assert clock.age_ms == clock.wall_ms


def test_a_jump_that_is_taken_back_leaves_nothing_behind() -> None:
    """The true time is back within the day: believed at once."""
    clock = looks(look_at_clock(None, NOW, None), NOW + YEARS, hours=20)
    clock = look_at_clock(clock, NOW + 21 * HOUR_MS, HOUR_MS)
    assert (clock.age_ms, clock.in_doubt) == (NOW + 21 * HOUR_MS, False)


def test_a_clock_that_goes_on_jumping_is_never_confirmed() -> None:
    """Each jump begins the day anew."""
    clock, wall_ms = look_at_clock(None, NOW, None), NOW
    for _ in range(10):
        wall_ms += YEARS
        clock = looks(clock, wall_ms, hours=20)
        wall_ms = clock.wall_ms
        assert clock.in_doubt
    assert clock.age_ms < NOW + 10 * DAY_MS


def test_restarts_neither_confirm_a_jump_nor_forget_what_has_agreed() -> None:
    """A box that is switched off each night after eight hours confirms the true time of its fourth day."""
    clock, days = look_at_clock(None, NOW, None), 0
    while clock.in_doubt or days == 0:
        days += 1
        clock = looks(clock, NOW + YEARS + days * DAY_MS, hours=8, restart=True)
        assert days < 10
    assert days >= 3


def test_a_clock_before_the_build_date_changes_nothing() -> None:
    """A boot in 1970, then the true time: what was known of the time before is still there."""
    clock = look_at_clock(look_at_clock(None, NOW, None), 5000, None)
    assert clock.age_ms == NOW
    assert look_at_clock(clock, NOW + HOUR_MS, HOUR_MS) == AgeClock(NOW + HOUR_MS, NOW + HOUR_MS)


@example(steps=[(0, DAY_MS + 1, False), (DAY_MS // 2, 0, False), (0, 0, True), (DAY_MS // 2, 0, False)])
@given(steps=st.lists(st.tuples(st.integers(0, 48 * HOUR_MS), st.integers(-YEARS, YEARS), st.booleans()), max_size=30))
def test_the_age_never_runs_more_than_a_day_ahead_of_what_has_passed(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever the wall clock does: one look makes nothing older by more than what passed and a day, if unconfirmed.

    A restart adds nothing to how long both clocks have agreed, and takes nothing from it where less than a day went by.
    """
    clock, wall_ms, ran_ms = look_at_clock(None, NOW, None), NOW, 0
    for elapsed_ms, jump_ms, restart in steps:
        wall_ms += elapsed_ms + jump_ms
        if restart:
            ran_ms = ran_ms if 0 <= elapsed_ms + jump_ms <= DAY_MS else 0
        else:
            ran_ms = ran_ms + elapsed_ms if abs(jump_ms) <= 60_000 else 0
        after = look_at_clock(clock, wall_ms, None if restart else elapsed_ms)
        if ran_ms < DAY_MS:
            assert after.age_ms <= clock.age_ms + (0 if restart else elapsed_ms) + DAY_MS
        clock = after


def test_the_ledger_keeps_the_clock_over_restarts(tmp_path: Path) -> None:
    """Three starts ten years ahead confirm nothing; a ledger of an older version takes its newest result's time."""
    for number, wall_ms in enumerate((NOW, NOW + YEARS, NOW + YEARS + HOUR_MS, NOW + YEARS + 2 * HOUR_MS)):
        ledger = open_ledger(tmp_path / "ledger.db")
        assert ledger.purge.age_now(wall_ms, 0.0) == NOW
        assert ledger.purge.clock_in_doubt == (number > 0)
        assert ledger.purge.age_now(5000, 1.0) == 0
        if number == 3:
            with ledger.database.transaction() as db:
                db.execute("DELETE FROM meta WHERE key = 'age_clock'")
                db.execute(
                    "INSERT INTO strips (strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, occurrence, lane, "
                    "state, seen_ms) VALUES ('1', 'top', CAST('a' AS BLOB), 1, 1, 1, 0, 0, 'judged', 1)"
                )
                db.execute("INSERT INTO results VALUES (1, 1, 'top', 1, ?, 1, 'ok', '', 0.1, 'm', 0, 0, '', 0)", (NOW,))
        ledger.database.close()
    ledger = open_ledger(tmp_path / "ledger.db")
    assert ledger.purge.age_now(NOW + YEARS, 0.0) == NOW
    ledger.database.close()
