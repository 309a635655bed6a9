"""Files that the box could not try: each waits, longer every time, and lets the others pass. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.models.rules import decide_box_fault, pause_seconds

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.errors import Reject, Retry
    from agent.models.inbox_folder import InboxFile


@dataclass(frozen=True, slots=True)
class _Waiting:
    name: str
    sha256: str  # "" where it could not be read
    times: int
    until: float
    why: str


class Postponed:
    """The waiting files of one inbox. One thread changes them, any may ask."""

    def __init__(self) -> None:
        self._files: dict[str, _Waiting] = {}  # by name and key: a changed file does not wait; replaced as a whole

    def __bool__(self) -> bool:
        return bool(self._files)

    def waits(self, file: InboxFile, now: float) -> bool:
        """Whether it is too early to try this file again."""
        waiting = self._files.get(_key(file))
        return waiting is not None and now < waiting.until

    def add(self, file: InboxFile, sha256: str, error: Retry, now: float) -> Reject | float:
        """Let a file wait, and return for how many seconds; or the refusal, when the box is no longer to blame."""
        before = self._files.get(_key(file))
        times = before.times + 1 if before else 1
        refusal = decide_box_fault(error, times)
        if refusal is not None:
            self.forget(file)
            return refusal
        pause = pause_seconds(times)
        self._files = self._files | {_key(file): _Waiting(file.name, sha256, times, now + pause, str(error))}
        return pause

    def wait_no_longer(self) -> None:
        """Let all of them be tried at once: what they wait for may have come."""
        self._files = {key: replace(waiting, until=0.0) for key, waiting in self._files.items()}

    def forget(self, file: InboxFile) -> None:
        """Take out a file that has been tried."""
        if _key(file) in self._files:
            self._files = {key: waiting for key, waiting in self._files.items() if key != _key(file)}

    def keep_only(self, names: Collection[str]) -> None:
        """Forget files that are no longer in the inbox."""
        self._files = {key: waiting for key, waiting in self._files.items() if waiting.name in names}

    def find(self, beginning: str) -> dict[str, str]:
        """Return the files whose sha256 begins so, sha256 -> name."""
        waiting = self._files.values()
        return {one.sha256: one.name for one in waiting if one.sha256 and one.sha256.startswith(beginning)}

    def describe(self) -> dict[str, str]:
        """Say of each file what it waits for."""
        return {waiting.name: waiting.why for waiting in self._files.values()}


def _key(file: InboxFile) -> str:
    return f"{file.name} / {file.key}"
