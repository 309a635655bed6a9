"""Who may use a state folder: one service or one command, and no worker of an earlier service."""

from __future__ import annotations

import fcntl
import time
from typing import IO, TYPE_CHECKING

from agent.errors import ExitCode, Fatal
from agent.files import make_folder

if TYPE_CHECKING:
    from pathlib import Path

OLD_WORKERS_SECONDS = 30.0


def take_lock(state_folder: Path) -> IO[bytes]:
    """Become the one owner of the state folder. Raises Fatal while somebody else is."""
    try:
        make_folder(state_folder)
        lock = (state_folder / "lock").open("ab")
    except OSError as error:
        raise Fatal(ExitCode.CONFIG, f"cannot use the state folder {state_folder}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise Fatal(ExitCode.FAILED, f"another strip-agent owns {state_folder}") from error
    return lock


def wait_for_old_workers(path: Path) -> None:
    """Wait until workers of a killed supervisor have let go of their lock. Raises Fatal when they do not."""
    with path.open("ab") as lock:
        deadline = time.monotonic() + OLD_WORKERS_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Fatal(ExitCode.INTERNAL, "workers of an earlier service do not end") from None
                time.sleep(0.02)
            else:
                return
