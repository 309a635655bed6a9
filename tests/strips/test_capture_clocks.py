"""Files from the future are told of, and hold nothing up."""

from __future__ import annotations

from agent.strips.capture_clocks import CaptureClocks

NOW_MS = 1_800_000_000_000


class Clocks:
    """Both clocks of the box, as told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clocks = CaptureClocks(clock=lambda: self.seconds, wall_ms=lambda: NOW_MS + int(self.seconds * 1000))


def test_a_camera_whose_clock_is_ahead_is_named_until_it_is_right_again() -> None:
    """More than a minute ahead; the others are not named."""
    box = Clocks()
    box.clocks.note("top", NOW_MS + 61_000)
    box.clocks.note("side", NOW_MS + 59_000)
    assert box.clocks.alarms() == ["camera_top_clock_ahead"]
    box.clocks.note("top", NOW_MS)
    assert box.clocks.alarms() == ["camera_top_clock_ahead"]  # for people to see
    box.seconds = 3601.0
    assert box.clocks.alarms() == []


def test_a_camera_that_stays_ahead_stays_named() -> None:
    """Also when it has sent nothing for long, and after a restart, which knows the last strip alone."""
    box = Clocks()
    box.clocks.note("top", NOW_MS + 86_400_000)
    box.seconds = 7200.0
    assert box.clocks.alarms() == ["camera_top_clock_ahead"]
    restarted = Clocks()
    restarted.clocks.note("top", NOW_MS + 86_400_000)
    assert restarted.clocks.alarms() == ["camera_top_clock_ahead"]
