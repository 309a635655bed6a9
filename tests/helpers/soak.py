"""How much of a soak is run: all of it by default, a share of it where time is short (SOAK_SHARE=0.1 make soak)."""

from __future__ import annotations

import os
import time

SHARE = min(1.0, float(os.environ.get("SOAK_SHARE", "1")))
BEGIN_SECONDS = float(os.environ.get("SOAK_BEGIN_SECONDS", "inf"))
_BEGUN = time.monotonic()


def share_of(whole: int, at_least: int = 1) -> int:
    """Give the number of repetitions to run instead of `whole`."""
    return max(at_least, round(whole * SHARE))


def too_late() -> str | None:
    """Say why no further test of the soak is begun, where the time for that (SOAK_BEGIN_SECONDS) is over."""
    if time.monotonic() - _BEGUN < BEGIN_SECONDS:
        return None
    return "not begun: the time for that is over on this slow machine (SOAK_BEGIN_SECONDS); `make soak` runs them all"
