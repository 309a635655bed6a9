"""Questions to files that may lie on a share that hangs for ever: in a thread of their own, and not waited for."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LOOK_SECONDS = 5.0  # a share that is merely slow answers in that time
_PARTS = 10  # of the patience: time in which this process itself did not run costs one of them at the most


def answer_within(seconds: float, question: Callable[[], T]) -> T:
    """Return the answer; raise TimeoutError where none comes in time, and whatever `question` raises.

    The thread that still waits for it is left behind: it ends when the share answers, or with the process.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(question())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asked
            errors.append(error)

    thread = threading.Thread(target=ask, name="question", daemon=True)
    thread.start()
    for _ in range(_PARTS):
        thread.join(seconds / _PARTS)
        if errors or answers:
            break
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(errno.ETIMEDOUT, "does not answer (a share that hangs?)")
    return answers[0]


def within(seconds: float, question: Callable[[], T]) -> T | None:
    """Return the answer, None where none comes in time."""
    try:
        return answer_within(seconds, question)
    except TimeoutError:
        return None
