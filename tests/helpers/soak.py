"""How much of a soak is run: all of it by default, a share of it where time is short (SOAK_SHARE=0.1 make soak)."""

from __future__ import annotations

import os

SHARE = min(1.0, float(os.environ.get("SOAK_SHARE", "1")))


def share_of(whole: int, at_least: int = 1) -> int:
    """Give the number of repetitions to run instead of `whole`."""
    return max(at_least, round(whole * SHARE))
