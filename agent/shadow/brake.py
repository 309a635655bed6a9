"""Has the shadows' workers stand still while a worker is at a live strip.

The lowest priority alone is felt: what a shadow computes meanwhile goes through the same caches and the same memory.
A stopped process keeps its memory, and the kernel kills it like any other when the supervisor dies.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.supervision import WorkerHandle


class Brake:
    """One for all slots: a strip of any slot stops the shadows of all. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work: set[str] = set()  # slots
        self._workers: set[WorkerHandle] = set()
        self._before = 0.0  # seconds that it was on, until it was put on last
        self._since = 0.0  # when that was, monotonic

    @property
    def is_on(self) -> bool:
        """Whether a worker is at a live strip."""
        return bool(self._at_work)

    @property
    def on_seconds(self) -> float:
        """For how long it has been on in all: by so much later is a shadow that was held meanwhile."""
        with self._lock:
            return self._before + (self._clock() - self._since if self._at_work else 0.0)

    def put_on(self, slot: str) -> None:
        """Say that the worker of a slot is about to get a live strip."""
        with self._lock:
            if not self._at_work:
                self._since = self._clock()
                for worker in self._workers:
                    worker.stand_still()
            self._at_work.add(slot)

    def release(self, slot: str) -> None:
        """Say that the worker of a slot holds no strip."""
        with self._lock:
            if self._at_work == {slot}:
                self._before += self._clock() - self._since
                for worker in self._workers:
                    worker.go_on()
            self._at_work.discard(slot)

    def hold(self, worker: WorkerHandle) -> None:
        """Stop this worker, too, whenever it is on. One that has not opened its model may outlive the supervisor."""
        with self._lock:
            if worker not in self._workers:
                self._workers.add(worker)
                if self.is_on:
                    worker.stand_still()

    def let_go(self, worker: WorkerHandle) -> None:
        """Have nothing to do with this worker any more: it is to end."""
        with self._lock:
            if worker in self._workers:
                self._workers.remove(worker)
                worker.go_on()
