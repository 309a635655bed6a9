"""Who may use a state folder: one service or one command, and no worker of an earlier service."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from agent.errors import ExitCode, Fatal
from agent.files import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

OLD_WORKERS_SECONDS = 20.0
KILLED_WORKERS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class OldWorker:
    """A worker of an earlier service that holds on to the lock although it was killed."""

    pid: int
    started: str  # by the kernel's count: another process may get the same number later

    def is_there(self) -> bool:
        """Whether it still has not ended."""
        return _started(self.pid) == self.started


def take_lock(state_folder: Path) -> IO[bytes]:
    """Become the one owner of the state folder. Raises Fatal while somebody else is."""
    try:
        make_folder(state_folder)
        lock = (state_folder / "lock").open("ab")
    except OSError as error:
        raise Fatal(ExitCode.FAILED, f"cannot use the state folder {state_folder}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise Fatal(ExitCode.FAILED, f"another strip-agent owns {state_folder}") from error
    return lock


def wait_for_old_workers(path: Path, patience: Callable[[float], object] = lambda _: None) -> tuple[OldWorker, ...]:
    """Wait until workers of a killed service have let go of their lock, and kill those that have not after a while.

    Return those that are there even then: they hang in the kernel, on a dead share or disk. The service goes on without
    them. A process that was killed never runs its program again, so it can write nothing; and what an old worker that
    cannot be named had begun to write has its process id in its name, while its results have no way out. All that it
    costs is the memory that it holds. `patience(seconds)` is told how long it may take.
    """
    patience(OLD_WORKERS_SECONDS + KILLED_WORKERS_SECONDS)
    with path.open("ab") as lock:
        if _taken(lock, OLD_WORKERS_SECONDS):
            return ()
        for pid in _holders(lock):
            log.error("worker %d of an earlier service does not end: it is killed", pid)
            with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
                os.kill(pid, signal.SIGKILL)
        if _taken(lock, KILLED_WORKERS_SECONDS):
            return ()
        left = tuple(OldWorker(pid, started) for pid in _holders(lock) if (started := _started(pid)))
    names = ", ".join(str(worker.pid) for worker in left) or "of another container or namespace"
    log.critical("workers of an earlier service hang in the kernel (%s): the service goes on without them", names)
    return left


def _taken(lock: IO[bytes], seconds: float) -> bool:
    """Say whether nobody holds the lock, or lets go of it within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _holders(lock: IO[bytes]) -> list[int]:
    """Return the processes that hold it and can be named here: not those of an outer namespace."""
    inode = str(os.fstat(lock.fileno()).st_ino)
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    locks = [line.split() for line in lines if " -> " not in line]  # those that wait for one are marked so
    pids = {int(fields[4]) for fields in locks if fields[1] == "FLOCK" and fields[5].split(":")[2] == inode}
    return sorted(pid for pid in pids if pid > 0 and pid != os.getpid() and _has_open(pid, lock))


def _has_open(pid: int, file: IO[bytes]) -> bool:
    """Say whether a process has the file open; another file system may have the same inode number."""
    wanted = os.fstat(file.fileno())
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):  # it has just been closed
            if os.path.samestat(descriptor.stat(), wanted):
                return True
    return False


def _started(pid: int) -> str:
    """Return when a process started, "" where there is none, or where only its exit code waits for somebody."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {b"Z", b"X"} else fields[19].decode("ascii")
