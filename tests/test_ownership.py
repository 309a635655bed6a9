"""A new service and the workers of an earlier one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from agent import ownership
from agent.ownership import wait_for_old_workers
from tests.helpers.broker import wait_for
from tests.helpers.programs import needs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print(); time.sleep(600)"


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that holds the lock as a worker does."""
    monkeypatch.setattr(ownership, "OLD_WORKERS_SECONDS", 0.5)
    monkeypatch.setattr(ownership, "KILLED_WORKERS_SECONDS", 0.5)
    lock = tmp_path / "workers.lock"
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_worker_that_lives_on_is_killed(
    tmp_path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has lost its supervisor and did not notice."""
    monkeypatch.setattr(ownership, "KILLED_WORKERS_SECONDS", 120.0)  # a busy machine buries it late
    assert wait_for_old_workers(tmp_path / "workers.lock") == ()
    assert holder.wait(120) == -9


def test_a_worker_that_cannot_be_killed_stops_no_service_and_is_named(
    tmp_path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs in the kernel, on a dead share: the service starts without it, after a bounded wait, every time."""
    monkeypatch.setattr(os, "kill", lambda *_: None)
    for _ in range(2):
        began = time.monotonic()
        (old,) = wait_for_old_workers(tmp_path / "workers.lock")
        assert time.monotonic() - began < 100
        assert old.pid == holder.pid
        assert old.is_there()
    with (tmp_path / "workers.lock").open("rb") as lock:  # new workers share it with the old one
        subprocess.run([sys.executable, "-c", HOLD.replace("600", "0"), lock.name], check=True, timeout=300)
    monkeypatch.undo()
    holder.kill()
    wait_for(lambda: not old.is_there(), "it is gone")


@needs("unshare")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a namespace")
def test_a_worker_outside_of_the_container_stops_no_service(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    """It holds the lock and cannot be named or killed from in here: the service goes on all the same."""
    program = (
        "import sys; from pathlib import Path; from agent import ownership as o; o.OLD_WORKERS_SECONDS = 0.5;"
        "o.KILLED_WORKERS_SECONDS = 0.5; print(o.wait_for_old_workers(Path(sys.argv[1])))"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program]
    done = subprocess.run(
        [*command, str(tmp_path / "workers.lock")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "()\n", done.stderr
    assert holder.poll() is None
