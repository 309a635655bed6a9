"""The inbox's own loop: it finds settled files, chooses, copies, and hands them over one at a time.

The folder may be a share that hangs, or hold thousands of files that are no models. That costs pushes and nothing else:
the model's journey only takes what has arrived completely in the store. While a look at the folder takes long, looks
are rare.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.contract.manifest import MANIFEST_SUFFIX
from agent.errors import Reason, Reject, Retry
from agent.models.inbox_folder import InboxFile, copy_candidate, list_inbox, read_manifest, stated_version
from agent.models.slot_state import Dealt, Fate
from agent.records import show_name
from agent.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import ModelsSection
    from agent.models.dealt_with import DealtWith
    from agent.models.postponed import Postponed

log = logging.getLogger(__name__)

MANIFEST_GRACE_SECONDS = 10.0  # how long a model, or a manifest, may be without the other
LOOK_SECONDS = 0.05  # at the inbox, at the most often
LOOKS_SHARE = 10  # a look that costs a second of a processor is made every ten seconds
SLOW_LOOK_SECONDS = 2.0  # so long at the most is waited after a look at a slow share, or one that hung
NEXT_FILE_SECONDS = 0.02
UNREACHABLE_SECONDS = 30.0  # without an answer of the folder

State = Literal["starting", "ok", "missing", "unreadable", "unreachable"]
_TO_BE_READ = (Fate.BEHIND, Fate.SEEN)  # dealt with, but their digests are not known yet


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file of the inbox that has been read, or could not be."""

    file: InboxFile
    sha256: str = ""
    manifest: bytes | None = None
    error: Reject | Retry | None = None
    behind: tuple[InboxFile, ...] = ()  # files that were there with it and stand behind it
    dealt: Dealt | None = None  # it has been dealt with; only its digest was not known
    is_wanted: bool = False  # an operator asked for it

    @property
    def push(self) -> str:
        """Digest of the model and its manifest together; "" where it could not be read."""
        if not self.sha256:
            return ""
        return hashlib.sha256(self.sha256.encode() + b"\0" + (self.manifest or b"")).hexdigest()


