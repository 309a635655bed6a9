"""What workers write to standard error, by the pipe."""

from __future__ import annotations

import io
import logging
from collections import deque
from typing import TYPE_CHECKING

from agent.supervision.stderr import LINE_BYTES, LINES_KEPT, LOGGED_PER_SECOND, drain

if TYPE_CHECKING:
    import pytest


def _drain(written: bytes, caplog: pytest.LogCaptureFixture, *times: float) -> tuple[list[str], list[str]]:
    """Return what was logged and what was kept; the clock shows `times` in turn, the last one for ever."""
    clock = list(times) or [0.0]
    kept: deque[str] = deque(maxlen=LINES_KEPT)
    with caplog.at_level(logging.WARNING, logger="agent.supervision.stderr"):
        drain(
            io.BufferedReader(io.BytesIO(written)),
            7, kept, clock=lambda: clock.pop(0) if len(clock) > 1 else clock[0],
        )  # fmt: skip
    return [record.getMessage() for record in caplog.records], list(kept)


def test_a_flood_is_logged_in_part_and_counted_in_full(caplog: pytest.LogCaptureFixture) -> None:
    """A journal that takes every line is slower than the worker, which would stand still and miss its deadline."""
    lines = [f"line {number}" for number in range(20_000)]
    logged, kept = _drain("\n".join(lines).encode(), caplog)
    assert logged[:LOGGED_PER_SECOND] == [f"worker 7: {line}" for line in lines[:LOGGED_PER_SECOND]]
    assert logged[LOGGED_PER_SECOND:] == [f"worker 7: {20_000 - LOGGED_PER_SECOND} more lines are not shown"]
    assert kept == lines[-LINES_KEPT:], "the last words are lost"


def test_after_a_second_lines_are_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    """Each second has its share, and what was passed over is told before it goes on."""
    number = LOGGED_PER_SECOND + 2
    logged, _ = _drain(b"x\n" * number, caplog, *[0.0] * (LOGGED_PER_SECOND + 2), 1.5)
    assert logged == [
        *["worker 7: x"] * LOGGED_PER_SECOND, "worker 7: 1 more lines are not shown", "worker 7: x",
    ]  # fmt: skip


def test_a_line_without_end_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """No line needs more memory than allowed, whatever bytes it is made of."""
    logged, kept = _drain(b"\xff" * (3 * LINE_BYTES) + b"\nend\n", caplog)
    assert len(logged) == 4
    assert logged[-1] == "worker 7: end"
    assert max(map(len, kept)) <= 4 * LINE_BYTES
