"""Questions to files that may lie on a share that hangs for ever: in a thread of their own, and not waited for."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

LOOK_SECONDS = 5.0  # a share that is merely slow answers in that time
_PARTS = 10  # of the patience: time in which this process itself did not run costs one of them at the most

_waiting: dict[Hashable, threading.Thread] = {}  # who asked last, by what it is about


def begin_to_ask(about: Hashable, question: Callable[[], object]) -> threading.Thread | None:
    """Ask in a thread of its own; None where an earlier question about the same still waits for its answer.

    Who asks again and again, for months, must not leave a thread behind each time.
    """
    before = _waiting.get(about)
    if before is not None and before.is_alive():
        return None
    # A daemon: one that hangs in the kernel must not keep the process from ending.
    thread = _waiting[about] = threading.Thread(target=question, name="question", daemon=True)
    thread.start()
    return thread


def answer_within(seconds: float, question: Callable[[], T], *, about: Hashable) -> T:
    """Return the answer; raise TimeoutError where none comes in time, and whatever `question` raises.

    The thread that still waits for it is left behind: it ends when the share answers, or with the process. While it
    waits nothing else `about` the same is asked, and there is no answer.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(question())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asked
            errors.append(error)

    thread = begin_to_ask(about, ask)
    for _ in range(_PARTS):
        if thread is None or errors or answers:
            break
        thread.join(seconds / _PARTS)
    if thread is not None and (errors or answers):
        thread.join()  # it has only to end: the next question must not find it
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(errno.ETIMEDOUT, "does not answer (a share that hangs?)")
    return answers[0]


def within(seconds: float, question: Callable[[], T], *, about: Hashable) -> T | None:
    """Return the answer, None where none comes in time."""
    try:
        return answer_within(seconds, question, about=about)
    except TimeoutError:
        return None
