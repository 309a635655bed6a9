"""What the worker asks of the kernel and the allocator for itself: its end, its network, its cores, its memory."""

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
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
CAP_SYS_ADMIN, CAP_SYS_NICE = 1 << 21, 1 << 23  # capabilities(7)
_CAPABILITY_VERSION_3 = 0x20080522
OOM_SCORE = {"candidate": 1000, "worker": 500}
CANDIDATE_NICE = 10  # nice value: a tenth of the time of a process at 0 that wants all of it
LOWEST_NICE_LIMIT = 20  # RLIMIT_NICE counts the other way round: 20 - nice value


def die_with_the_supervisor(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor's thread that started it ends; `supervisor` is its pid.

    It may be 1, in a container: so it is compared, instead of taking 1 for what becomes of orphans.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != supervisor:  # it died before the signal was armed
        sys.exit(0)


def leave_the_network() -> bool:
    """Move into a network of this process's own, in which there is nothing; return whether the system allows that.

    A worker opens files from strangers and needs no network: the socket pair to the supervisor, pipes and files, those
    on shares too, go on as before. Without privileges it takes a user namespace, which is given up at once: nothing is
    left of its capabilities. A process that was granted some, to read cameras' files say, would lose them to it, and
    stays where it is. Call it while there is one thread only.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    granted = _capabilities()
    if granted & CAP_SYS_ADMIN:
        return bool(libc.unshare(CLONE_NEWNET) == 0)
    if granted:
        return False
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    # The names of user and group in the new namespace; files are opened by the old ones, whether this works or not.
    with contextlib.suppress(OSError):
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(header), ctypes.byref(none))  # where a filter forbids it, they hold for the empty network
    return True


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
    return bool(_capabilities() & CAP_SYS_NICE)


def _capabilities() -> int:
    """Return the capabilities that this process has in effect, one bit each (capabilities(7))."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(effective.split()[1], 16)
