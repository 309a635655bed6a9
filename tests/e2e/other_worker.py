"""Have the supervisor of this process start another program where it starts a worker."""

from __future__ import annotations

import subprocess
from typing import Any

started: list[subprocess.Popen[bytes]] = []
"""The workers that live."""

_popen = subprocess.Popen


def start_instead(*arguments: str) -> None:
    """Start `python ARGUMENTS agent.worker FD` for `python -m agent.worker FD` from now on."""

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if command[1:3] == ["-m", "agent.worker"]:
            command = [command[0], *arguments, *command[2:]]
        process = _popen(command, **options)
        started[:] = [worker for worker in started if worker.poll() is None] + [process]
        return process

    subprocess.Popen = start  # type: ignore[assignment,misc] # a function does for this
