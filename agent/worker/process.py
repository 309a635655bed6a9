"""What the worker asks of the kernel and the allocator for itself: its end, its network, its cores, its memory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
CAP_SYS_NICE = 1 << 23  # capabilities(7)
OOM_SCORE = {"candidate": 1000, "shadow": 1000, "worker": 500}
CANDIDATE_NICE = 10  # nice value: a tenth of the time of a process at 0 that wants all of it
SHADOW_NICE = 19
LOWEST_NICE_LIMIT = 20  # RLIMIT_NICE counts the other way round: 20 - nice value

# seccomp(2): what a filter answers, and its instructions; the numbers of socket, io_uring_setup, by architecture.
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32_CALLS = 0x40000000  # x86-64's other numbering, of which nothing is needed
_SYSTEM_CALLS = {"x86_64": (0xC000003E, (41, 425)), "aarch64": (0xC00000B7, (198, 425))}


def die_with_the_supervisor(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor's thread that started it ends; `supervisor` is its pid.

    It may be 1, in a container: so it is compared, instead of taking 1 for what becomes of orphans.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != supervisor:  # it died before the signal was armed
        sys.exit(0)


def give_up_the_network() -> bool:
    """Have the kernel refuse this process every new socket, for ever; return whether the system can do that.

    A worker opens files from strangers and needs no network: the socket pair to the supervisor, pipes and files, those
    on shares too, go on as before. A filter of its own system calls takes no privileges and costs none. io_uring, which
    could open sockets past it, is refused as well. Call it while there is one thread only: later ones inherit it.
    """
    if os.uname().machine not in _SYSTEM_CALLS or sys.maxsize < 2**32:
        return False
    architecture, refused = _SYSTEM_CALLS[os.uname().machine]
    instructions = [
        (_LOAD, 0, 0, 4),  # the architecture: another one numbers its calls in another way, and is refused all of them
        (_JUMP_IF_EQUAL, 0, len(refused) + 3, architecture),
        (_LOAD, 0, 0, 0),  # the call's number
        (_JUMP_IF_AT_LEAST, len(refused) + 1, 0, _X32_CALLS),
        *((_JUMP_IF_EQUAL, len(refused) - at, 0, number) for at, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE | errno.EPERM),
    ]
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = ctypes.create_string_buffer(packed, len(packed))
    filter_ = struct.pack("@HP", len(instructions), ctypes.addressof(program))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0) == 0)


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


def stay_behind() -> None:
    """Take only processor time that nobody else wants, for good: for a shadow, before it has any other thread."""
    _set_nice(SHADOW_NICE)
    with contextlib.suppress(PermissionError):  # some filter forbids it: the nice value stays
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


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
