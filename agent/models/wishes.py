"""What operators ask for: a model of the store or the inbox, or the previous one. Any thread may ask."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import Reason
from agent.models.probation import Failing

if TYPE_CHECKING:
    from agent.inbox import Inbox, InboxFile
    from agent.models.memory import Memory


@dataclass(frozen=True, slots=True)
class Wish:
    """A model that an operator asked for: what was said against it does not count, but it goes through the trial."""

    sha256: str
    file: InboxFile | None = None  # where it is, when it is not in the store
    leaving: Failing | None = None  # the active one is withdrawn for this reason


class Wishes:
    """The wishes that have not been taken up yet, oldest first."""

    def __init__(self, memory: Memory, inbox: Inbox) -> None:
        self._memory = memory
        self._inbox = inbox
        self._waiting: list[Wish] = []
        self._lock = threading.Lock()

    def activate(self, beginning: str) -> str:
        """Ask for a model of the store or the inbox, by the beginning of its sha256; return all of it.

        It goes through the trial and, from the inbox, through the signature; whatever else was said against it does
        not count. Raises LookupError where there is no such model, or more than one.
        """
        wishes = {sha256: Wish(sha256) for sha256 in self._memory.state.accepted if sha256.startswith(beginning)}
        if not wishes:
            wishes = {sha256: Wish(sha256, file) for file, sha256 in self._inbox.find(beginning)}
        if len(wishes) != 1:
            what = "more than one model has" if wishes else "no model in the store or the inbox has"
            raise LookupError(f"{what} a digest that begins with {beginning!r}")
        return self._add(wishes.popitem()[1])

    def roll_back(self) -> str:
        """Ask for the previous model and withdraw the active one. Raises LookupError where there is none."""
        previous = self._memory.state.previous
        if not previous:
            raise LookupError(f"slot {self._memory.slot} has no previous model to go back to")
        return self._add(Wish(previous, leaving=Failing(Reason.OPERATOR, "rolled back by an operator")))

    def take(self) -> Wish | None:
        """Take up the oldest wish."""
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None

    def _add(self, wish: Wish) -> str:
        with self._lock:
            self._waiting.append(wish)
        return wish.sha256
