"""Files that the box could not try: each waits, longer every time, and lets the others pass. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.models.rules import decide_box_fault, pause_seconds

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.errors import Reject, Retry
    from agent.models.inbox import InboxFile


@dataclass(frozen=True, slots=True)
class _Waiting:
    name: str
    times: int
    until: float
    why: str


class Postponed:
    """The waiting files of one inbox."""

    def __init__(self) -> None:
        self._files: dict[str, _Waiting] = {}  # by name and key: a changed file does not wait

    def __bool__(self) -> bool:
        return bool(self._files)

    def waits(self, file: InboxFile, now: float) -> bool:
        """Whether it is too early to try this file again."""
        waiting = self._files.get(_key(file))
        return waiting is not None and now < waiting.until

    def add(self, file: InboxFile, error: Retry, now: float) -> Reject | float:
        """Let a file wait, and return for how many seconds; or the refusal, when the box is no longer to blame."""
        before = self._files.get(_key(file))
        times = before.times + 1 if before else 1
        refusal = decide_box_fault(error, times)
        if refusal is not None:
            del self._files[_key(file)]
            return refusal
        pause = pause_seconds(times)
        self._files[_key(file)] = _Waiting(file.name, times, now + pause, str(error))
        return pause

    def forget(self, file: InboxFile) -> None:
        """Take out a file that has been tried."""
        self._files.pop(_key(file), None)

    def keep_only(self, names: Collection[str]) -> None:
        """Forget files that are no longer in the inbox."""
        self._files = {key: waiting for key, waiting in self._files.items() if waiting.name in names}

    def describe(self) -> dict[str, str]:
        """Say of each file what it waits for."""
        return {waiting.name: waiting.why for waiting in self._files.values()}


def _key(file: InboxFile) -> str:
    return f"{file.name} / {file.key}"
