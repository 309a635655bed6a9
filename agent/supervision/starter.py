"""Starts workers in the main thread for whoever asks: a worker dies with the thread that started it."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from agent.errors import Retry
from agent.supervision.handle import WorkerHandle

if TYPE_CHECKING:
    from agent.wire import Setup


class Starter:
    """`order` is for any thread but the main one, `serve` for the main one."""

    def __init__(self) -> None:
        # No SimpleQueue: its `get` waits for ever when a handler of a signal is at work as its time is over, and the
        # main thread is the one that gets the signals.
        self._orders: queue.Queue[tuple[Setup, queue.SimpleQueue[WorkerHandle | OSError]]] = queue.Queue()
        self.started = 0

    def order(self, setup: Setup) -> WorkerHandle:
        """Have a worker started. Raises Retry where the box cannot."""
        answer: queue.SimpleQueue[WorkerHandle | OSError] = queue.SimpleQueue()
        self._orders.put((setup, answer))
        worker = answer.get()
        if isinstance(worker, OSError):
            raise Retry.of_box(worker, "cannot start a worker")
        return worker

    def serve(self, timeout_seconds: float) -> None:
        """Start what was ordered; waits up to `timeout_seconds` for an order."""
        try:
            setup, answer = self._orders.get(timeout=timeout_seconds)
        except queue.Empty:
            return
        try:
            answer.put(WorkerHandle(setup))
            self.started += 1
        except OSError as error:
            answer.put(error)
