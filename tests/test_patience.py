"""Patience with files that may lie on a share that hangs."""

from __future__ import annotations

import threading

import pytest

from agent.patience import answer_within


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
    assert answer_within(600.0, answer) == "here"


def test_what_does_not_answer_is_given_up() -> None:
    """Not before its time, and not much later."""
    release = threading.Event()
    with pytest.raises(TimeoutError):
        answer_within(0.1, lambda: release.wait(120))
    release.set()
