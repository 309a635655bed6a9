"""What operators ask for: a model of the store or the inbox, the previous one, to forget. Any thread may ask."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.errors import Reason, Reject
from agent.models.probation import Failing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.models.postponed import Postponed
    from agent.models.slot_record import SlotRecord
    from agent.models.slot_state import SlotState


@dataclass(frozen=True, slots=True)
class Request:
    """A model that an operator asked for: what was said against it does not count, but it goes through the trial."""

    sha256: str  # "" to forget the highest version
    file: str = ""  # its name in the inbox, when it is not in the store
    instead_of: str = ""  # of a rollback: the model that is to be withdrawn
    forgets: bool = False  # it is not to be tried: what was said against it is taken back
    shadow: Literal["", "begins", "ends"] = ""  # it is not to be tried: it is, or is no longer, the slot's shadow
    why: tuple[str, str] = ("", "")  # of a shadow that has failed: reason and sentence
    events: bool = False  # what the shadow says of each strip is to be published

    @property
    def leaving(self) -> Failing | None:
        """Why the active model is withdrawn, if it is."""
        return Failing(Reason.OPERATOR, "rolled back by an operator") if self.instead_of else None

    def check(self, active: str, inbox: str) -> None:
        """Refuse what cannot be met any more, or not now; `inbox` is the state of the inbox. Raises Reject."""
        if self.instead_of not in ("", active):
            gone = f"model {self.instead_of[:12]} is not active any more: there is nothing to roll back"
            raise Reject(Reason.OPERATOR, gone)
        if self.file and inbox not in ("starting", "ok"):
            raise Reject(Reason.IO_ERROR, f"the inbox is {inbox}")


class Requests:
    """The requests that have not been finished yet, oldest first."""

    def __init__(self, record: SlotRecord, postponed: Postponed, *, asked: Callable[[], None]) -> None:
        self._record = record
        self._postponed = postponed
        self._asked = asked
        self._unfinished: list[Request] = []
        self._lock = threading.Lock()

    def activate(self, beginning: str) -> str:
        """Ask for a model of the store or the inbox, by the beginning of its sha256; return all of it.

        It goes through the trial and, from the inbox, through the signature; whatever else was said against it does
        not count. A file of the inbox is known by its digest once it has been looked at. Raises LookupError where there
        is no such model, or more than one.
        """
        requests = {sha256: Request(sha256) for sha256 in self._record.state.kept if sha256.startswith(beginning)}
        if not requests:
            found = self._record.dealt.find(beginning) | self._postponed.find(beginning)
            requests = {sha256: Request(sha256, name) for sha256, name in found.items()}
        if len(requests) != 1:
            what = "more than one model has" if requests else "no model that the agent has looked at has"
            raise LookupError(f"{what} a digest that begins with {beginning!r}")
        with self._lock:
            return self._add(requests.popitem()[1])

    def roll_back(self) -> str:
        """Ask for the model before the one that is active once all other requests are met, and withdraw that one.

        Return the sha256 of the model that will be active then. Raises LookupError where there is none.
        """
        with self._lock:
            last = models_in_turn(self._record.state, self._unfinished)
            if len(last) < 2:  # noqa: PLR2004 - the active one and the one before
                raise LookupError(f"slot {self._record.slot} has no previous model to go back to")
            return self._add(Request(last[-2], instead_of=last[-1]))

    def forget(self, beginning: str) -> str:
        """Have a refusal taken back, see `SlotRecord.find_refused`; return the model's sha256. Raises LookupError."""
        with self._lock:
            return self._add(Request(self._record.find_refused(beginning), forgets=True))

    def forget_highest_version(self) -> str:
        """Let only the active model's version hold older ones off; return "", as no model is meant."""
        with self._lock:
            return self._add(Request("", forgets=True))

    def shadow(self, beginning: str, *, events: bool = False) -> str:
        """Ask for a shadow by the beginning of its sha256, see `find_for_shadow`; return all of it."""
        with self._lock:
            sha256 = find_for_shadow(self._record.state, beginning)
            return self._add(Request(sha256, shadow="begins", events=events))

    def end_shadow(self, sha256: str = "", reason: str = "", detail: str = "") -> str:
        """Ask that the slot's shadow (or this one, if it still is it) be taken away, or with a reason switched off.

        Return its sha256. Raises LookupError where there is none.
        """
        shadow = self._record.state.shadow
        if shadow is None:
            raise LookupError(f"slot {self._record.slot} has no shadow")
        with self._lock:
            return self._add(Request(sha256 or shadow.sha256, shadow="ends", why=(reason, detail)))

    def oldest(self) -> Request | None:
        """Return the request whose turn it is; it stays until `finish`."""
        with self._lock:
            return self._unfinished[0] if self._unfinished else None

    def finish(self) -> None:
        """Take out the oldest request: it has been met, or cannot be."""
        with self._lock:
            del self._unfinished[0]

    def _add(self, request: Request) -> str:
        self._unfinished.append(request)
        self._asked()
        return request.sha256


def carry_out(request: Request, record: SlotRecord) -> bool:
    """Do what takes no trial; False where the model is to be tried. Raises Retry where it cannot be written down."""
    if request.shadow == "begins":
        record.choose_shadow(request.sha256, events=request.events)
    elif request.shadow:
        record.end_shadow(request.sha256, *request.why)
    elif request.forgets and request.sha256:
        record.forget(request.sha256)
    elif request.forgets:
        record.forget_highest_version()
    else:
        return False
    return True


def find_for_shadow(state: SlotState, beginning: str) -> str:
    """Return the sha256 of the model in the store whose digest begins so and that may be the shadow.

    Raises LookupError where there is none, or more than one, or where it is the active one.
    """
    found = [sha256 for sha256 in state.kept if sha256.startswith(beginning)]
    refused = [known for known in state.refused.values() if known.sha256 and known.sha256.startswith(beginning)]
    if not found and refused:
        known, digest = refused[-1], refused[-1].sha256[:12]
        how = f"`strip-agent models forget {digest}`, then push it with `tools/export.py push --shadow`"
        raise LookupError(f"model {digest} was {known.kind} ({known.reason}): {how}")
    if not found:
        how = "push it with `tools/export.py push --shadow`, or name one that `strip-agent models list` shows as kept"
        raise LookupError(f"no model in the store has a digest that begins with {beginning!r}: {how}")
    if len(found) > 1:
        raise LookupError(f"more than one model in the store has a digest that begins with {beginning!r}")
    if found[0] == state.active:
        raise LookupError(f"model {found[0][:12]} is active: its scores are published already")
    return found[0]


def models_in_turn(state: SlotState, requests: Sequence[Request]) -> list[str]:
    """Return the models in the order in which they became active, as it will be once the requests are met."""
    order = list(state.accepted)
    for request in requests:
        if request.forgets or request.shadow:
            continue
        gone = (request.sha256, request.instead_of)
        order = [*(sha256 for sha256 in order if sha256 not in gone), request.sha256]
    return order
