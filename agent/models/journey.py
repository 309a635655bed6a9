"""The model's journey: from a file in the inbox to the worker that strips go to, and back when it turns bad.

    1     `_choose`        settled files that have not been dealt with, the highest version first
    2, 3  `_examine`       the copy, hashed while it is made; its manifest, signature, version
    4     `_follow_trial`  a candidate worker: load, contract, golden strip, time
    5     `_accept`        recorded as active, then offered to the slot, which swaps between two strips
    6, 8  `Keeper`         probation and the way back; a worker for the active model at start and after a loss
    7     `_refuse`        every refusal leaves a reason, a sentence and the numbers

The active model goes on scoring through all of it: a step is short and waits for no worker. What is remembered and told
is in `models/slot_record.py`. A fault of the box decides nothing: the file waits and is tried again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from agent.errors import Blame, Reject, Retry
from agent.models.inbox import Inbox, stated_version
from agent.models.keeper import BOX_PAUSE_SECONDS, Keeper
from agent.models.postponed import Postponed
from agent.models.requests import Request, Requests
from agent.models.rules import (
    BYTES_ARE_TO_BLAME,
    check_facts,
    check_papers,
    check_same_digest,
    check_size,
    check_speed,
)
from agent.models.slot_record import Candidate, SlotRecord
from agent.records import show_name
from agent.wire import Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.config import Config
    from agent.contract.manifest import SignedManifest
    from agent.ledger import Ledger
    from agent.messages import ModelState
    from agent.models.inbox import InboxFile, Ready
    from agent.models.slot_state import SlotState
    from agent.models.store import Store
    from agent.supervision import Slot, WorkerHandle
    from agent.wire import Loaded

log = logging.getLogger(__name__)

MANIFEST_GRACE_SECONDS = 10.0  # how long a model, or a manifest, may be without the other
TRIAL_POLL_SECONDS = 0.02
LOOK_SECONDS = 0.05  # at the inbox, at the most often
KEEP_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Trial:
    """A candidate, and its worker once there is room for one."""

    candidate: Candidate
    request: Request | None = None
    behind: tuple[InboxFile, ...] = ()  # files that stand behind it
    worker: WorkerHandle | None = None


class ModelJourney:
    """The journey of one slot's models."""

    def __init__(
        self,
        slot: Slot,
        config: Config,
        ledger: Ledger,
        store: Store,
        trusted_keys: Mapping[str, bytes],
        *,
        start_worker: Callable[[Setup], WorkerHandle],
        publish_state: Callable[[str, ModelState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        folder = config.models.inbox if slot.name == "default" else config.models.inbox / slot.name
        self.slot = slot
        self.inbox = Inbox(folder, config.models, trusted_keys)
        self.record = SlotRecord(slot.name, config, ledger, store, publish_state)
        self.record.recall()
        store.drop_candidate(slot.name)
        store.sweep()
        self.keeper = Keeper(slot, self.record, config.models, load=self._load_accepted, clock=clock)
        self.postponed = Postponed()
        self._config = config
        self._store = store
        self._copy_path = store.candidate_path(slot.name)
        self._trusted_keys = trusted_keys
        self._start_worker = start_worker
        self._clock = clock
        self._trial: _Trial | None = None
        self._pause_until = self._keep_at = 0.0
        self._requests = Requests(self.record, self.inbox)

    @property
    def state(self) -> SlotState:
        """What is active, previous, refused."""
        return self.record.state

    def alarms(self) -> list[str]:
        """Return the codes of what needs attention, for health."""
        codes = [self.state.returned, *self.keeper.damaged, "postponed" if self.postponed else ""]
        codes.append("state_damaged" if self.record.problem else "")
        return [f"slot_{self.slot.name}_{code}" for code in dict.fromkeys(codes) if code]

    def step(self, timeout_seconds: float) -> None:
        """Do what can be done now; wait up to `timeout_seconds` when there is nothing."""
        self.slot.changed.clear()
        try:
            self.record.catch_up()
            self._keep()
            if self._trial is not None:
                self._follow_trial(self._trial)
            else:
                self._choose()
        except Retry as error:  # the box is to blame: nothing has been decided, everything is done again
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing
            self._pause_until = self._clock() + BOX_PAUSE_SECONDS
        at_work = self._trial is not None or self.keeper.at_work
        look_again = max(LOOK_SECONDS, self._config.models.settle_seconds / 4)
        self.slot.changed.wait(TRIAL_POLL_SECONDS if at_work else min(timeout_seconds, look_again))

    def _keep(self) -> None:
        """Let the keeper do its part; what it cannot do must not bar the way of a push that may heal it."""
        if self._clock() < self._keep_at:
            return
        try:
            self.keeper.step(trial_goes_on=self._trial is not None)
        except Retry as error:
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing
            self._keep_at = self._clock() + KEEP_AGAIN_SECONDS

    def close(self) -> None:
        """End the workers that are being tried or loaded."""
        try:
            self.keeper.save_counts()
        except Retry as error:
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing
        self.keeper.stop_loading()
        if self._trial is not None and self._trial.worker is not None:
            self._trial.worker.close(0.0)
        self._store.drop_candidate(self.slot.name)

    def activate(self, beginning: str) -> str:
        """Ask for a model by the beginning of its sha256; see `Requests.activate`."""
        sha256 = self._requests.activate(beginning)
        self.slot.changed.set()
        return sha256

    def roll_back(self) -> str:
        """Ask for the previous model and withdraw the active one; see `Requests.roll_back`."""
        sha256 = self._requests.roll_back()
        self.slot.changed.set()
        return sha256

    # -- 1: which file -------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        request = self._requests.take()
        if request is not None:
            self._take_request(request)
            return
        now = self._clock()
        if now < self._pause_until:
            return
        ready = [one for one in self.inbox.ready(self.state.seen, now) if self._is_complete(one)]
        self.record.forget_files(self.inbox.names)
        self.postponed.keep_only(self.inbox.names)
        files = self._in_order([one.file for one in ready])
        for position, file in enumerate(files):
            if not self.postponed.waits(file, now) and self._examine(file, tuple(files[position + 1 :])):
                return

    def _is_complete(self, ready: Ready) -> bool:
        """Give the other half of a pair time to arrive, where it is needed."""
        alone = ready.file.identity is None or (ready.file.manifest is None and self._config.models.require_signature)
        return not alone or ready.seconds >= MANIFEST_GRACE_SECONDS

    def _in_order(self, files: list[InboxFile]) -> list[InboxFile]:
        """Put the highest version first, else the newest."""

        def rank(file: InboxFile) -> tuple[int, int, str]:
            newest_ns = file.identity.mtime_ns if file.identity else 0
            return stated_version(self.inbox.folder, file), newest_ns, file.name

        return sorted(files, key=rank, reverse=True)

    # -- 2, 3: may it be tried -----------------------------------------------------------------------------------------

    def _examine(self, file: InboxFile, behind: tuple[InboxFile, ...]) -> bool:
        """Copy a file and check its papers; True when its trial has begun."""
        candidate = Candidate("", file)
        try:
            candidate = Candidate(self.inbox.copy(file, self._copy_path), file)
            signed = self.inbox.read_papers(file)
            candidate = replace(candidate, manifest=signed.manifest if signed else None)
            is_fine = candidate.sha256 == self.state.active and not self.keeper.cannot_load(candidate.sha256)
            if is_fine or candidate.sha256 in self.state.refused:
                self.record.note_unchanged(file, candidate.sha256)
                return False
            self._check_papers(candidate, signed, self.state.highest_version)
        except (Reject, Retry) as error:
            self._turn_away(candidate, error)
            return False
        self._trial = _Trial(candidate, behind=behind)
        return True

    def _take_request(self, request: Request) -> None:
        candidate = Candidate(request.sha256, request.file)
        try:
            if request.file is not None:
                candidate = Candidate(self.inbox.copy(request.file, self._copy_path), request.file)
                signed = self.inbox.read_papers(request.file)
                candidate = replace(candidate, manifest=signed.manifest if signed else None)
                self._check_papers(candidate, signed, 0)
                check_same_digest(candidate.sha256, request.sha256)
        except (Reject, Retry) as error:
            self._turn_away(candidate, error, request)
            return
        self._trial = _Trial(candidate, request)

    def _check_papers(self, candidate: Candidate, signed: SignedManifest | None, highest_version: int) -> None:
        check_papers(
            candidate.manifest,
            sha256=candidate.sha256,
            size=candidate.size_bytes,
            slot=self.slot.name,
            highest_version=highest_version,
            rollback_is_signed=signed is not None and signed.key_id in self._trusted_keys,
        )

    # -- 4, 5: the trial -----------------------------------------------------------------------------------------------

    def _follow_trial(self, trial: _Trial) -> None:
        try:
            if trial.worker is None:
                if self.keeper.makes_room():
                    self._trial = replace(trial, worker=self._load(trial.candidate))
                return
            loaded = trial.worker.poll_loaded(0.0, self._config.models.trial.seconds)
            if loaded is None:
                return
            if trial.request is None:
                check_facts(loaded, trial.candidate.manifest, self.state.highest_version)
                active = self.state.accepted.get(self.state.active)
                check_size(loaded, active)
                check_speed(loaded, active, self._config.models.probation.max_latency_ratio)
            self._accept(trial, trial.worker, loaded)
        except (Reject, Retry) as error:
            self._trial = None
            if trial.worker is not None:
                trial.worker.close(0.0)
            self._turn_away(trial.candidate, error, trial.request)

    def _accept(self, trial: _Trial, worker: WorkerHandle, loaded: Loaded) -> None:
        """Record, then swap: after a crash in between the recorded model is loaded."""
        leaving = trial.request.leaving if trial.request is not None else self.keeper.leaving
        self.record.accept(trial.candidate, loaded, leaving, self.keeper.counted)
        self._trial = None
        if trial.candidate.file is not None:
            self.postponed.forget(trial.candidate.file)
        self.keeper.hand_over(worker)
        if trial.behind:
            self.record.supersede(list(trial.behind))

    def _load(self, candidate: Candidate) -> WorkerHandle:
        path = self._copy_path if candidate.file is not None else self._store.model_path(candidate.sha256)
        return self._start(path, candidate.sha256, "candidate")

    def _load_accepted(self, sha256: str) -> WorkerHandle:
        return self._start(self._store.model_path(sha256), sha256, "worker")

    def _start(self, path: Path, sha256: str, role: Literal["candidate", "worker"]) -> WorkerHandle:
        return self._start_worker(Setup.of(self._config, path, sha256, role))

    # -- 7: what is not taken ------------------------------------------------------------------------------------------

    def _turn_away(self, candidate: Candidate, error: Reject | Retry, request: Request | None = None) -> None:
        """Refuse the candidate, or let it wait where the box or an upload under way is to blame."""
        file = candidate.file
        if isinstance(error, Reject):
            self._refuse(candidate, error)
        elif request is not None or file is None:  # whoever asked is told, and asks again
            self._refuse(candidate, Reject(error.reason, error.detail))
        elif error.blame is Blame.FILE:
            log.info("slot %s: %s: %s", self.slot.name, show_name(file.name), error)
            self.inbox.look_again(file)
        else:
            self._postpone(candidate, file, error)

    def _refuse(self, candidate: Candidate, refusal: Reject) -> None:
        if candidate.file is not None:
            self.postponed.forget(candidate.file)
        self.record.refuse(candidate, refusal, bytes_are_to_blame=refusal.reason in BYTES_ARE_TO_BLAME)

    def _postpone(self, candidate: Candidate, file: InboxFile, error: Retry) -> None:
        pause = self.postponed.add(file, error, self._clock())
        if isinstance(pause, Reject):
            self._refuse(candidate, pause)
            return
        self._store.drop_candidate(self.slot.name)
        log.error("slot %s: %s cannot be tried now, again in %.0f s: %s", self.slot.name, file.name, pause, error)