class Arrivals:
    """One slot's inbox. `step` is for the inbox's own thread, the rest for any."""

    def __init__(
        self,
        folder: Path,
        models: ModelsSection,
        copy_path: Path,
        dealt: DealtWith,
        postponed: Postponed,
        *,
        clock: Callable[[], float] = time.monotonic,
        arrived: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.names: frozenset[str] | None = None  # all that the last look found; None: it could not look
        self.bell = threading.Event()
        self._models = models
        self._copy_path = copy_path
        self._dealt = dealt
        self._postponed = postponed
        self._clock = clock
        self._arrived = arrived
        self._settling = Settling(models.settle_seconds)
        self._settled: dict[str, tuple[str, float]] = {}  # file name -> (key, when it had settled)
        self._versions: dict[str, tuple[str, int]] = {}  # file name -> (key, the version that its manifest states)
        self._ready: list[InboxFile] = []  # the best first, as the last look found them
        self._unread: list[InboxFile] = []  # of the same look: dealt with, to be read once
        self._again: set[str] = set()  # names of files that changed under our hands
        self._arrival: Arrival | None = None  # what has been handed over and is not dealt with
        self._wanted = ""
        self._settles = False  # of the last look: a file had not settled
        self._look_at = 0.0
        self._state: State = "starting"
        self._detail = ""
        self._answered_at: float | None = None  # while the folder is being asked: when it answered last

    # -- for the model's journey ---------------------------------------------------------------------------------------

    def take(self) -> Arrival | None:
        """Return what has arrived; it stays until `done`."""
        return self._arrival

    def done(self, arrival: Arrival, *, again: bool = False) -> None:
        """Go on with the next file; `again`: this one has changed under our hands and is to settle once more."""
        if again:
            self._again.add(arrival.file.name)
        self._arrival = None
        self.bell.set()

    def want(self, name: str) -> None:
        """Have this file read next, whatever was decided about it."""
        self._wanted = name
        self.bell.set()

    @property
    def state(self) -> State:
        """How the folder is."""
        since = self._answered_at
        if since is not None and self._clock() - since > UNREACHABLE_SECONDS:
            return "unreachable"
        return self._state

    def describe(self) -> dict[str, str]:
        """Say how the folder is, for the status."""
        state = self.state
        detail = "has not answered for a while" if state == "unreachable" else self._detail
        return {"folder": str(self.folder), "state": state, "detail": detail}

    # -- the loop ------------------------------------------------------------------------------------------------------

    def step(self, timeout_seconds: float) -> None:
        """Look at the folder if it is time, and hand over one file; wait up to `timeout_seconds`."""
        self._alive()
        try:
            pause = self._work()
        finally:
            self._answered_at = None
        self.bell.wait(min(timeout_seconds, pause))
        self.bell.clear()

    def _work(self) -> float:
        """Look if it is time, and read one file if none waits; return for how many seconds there is nothing else."""
        now = self._clock()
        if now >= self._look_at:
            cost = -time.thread_time()
            self._look(now)
            cost += time.thread_time()
            after = self._clock()
            self._look_at = after + max(LOOK_SECONDS, LOOKS_SHARE * cost, min(after - now, SLOW_LOOK_SECONDS))
        if self._arrival is None and self._read_next(now):
            return NEXT_FILE_SECONDS
        pause = self._models.settle_seconds / (4 if self._settles else 1)
        return max(pause, self._look_at - self._clock())

    def _read_next(self, now: float) -> bool:
        if self._wanted:
            self._read_wanted()
            return True
        self._ready = [file for file in self._ready if self._is_new(file)]  # a trial may have decided others
        for position, file in enumerate(self._ready):
            if not self._postponed.waits(file, now):
                del self._ready[position]
                self._hand_over(self._read(file, tuple(self._ready[position:])))
                return True
        if self._unread:
            self._hand_over(self._read_digest(self._unread.pop()))
            return True
        return False

    def _alive(self) -> None:
        self._answered_at = self._clock()

    def _hand_over(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._arrived()

    # -- which file ----------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        try:
            files = list_inbox(self.folder, self._alive)
        except Retry as error:
            self._note_state("unreadable", str(error))
            files = None
        else:
            self._note_state("missing" if files is None else "ok", "there is no such folder" if files is None else "")
        self._ready, self._unread, self._settles = [], [], False
        at_hand = self._arrival.file.name if self._arrival is not None else ""
        if files is None:
            self.names = None
            return
        self.names = frozenset(file.name for file in files)
        while self._again:
            self._forget(self._again.pop())
        for gone in self._settled.keys() - self.names:
            self._forget(gone)
        for file in files:
            if file.name != at_hand:
                self._sort(file, now)
        self._ready.sort(key=self._rank, reverse=True)

    def _note_state(self, state: State, detail: str) -> None:
        if state not in (self._state, "ok"):
            log.error("the inbox %s is %s: %s", self.folder, state, detail)
        self._state, self._detail = state, detail

    def _sort(self, file: InboxFile, now: float) -> None:
        if self._is_to_be_read(file):
            self._unread.append(file)
        elif self._is_new(file):
            settled_for = self._settled_for(file, now)
            self._settles |= settled_for is None
            if settled_for is not None and self._is_complete(file, settled_for):
                self._ready.append(file)

    def _is_to_be_read(self, file: InboxFile) -> bool:
        dealt = self._dealt.of_name(file.name)
        return dealt is not None and dealt.kind in _TO_BE_READ and file.looks_like(dealt.key)

    def _is_new(self, file: InboxFile) -> bool:
        dealt = self._dealt.of_name(file.name)
        return dealt is None or not (file.was_seen(dealt.key) or self._is_to_be_read(file))

    def _settled_for(self, file: InboxFile, now: float) -> float | None:
        """Return for how many seconds a file and its manifest have been settled; None while they are not."""
        looks = [
            self._settling.look(name, identity, now)
            for name, identity in ((file.name, file.identity), (file.name + MANIFEST_SUFFIX, file.manifest))
            if identity is not None
        ]
        if None in looks:
            self._settled.pop(file.name, None)
            return None
        if self._settled.get(file.name, ("", 0.0))[0] != file.key:
            self._settled[file.name] = (file.key, now)
        return now - self._settled[file.name][1]

    def _is_complete(self, file: InboxFile, settled_for: float) -> bool:
        """Give the other half of a pair time to arrive, where it is needed."""
        alone = file.identity is None or (file.manifest is None and self._models.require_signature)
        return not alone or settled_for >= MANIFEST_GRACE_SECONDS

    def _rank(self, file: InboxFile) -> tuple[int, int, str]:
        """Order the highest stated version first, else the newest."""
        known = self._versions.get(file.name)
        if known is None or known[0] != file.key:
            known = self._versions[file.name] = (file.key, stated_version(self.folder, file))
            self._alive()
        return known[1], file.identity.mtime_ns if file.identity else 0, file.name

    def _forget(self, name: str) -> None:
        self._settled.pop(name, None)
        self._versions.pop(name, None)
        self._settling.forget(name)
        self._settling.forget(name + MANIFEST_SUFFIX)

    # -- reading it ----------------------------------------------------------------------------------------------------

    def _read(self, file: InboxFile, behind: tuple[InboxFile, ...] = (), *, is_wanted: bool = False) -> Arrival:
        sha256, manifest = "", None
        try:
            sha256 = copy_candidate(self.folder, file, self._copy_path, self._models.max_mib << 20, self._alive)
            manifest = read_manifest(self.folder, file.name)
        except (Reject, Retry) as error:
            return Arrival(file, sha256, manifest, error, behind, is_wanted=is_wanted)
        return Arrival(file, sha256, manifest, None, behind, is_wanted=is_wanted)

    def _read_digest(self, file: InboxFile) -> Arrival:
        dealt = self._dealt.of_name(file.name)
        sha256, manifest = "", None
        try:
            sha256 = copy_candidate(self.folder, file, None, self._models.max_mib << 20, self._alive)
            manifest = read_manifest(self.folder, file.name)
        except (Reject, Retry) as error:
            return Arrival(file, sha256, manifest, error, dealt=dealt)
        return Arrival(file, sha256, manifest, dealt=dealt)

    def _read_wanted(self) -> None:
        name, self._wanted = self._wanted, ""
        try:
            file = next((file for file in list_inbox(self.folder, self._alive) or [] if file.name == name), None)
        except Retry as error:
            self._hand_over(Arrival(InboxFile(name, None, None), error=error, is_wanted=True))
            return
        if file is None:
            gone = Reject(Reason.MODEL_MISSING, f"{show_name(name)} is not in the inbox any more")
            self._hand_over(Arrival(InboxFile(name, None, None), error=gone, is_wanted=True))
            return
        self._hand_over(self._read(file, is_wanted=True))
