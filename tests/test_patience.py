"""Patience with files that may lie on a share that hangs."""

from __future__ import annotations

import threading

import pytest

from agent.patience import answer_within
from tests.helpers.broker import wait_for


def test_a_process_that_was_stopped_does_not_take_a_file_for_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the time may have gone by while nobody ran, neither who asks nor who answers."""
    join, asked = threading.Thread.join, threading.Event()

    def wake_up_late(thread: threading.Thread, timeout: float | None = None) -> None:
        if asked.is_set():
            join(thread, timeout)
        asked.set()

    def answer() -> str:
        assert asked.wait(120)
        return "here"

    monkeypatch.setattr(threading.Thread, "join", wake_up_late)
    assert answer_within(600.0, answer, about="a file") == "here"


def test_what_does_not_answer_is_given_up() -> None:
    """Not before its time, and not much later."""
    release = threading.Event()
    with pytest.raises(TimeoutError):
        answer_within(0.1, lambda: release.wait(120), about="a share")
    release.set()


def test_who_asks_again_and_again_leaves_one_thread_behind() -> None:
    """A share that hangs for weeks costs one thread; once it answers, it is asked again."""
    release, asked = threading.Event(), []

    def ask() -> bool:
        asked.append(threading.current_thread())
        return release.wait(120)

    for _ in range(5):
        with pytest.raises(TimeoutError):
            answer_within(0.05, ask, about="a share that comes back")
    wait_for(lambda: asked, "the one that asks has begun")
    assert len(asked) == 1
    release.set()
    asked[0].join(120)
    assert answer_within(120, ask, about="a share that comes back")
