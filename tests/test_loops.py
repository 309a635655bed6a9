"""Loops that are ended one by one: the others go on, and what hangs is left behind."""

from __future__ import annotations

import threading
import time

from agent.loops import Loops
from tests.helpers.broker import wait_for


def test_one_loop_ends_and_the_others_go_on() -> None:
    """It is woken out of its pause, does no further step, and closes what it held."""
    loops, steps, closed = Loops(), {"files-a": 0, "files-b": 0}, threading.Event()

    def step(name: str) -> None:
        steps[name] += 1
        loops.pause(name, 600.0 if name == "files-a" else 0.01)

    loops.start("files-a", lambda: step("files-a"), closed.set)
    loops.start("files-b", lambda: step("files-b"))
    wait_for(lambda: all(steps.values()), "both move")
    assert loops.end(["files-a"], lambda: None, 60.0) == set()
    assert closed.is_set()
    before = dict(steps)
    wait_for(lambda: steps["files-b"] > before["files-b"], "the other one goes on")
    assert steps["files-a"] == before["files-a"] == 1
    assert loops.join(time.monotonic() + 60, 60.0, lambda: None) == set()


def test_a_loop_that_hangs_is_left_behind_and_its_successor_runs() -> None:
    """Nobody waits for a dead share; when it answers after all, the old loop ends and closes what it held."""
    loops, dead_share, closed, again = Loops(), threading.Event(), threading.Event(), threading.Event()
    asks = threading.Event()

    def step() -> None:
        asks.set()
        dead_share.wait()

    loops.start("intake-a", step, closed.set)
    assert asks.wait(60)
    assert loops.end(["intake-a"], lambda: None, 0.05) == {"intake-a"}
    loops.start("intake-a", again.set)
    assert again.wait(60)
    assert not closed.is_set()
    dead_share.set()
    assert closed.wait(60)
    assert loops.join(time.monotonic() + 60, 60.0, lambda: None) == set()
    assert not loops.failed.is_set()
