"""What a worker writes to standard error: always drained, logged in moderation, its last lines kept for the obituary.

Whoever writes faster than it is read stands still. So a flood is read as fast as it comes, and most of it only counted.
"""

from __future__ import annotations

import logging
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

LINES_KEPT = 20
LINE_BYTES = 2000  # longer lines are cut into several
LOGGED_PER_SECOND = 50
_READ_AT_ONCE = 1 << 16


def drain(stderr: IO[bytes], pid: int, kept: deque[str], *, clock: Callable[[], float] = time.monotonic) -> None:
    """Read until the end, keep the last lines in `kept`, log them: so many each second, of the others their number."""
    began, logged, passed_over = clock(), 0, 0
    for raw in _lines(stderr):
        line = raw.decode("utf-8", "backslashreplace").rstrip()
        kept.append(line)
        if clock() - began >= 1.0:
            began, logged = clock(), 0
        if logged >= LOGGED_PER_SECOND:
            passed_over += 1
            continue
        if passed_over:
            log.warning("worker %d: %d more lines are not shown", pid, passed_over)
            passed_over = 0
        log.warning("worker %d: %s", pid, line)
        logged += 1
    if passed_over:
        log.warning("worker %d: %d more lines are not shown", pid, passed_over)


def _lines(stderr: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := stderr.read1(_READ_AT_ONCE):  # type: ignore[attr-defined] # of a buffered pipe
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield from _pieces(line)
        if len(rest) >= LINE_BYTES:
            yield from _pieces(rest)
            rest = b""
    if rest:
        yield rest


def _pieces(line: bytes) -> Iterator[bytes]:
    for start in range(0, max(1, len(line)), LINE_BYTES):
        yield line[start : start + LINE_BYTES]
