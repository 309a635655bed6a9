"""The service's loops: each calls its `step` in a thread of its own, and all of them show that they move."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from agent.errors import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
BUDGET_SECONDS = {
    "strips": 60.0,
    "publisher": 60.0,
    "models": 600.0,
    "housekeeping": 600.0,
    "control": 300.0,
    "commands": 300.0,
}
"""How long each kind of loop may take for one round before the heart stops. The others touch a camera's folder, an
inbox, the heatmap folder, keys or certificates, and may hang for ever: a dead share stops nothing else. Nor does a
slot's shadow."""


class Loops:
    """Loops by their names; the part before the first `-` is their kind. For any thread."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failed = threading.Event()  # one of them met an error that nobody expected
        self._running: dict[str, _Loop] = {}
        self._left_behind: list[_Loop] = []  # ended, and still in a step that does not come back
        self._lock = threading.Lock()

    def start(self, name: str, step: Callable[[], object], at_end: Callable[[], None] | None = None) -> None:
        """Begin to call `step` again and again, until `stop` is set or the loop is ended; `at_end` is called last."""
        loop = _Loop(self, name, step, at_end)
        with self._lock:
            self._running[name] = loop
        loop.thread.start()

    def end(self, names: Collection[str], wake: Callable[[], None], seconds: float) -> set[str]:
        """End some loops while the others go on; return those whose step has not come back within `seconds`.

        Those are left behind: they do no further step. `wake` is called so that no loop waits for its poll.
        """
        with self._lock:
            ended = [self._running.pop(name) for name in names]
        for loop in ended:
            loop.over.set()
        wake()
        deadline = time.monotonic() + seconds
        for loop in ended:
            loop.thread.join(max(0.0, deadline - time.monotonic()))
        left = [loop for loop in ended if loop.thread.is_alive()]
        with self._lock:
            self._left_behind = [loop for loop in (*self._left_behind, *left) if loop.thread.is_alive()]
        return {loop.name for loop in left}

    def pause(self, name: str, seconds: float) -> None:
        """Wait in a loop's step, at most until it is to end."""
        with self._lock:
            loop = self._running.get(name)
        if loop is not None:  # else it has been ended meanwhile
            loop.over.wait(seconds)

    def stop_all(self) -> None:
        """Have every loop end after its present step."""
        self.stop.set()
        for loop in self._all():
            loop.over.set()

    def late(self, now: float) -> list[str]:
        """Name the loops that have not moved for too long; `now` is monotonic seconds."""
        with self._lock:
            running = list(self._running.values())
        late = [loop.name for loop in running if now - loop.beat > BUDGET_SECONDS.get(loop.kind, 1e9)]
        if late:
            log.critical("no progress in %s", ", ".join(late))
        return late

    def join(self, deadline: float, share_seconds: float, between: Callable[[], None]) -> set[str]:
        """Wait until all have ended, for those that may hang only so many seconds; return the names of those left.

        `between` is called while waiting: a loop may need something before it can end.
        """
        self.stop_all()
        for loop in self._all():
            may_hang = loop.kind not in BUDGET_SECONDS
            until = min(deadline, time.monotonic() + share_seconds) if may_hang else deadline
            while loop.thread.is_alive() and time.monotonic() < until:
                between()
                loop.thread.join(0.05)
        return {loop.name for loop in self._all() if loop.thread.is_alive()}

    def _all(self) -> list[_Loop]:
        with self._lock:
            return [*self._running.values(), *self._left_behind]


class _Loop:
    """One of them, with its thread."""

    def __init__(self, loops: Loops, name: str, step: Callable[[], object], at_end: Callable[[], None] | None) -> None:
        self.name = name
        self.kind = name.split("-", maxsplit=1)[0]
        self.beat = time.monotonic()  # when it began its last round
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loops = loops
        self._step = step
        self._at_end = at_end

    def _run(self) -> None:
        """Call `step` until the loop is over; an error that nobody expected ends the service, which is restarted."""
        while not (self.over.is_set() or self._loops.stop.is_set()):
            self.beat = time.monotonic()
            try:
                self._step()
            except Retry as error:
                log.error("%s: %s", self.name, error)  # noqa: TRY400 - the stack tells nothing
                self.over.wait(PAUSE_SECONDS)
            except Exception:
                log.critical("%s failed; the service ends and is to be restarted", self.name, exc_info=True)
                self._loops.failed.set()
                self._loops.stop_all()
        if self._at_end is not None:
            self._at_end()
