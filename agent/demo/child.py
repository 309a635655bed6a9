"""Starts the demo's programs so that they end with it, even when it is killed, and Ctrl-C reaches the demo alone.

Run as a script it is the last step before the program itself: it asks the kernel for a signal and becomes the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; survives exec


def start_child(
    command: list[str], log_file: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own; what it prints is appended to `log_file`.

    Call it from the main thread: the signal comes when the thread that started the program ends.
    """
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
        )


def stop_child(child: subprocess.Popen[bytes], *, seconds: float) -> int:
    """Ask a program to end, kill it when it has not after `seconds`, and return its exit code (negative: signal)."""
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def last_lines(log_file: Path, count: int = 5) -> str:
    """Return the end of a program's log, to show why it ended."""
    lines = log_file.read_text(errors="backslashreplace").splitlines() if log_file.exists() else []
    return "\n".join(f"  {line}" for line in lines[-count:])


def _become(parent: int, command: list[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before the signal was asked for
        sys.exit("the demo has ended already")
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
