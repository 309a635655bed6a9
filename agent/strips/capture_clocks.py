"""Whether the clocks that give the cameras' files their times are ahead of the box's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AHEAD_MS = 60_000  # less is told from nothing only where both clocks are kept by NTP
REMEMBERED_SECONDS = 3600.0  # a single file from the future is to be seen by people


class CaptureClocks:
    """Names a camera while its last strip lies in the future, and for an hour after any that did. For any thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall_ms: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._wall_ms = wall_ms
        self._last_ms: dict[str, int] = {}  # the time of the camera's last strip
        self._ahead_at: dict[str, float] = {}  # when one that lay ahead came last

    def note(self, camera: str, captured_ts_ms: int) -> None:
        """Take in the time of a camera's strip, Unix milliseconds, when it is committed."""
        self._last_ms[camera] = captured_ts_ms
        if self._is_ahead(captured_ts_ms):
            self._ahead_at[camera] = self._clock()

    def forget(self, cameras: Iterable[str]) -> None:
        """Say nothing more of cameras that are gone."""
        for camera in cameras:
            self._last_ms.pop(camera, None)
            self._ahead_at.pop(camera, None)

    def alarms(self) -> list[str]:
        """Return `camera_<name>_clock_ahead` for each camera that it is true of."""
        recently = self._clock() - REMEMBERED_SECONDS
        return [
            f"camera_{camera}_clock_ahead"
            for camera, last_ms in list(self._last_ms.items())
            if self._is_ahead(last_ms) or self._ahead_at.get(camera, recently) > recently
        ]

    def _is_ahead(self, captured_ts_ms: int) -> bool:
        return captured_ts_ms > self._wall_ms() + AHEAD_MS
