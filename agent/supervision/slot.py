"""Where the model's journey hands workers to the strip's journey."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.supervision.handle import WorkerHandle
    from agent.wire import Loaded


class Slot:
    """A named place for one active model: where the model's journey hands workers to the strip's journey.

    The strip's journey calls `adopt`, `lose` and `hold`, the model's journey everything else.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._current: WorkerHandle | None = None
        self._incoming: WorkerHandle | None = None
        self._retired: list[WorkerHandle] = []
        self._left_behind: list[WorkerHandle] = []  # killed, and still there
        self._stopping = False
        self._hold = self._held_model = ""
        self.losses = 0  # workers lost since the start
        self.changed = threading.Event()  # rings for the model's journey
        self.bell = threading.Event()  # rings for the strip's journey
        self.shadow_is_there = False  # a worker of the slot's shadow runs; said by the shadow's journey
        self.shadow_facts: Loaded | None = None  # of that worker, once it has loaded its model; the same

    @property
    def current(self) -> WorkerHandle | None:
        """The worker that strips go to."""
        return self._current

    @property
    def incoming(self) -> WorkerHandle | None:
        """The worker that takes over as soon as the current one has answered what it holds."""
        return self._incoming

    @property
    def takes_strips(self) -> bool:
        """Whether the current worker may be given more: nobody waits for it to end, and nothing is held."""
        return self._current is not None and self._incoming is None and not self._stopping and not self._hold

    @property
    def held(self) -> str:
        """Why no strips are given to the worker; "" when they are."""
        return self._hold

    def offer(self, worker: WorkerHandle) -> None:
        """Let a loaded worker take over, between two strips."""
        with self._lock:
            if self._incoming is not None:
                self._retired.append(self._incoming)
            self._incoming = worker
            self._stopping = False
        self.bell.set()

    def adopt(self) -> WorkerHandle | None:
        """Return the worker to use now; swaps to the offered one when the current one holds no strip any more."""
        with self._lock:
            idle = self._current is None or not self._current.jobs
            if not idle or not (self._incoming or self._stopping):
                return self._current
            if self._current is not None:
                self._retired.append(self._current)
            self._current, self._incoming = self._incoming, None
            self._stopping = False
        self.changed.set()
        return self._current

    def stop_current(self) -> None:
        """Retire the current worker once it has answered what it holds; strips wait until another is offered."""
        with self._lock:
            self._stopping = self._current is not None
        self.bell.set()

    def end_retired(self) -> None:
        """End the workers that were replaced; it waits for them, so that the strips need not."""
        with self._lock:
            retired, self._retired = self._retired, []
        for worker in retired:
            self.end(worker)

    def lose(self, worker: WorkerHandle) -> None:
        """Report that the current worker is gone; the model's journey starts another."""
        with self._lock:
            self.losses += 1
            if self._current is worker:
                self._current = None
        self.end(worker)
        self.changed.set()

    @property
    def hanging(self) -> list[int]:
        """Process ids of ended workers that are still there, in the kernel. For any thread."""
        return [worker.pid for worker in self._left_behind if worker.hangs]

    def end(self, worker: WorkerHandle, grace_seconds: float = 5.0) -> None:
        """End a worker of this slot, and remember it where it hangs in the kernel. For any thread."""
        worker.close(grace_seconds)
        with self._lock:
            self._left_behind = [left for left in (*self._left_behind, worker) if left.hangs]

    @property
    def held_model(self) -> str:
        """The sha256 of the model whose workers were lost."""
        return self._held_model

    def hold(self, why: str, model_sha256: str) -> None:
        """Give no more strips: this model or the box is to blame for lost workers."""
        self._hold, self._held_model = why, model_sha256
        self.changed.set()

    def hold_is_over(self) -> None:
        """Give strips again."""
        self._hold = ""
        self.bell.set()

    def close(self) -> None:
        """End its workers."""
        with self._lock:
            workers = [worker for worker in (self._current, self._incoming) if worker is not None]
            self._current, self._incoming = None, None
            self._retired += workers
        self.end_retired()
