"""What operators ask for: a model of the store or the inbox, or the previous one. Any thread may ask."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import Reason
from agent.models.probation import Failing

if TYPE_CHECKING:
    from agent.models.inbox import Inbox, InboxFile
    from agent.models.slot_record import SlotRecord


@dataclass(frozen=True, slots=True)
class Request:
    """A model that an operator asked for: what was said against it does not count, but it goes through the trial."""

    sha256: str
    file: InboxFile | None = None  # where it is, when it is not in the store
    leaving: Failing | None = None  # the active one is withdrawn for this reason


class Requests:
    """The requests that have not been taken up yet, oldest first."""

    def __init__(self, record: SlotRecord, inbox: Inbox) -> None:
        self._record = record
        self._inbox = inbox
        self._waiting: list[Request] = []
        self._lock = threading.Lock()

    def activate(self, beginning: str) -> str:
        """Ask for a model of the store or the inbox, by the beginning of its sha256; return all of it.

        It goes through the trial and, from the inbox, through the signature; whatever else was said against it does
        not count. Raises LookupError where there is no such model, or more than one.
        """
        requests = {sha256: Request(sha256) for sha256 in self._record.state.accepted if sha256.startswith(beginning)}
        if not requests:
            requests = {sha256: Request(sha256, file) for file, sha256 in self._inbox.find(beginning)}
        if len(requests) != 1:
            what = "more than one model has" if requests else "no model in the store or the inbox has"
            raise LookupError(f"{what} a digest that begins with {beginning!r}")
        return self._add(requests.popitem()[1])

    def roll_back(self) -> str:
        """Ask for the previous model and withdraw the active one. Raises LookupError where there is none."""
        previous = self._record.state.previous
        if not previous:
            raise LookupError(f"slot {self._record.slot} has no previous model to go back to")
        return self._add(Request(previous, leaving=Failing(Reason.OPERATOR, "rolled back by an operator")))

    def take(self) -> Request | None:
        """Take up the oldest request."""
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None

    def _add(self, request: Request) -> str:
        with self._lock:
            self._waiting.append(request)
        return request.sha256
