"""What the worker asks of the kernel and the allocator for itself: its end, its share of the cores, its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
OOM_SCORE = {"candidate": 1000, "worker": 500}
CANDIDATE_NICE = 10  # nice value: a tenth of the time of a process at 0 that wants all of it
LOWEST_NICE_LIMIT = 20  # RLIMIT_NICE counts the other way round: 20 - nice value


def die_with_the_supervisor() -> None:
    """Have the kernel kill this process when the supervisor's thread that started it ends."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent or parent == 1:  # it died before the signal was armed
        sys.exit(0)


def set_oom_score(role: str) -> None:
    """Say who is killed first when the box has no memory left."""
    Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE[role]), encoding="ascii")


def step_back() -> Callable[[], None]:
    """Leave the cores to those who score strips; returns what brings this process back, with all its threads.

    Without privileges RLIMIT_NICE decides whether there is a way back; the unit sets it. Where it is barred, or the
    service is modest itself, nothing is changed: a worker that is slow for ever is worse than a trial that is felt.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
    if usual >= CANDIDATE_NICE or not (limit >= LOWEST_NICE_LIMIT - usual or _may_set_nice()):
        return lambda: None
    _set_nice(CANDIDATE_NICE)
    return lambda: _set_nice(usual)


def give_memory_back() -> None:
    """Return what is free to the system; glibc keeps it otherwise."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _set_nice(value: int) -> None:
    """Set it for each thread: on Linux a thread has its own, and a new one has that of the thread that starts it."""
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - only the numbers are wanted
        # A thread may have just ended; and no model is refused because some filter forbids the call.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpriority(os.PRIO_PROCESS, int(task), value)


def _may_set_nice() -> bool:
    """Whether this process has CAP_SYS_NICE in effect (capabilities(7): bit 23)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 23 & 1)
