"""The wall clock, in Unix milliseconds. Whoever measures how long something takes uses the monotonic clock instead."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace

DAY_MS = 86_400_000
BUILT_MS = 1_767_225_600_000  # 2026-01-01: while the clock is before it, nothing is old


def now_ms() -> int:
    """Return the wall clock's time."""
    return time.time_ns() // 1_000_000


JUMP_MS = DAY_MS
AGREEMENT_MS = 60_000  # between two looks; a clock that NTP corrects little by little stays far below it


@dataclass(frozen=True, slots=True)
class AgeClock:
    """What the rules that remove by age take for now. All are Unix milliseconds, `agreed_ms` is a duration.

    A wall clock that jumps far forward would make everything old at once. So after a jump of more than a day `age_ms`
    goes on with the monotonic clock, until both clocks have agreed for a day of running: then the jump was right.
    """

    age_ms: int
    wall_ms: int  # the wall clock at this look
    agreed_ms: int = 0  # for how long both clocks have agreed since the jump
    in_doubt: bool = False  # the wall clock is more than a day ahead, and that is not confirmed yet


def look_at_clock(before: AgeClock | None, wall_ms: int, elapsed_ms: int | None) -> AgeClock:
    """Take in a look at the wall clock, `elapsed_ms` after the one `before` by the monotonic clock.

    `elapsed_ms` is None for the first look of a process: how long the box was off is not known. `before` is None
    where nothing was ever kept. A clock that goes back is believed at once: nothing becomes old by that. One that is
    before the build date is not, and changes nothing.
    """
    if wall_ms < BUILT_MS:
        return AgeClock(0, wall_ms) if before is None else replace(before, wall_ms=wall_ms, agreed_ms=0)
    if before is None or before.age_ms < BUILT_MS:
        return AgeClock(wall_ms, wall_ms)
    age_ms = before.age_ms + (elapsed_ms or 0)
    if wall_ms <= age_ms + JUMP_MS:
        return AgeClock(wall_ms, wall_ms)
    moved_ms = wall_ms - before.wall_ms
    agrees = 0 <= moved_ms <= JUMP_MS if elapsed_ms is None else abs(moved_ms - elapsed_ms) <= AGREEMENT_MS
    agreed_ms = before.agreed_ms + (elapsed_ms or 0) if before.in_doubt and agrees else 0
    if agreed_ms >= JUMP_MS:
        return AgeClock(wall_ms, wall_ms)
    return AgeClock(age_ms, wall_ms, agreed_ms, in_doubt=True)


class Lately:
    """The earliest that the wall clock has shown in the last `seconds`: it may have been set meanwhile."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._shown: deque[tuple[float, int]] = deque()  # (monotonic seconds, Unix milliseconds), once a second

    def note(self, now: float, wall_ms: int) -> None:
        """Take in what it shows `now`, monotonic seconds."""
        if not self._shown or now - self._shown[-1][0] >= 1.0:
            self._shown.append((now, wall_ms))
        while len(self._shown) > 1 and self._shown[1][0] <= now - self._seconds:
            self._shown.popleft()

    def since_ms(self, wall_ms: int) -> int:
        """Return what no time that was written down in those seconds is before; it shows `wall_ms` now."""
        return min([wall_ms - int(self._seconds * 1000), *(shown for _, shown in self._shown)])
