"""What is tidied in the ledger, on its own timer and never because a strip came by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.clock import DAY_MS, now_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.ledger import Ledger

ROWS_EVERY_SECONDS = 3600.0
BATCH = 200


class Housekeeping:
    """From time to time a step forgets what is too old."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.config = config  # a reload may set another one, at any time
        self._ledger = ledger
        self._clock = clock
        self._wall_ms = wall_ms
        self._rows_at = clock()

    def step(self) -> float:
        """Do what is due; return for how many seconds nothing is. Raises Retry where the ledger cannot."""
        if self._clock() >= self._rows_at:
            self._rows_at = self._clock() + ROWS_EVERY_SECONDS
            self.forget_old_rows()
        return max(0.0, self._rows_at - self._clock())

    def forget_old_rows(self) -> None:
        """Forget old events, and old strips of cameras that have been out of the configuration for as long.

        Whether their files are still there nobody can see any more; but a camera may come back, after a typing error
        say, and its files must not be new ones then.
        """
        now = self._ledger.purge.age_now(self._wall_ms(), self._clock())
        if not now:
            return
        before = int(now - self.config.ledger.keep_days * DAY_MS)
        configured = {camera.name for camera in self.config.cameras}
        for camera, since_ms in self._ledger.purge.cameras_away(configured, now).items():
            self._ledger.strips.keep_files(camera)
            forgotten = False
            while since_ms < before and (batch := self._ledger.purge.old_strips(camera, before, 0, BATCH)):
                self._ledger.purge.forget([strip.row for strip in batch])
                forgotten = True
            if forgotten:
                self._ledger.strips.forget_first_scan(camera)
        self._ledger.purge.forget_events(before)
        self._ledger.drift.forget(before)
