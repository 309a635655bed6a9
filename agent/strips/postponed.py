"""The strips that cannot be judged or recorded now, and when each of them is looked at again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.records import FileIdentity, Strip

NEVER = float("inf")
FIRST_LOOK_AGAIN_SECONDS = 0.5
LAST_LOOK_AGAIN_SECONDS = 5.0


def pause_seconds(waited_seconds: float) -> float:
    """Return how long to wait before the next look: half of what it has waited so far, within limits."""
    return min(max(FIRST_LOOK_AGAIN_SECONDS, waited_seconds / 2), LAST_LOOK_AGAIN_SECONDS)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A strip whose file, or the box, is not ready; times are of the monotonic clock."""

    since: float
    until: float
    identity: FileIdentity
    for_the_box: bool
    attempts: int  # above 0: it has to be put back with so many, which the ledger could not write down


class WaitingStrips:
    """By the ledger's row. In memory only: after a restart each of them is looked at at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._strips: dict[int, Waiting] = {}

    def __contains__(self, strip: Strip) -> bool:
        return strip.row in self._strips

    def add(
        self, strip: Strip, seconds: float, *, since: float | None = None, for_the_box: bool = False, attempts: int = 0
    ) -> None:
        """Let a strip wait for `seconds` from now; `since` when it has waited all in all (None: from now on)."""
        now = self._clock()
        began = now if since is None else since
        self._strips[strip.row] = Waiting(began, now + seconds, strip.identity, for_the_box, attempts)

    def forget(self, row: int) -> None:
        """Take out a strip that waits no more."""
        self._strips.pop(row, None)

    def since(self, strip: Strip) -> float:
        """Return when it began to wait; now, where it does not, or waited with another file."""
        waiting = self._strips.get(strip.row)
        return waiting.since if waiting and waiting.identity == strip.identity else self._clock()

    def rows(self) -> set[int]:
        """Return those whose time has not come, or that the ledger has still to put back."""
        now = self._clock()
        return {row for row, waiting in self._strips.items() if waiting.until > now or waiting.attempts}

    def to_put_back(self) -> dict[int, int]:
        """Return row and attempts of those that are due to be put back."""
        now = self._clock()
        return {row: wait.attempts for row, wait in self._strips.items() if wait.attempts and wait.until <= now}

    def next_due(self) -> float:
        """Return when the next one's time comes, `NEVER` when there is none."""
        now = self._clock()
        return min((waiting.until for waiting in self._strips.values() if waiting.until > now), default=NEVER)

    def for_the_box_since(self, before: float) -> bool:
        """Say whether one has waited for the box since then. For any thread."""
        return any(waiting.for_the_box and waiting.since < before for waiting in list(self._strips.values()))
