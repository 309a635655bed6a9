"""The wall clock, in Unix milliseconds. Whoever measures how long something takes uses the monotonic clock instead."""

from __future__ import annotations

import time

DAY_MS = 86_400_000
BUILT_MS = 1_767_225_600_000  # 2026-01-01: while the clock is before it, nothing is old


def now_ms() -> int:
    """Return the wall clock's time."""
    return time.time_ns() // 1_000_000
