"""Processes that hang, are stopped or starved: the line goes on, and nobody is blamed for what is not their fault."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.faults.reliability import Row, tell
from tests.faults.shift import (
    Cameras,
    attempts_of,
    judge_shift,
    make_box,
    threads_of,
    wait_for_progress,
    worker_pid,
    worker_restarts,
)
from tests.helpers.box import unique_results
from tests.helpers.broker import Broker, Subscriber, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(400)
NO_HEATMAPS = {"min_free_gib": 0, "png": "none", "tiff": "none"}
"""A worker that waits for a slow disk with a picture would be counted as one that hangs."""
DEADLINE_SECONDS = 4.0


def test_a_worker_that_hangs_under_load(tmp_path: Path, broker: Broker, subscriber: Subscriber) -> None:
    """It is killed at its deadline, another goes on, and the strip that it was at is tried again."""
    hangs = 2
    rates = {"top": 5.0, "side": 5.0}
    with (
        make_box(tmp_path, broker.port, inference={"deadline_seconds": DEADLINE_SECONDS}, heatmaps=NO_HEATMAPS) as box,
        Cameras(box, tmp_path, rates) as cameras,
    ):
        box.start()
        took = []
        for _ in range(hangs):
            wait_for_progress(subscriber, 10)
            hung = worker_pid(box)
            os.kill(hung, signal.SIGSTOP)
            began = time.monotonic()
            wait_for(lambda hung=hung: worker_pid(box) != hung, "another worker is there")  # type: ignore[misc]
            wait_for_progress(subscriber)
            took.append(time.monotonic() - began)
        verdict = judge_shift(box, subscriber, cameras)
        assert worker_restarts(box) == hangs
        tried_again = [name for name, attempts in attempts_of(box).items() if attempts]
        assert len(tried_again) <= hangs
        assert box.stop() == 0
    tell(
        Row(
            "Processes",
            "worker hangs",
            "killed at inference.deadline_seconds, another goes on, the strip is tried again, nothing is lost",
            f"SIGSTOP while 10 strips a second arrive, {hangs} times; the deadline is {DEADLINE_SECONDS:g} s",
            f"{verdict}; {len(tried_again)} strips tried again; scoring again within {max(took):.1f} s",
        )
    )


def stop_for(seconds: float, *pids: int) -> None:
    """Let processes stand still, and go on in this order."""
    for pid in reversed(pids):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)  # the fault itself: not a wait for anything
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.3)


def test_a_supervisor_that_was_stopped_blames_no_worker(tmp_path: Path, broker: Broker, subscriber: Subscriber) -> None:
    """It was stopped for longer than any deadline, alone or with its worker: no worker is killed for that."""
    pause, rounds = DEADLINE_SECONDS + 1.5, 1
    with (
        make_box(tmp_path, broker.port, inference={"deadline_seconds": DEADLINE_SECONDS}, heatmaps=NO_HEATMAPS) as box,
        Cameras(box, tmp_path, {"top": 5.0, "side": 5.0}) as cameras,
    ):
        box.start()
        wait_for_progress(subscriber, 10)
        assert box.process is not None
        supervisor, worker = box.process.pid, worker_pid(box)
        for _ in range(rounds):
            stop_for(pause, supervisor)
            wait_for_progress(subscriber, 10)
            stop_for(pause, supervisor, worker)  # as a virtual machine is; the worker wakes up later
            wait_for_progress(subscriber, 10)
        verdict = judge_shift(box, subscriber, cameras)
        assert worker_restarts(box) == 0, box.log[-2000:]
        assert worker_pid(box) == worker
        assert box.stop() == 0
    tell(
        Row(
            "Processes",
            "supervisor stopped, alone or with its worker",
            "nothing is lost and no worker is killed for the time in which nobody looked; systemd restarts a service "
            "that stands still for longer than WatchdogSec (120 s), which is a kill as above",
            f"SIGSTOP for {pause:g} s, {2 * rounds} times, with a deadline of {DEADLINE_SECONDS:g} s, while 10 strips "
            "a second arrive; supervisor woken first",
            f"{verdict}; no worker lost",
        )
    )


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Take all that the processors have."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def beats(listener: socket.socket) -> list[float]:
    """Return when the watchdog's beats that lie there came, by the order of looking; empties the socket."""
    found = []
    while True:
        try:
            if b"WATCHDOG=1" in listener.recv(65536):
                found.append(time.monotonic())
        except BlockingIOError:
            return found


def test_a_supervisor_starved_of_the_processor(tmp_path: Path, broker: Broker, subscriber: Subscriber) -> None:
    """It goes on slowly, its heart beats in time for systemd, nothing is lost and no worker is killed for it."""
    seconds, watchdog = 3.0, 120
    address = tmp_path / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        make_box(tmp_path, broker.port, heatmaps=NO_HEATMAPS) as box,
        Cameras(box, tmp_path, {"top": 5.0, "side": 5.0}) as cameras,
    ):
        systemd.bind(str(address))
        systemd.settimeout(0)
        # A third of this is the pause between two beats: one each second.
        box.start(env={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "3000000"})
        wait_for_progress(subscriber, 10)
        assert box.process is not None
        beats(systemd)
        before, began, last, longest = len(unique_results(subscriber)), time.monotonic(), time.monotonic(), 0.0
        with busy_loops(os.cpu_count() or 2):
            for thread in threads_of(box.process.pid):
                with suppress(ProcessLookupError):  # a thread that ended meanwhile
                    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            while time.monotonic() < began + seconds:
                wait_for(lambda: beats(systemd), "the heart beats", watchdog / 2)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            during = len(unique_results(subscriber)) - before
        verdict = judge_shift(box, subscriber, cameras)
        assert worker_restarts(box) == 0
        assert box.stop() == 0
    tell(
        Row(
            "Processes",
            "supervisor starved of the processor",
            "nothing is lost, no worker is killed for it, and the heart beats often enough for systemd (120 s)",
            f"all its threads in SCHED_IDLE beside a busy loop for each core, for {seconds:g} s",
            f"{verdict}; {during} of them published meanwhile; never more than {longest:.1f} s between two beats "
            "that were to come each second",
        )
    )
