"""The model's journey: from a file in the inbox to the worker that strips go to, and back when it turns bad.

    1, 2  `Arrivals`       settled files that have not been dealt with, the highest version first; the copy, hashed
    3     `_examine`       dealt with before? its manifest, signature, version
    4     `_follow_trial`  a candidate worker: load, contract, golden strip, time
    5     `_accept`        recorded as active, then offered to the slot, which swaps between two strips
    6, 8  `Keeper`         probation and the way back; a worker for the active model at start and after a loss
    7     `_refuse`        every refusal leaves a reason, a sentence and the numbers

The active model goes on scoring through all of it: a step is short and waits neither for a worker nor for the inbox.
What is remembered and told is in `models/slot_record.py`. A fault of the box decides nothing: the file waits.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from agent.errors import Blame, Reason, Reject, Retry
from agent.models.happenings import Candidate
from agent.models.intake import Arrivals
from agent.models.keeper import BOX_PAUSE_SECONDS, Keeper
from agent.models.papers import Papers
from agent.models.postponed import Postponed
from agent.models.requests import Request, Requests, carry_out
from agent.models.rules import BYTES_ARE_TO_BLAME, check_same_digest, check_trial
from agent.models.slot_record import SlotRecord
from agent.models.slot_state import Dealt, Fate
from agent.records import show_name
from agent.wire import Setup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.messages import ModelState
    from agent.models.intake import Arrival
    from agent.models.slot_state import SlotState
    from agent.models.store import Store
    from agent.models.trusted_keys import TrustedKeys
    from agent.supervision import Slot, WorkerHandle
    from agent.wire import Loaded

log = logging.getLogger(__name__)

TRIAL_POLL_SECONDS = 0.02
KEEP_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Trial:
    """A candidate, and its worker once there is room for one."""

    candidate: Candidate
    request: Request | None = None
    arrival: Arrival | None = None  # None: it is in the store
    worker: WorkerHandle | None = None


class ModelJourney:
    """The journey of one slot's models."""

    def __init__(
        self,
        slot: Slot,
        config: Config,
        ledger: Ledger,
        store: Store,
        trusted_keys: TrustedKeys,
        *,
        start_worker: Callable[[Setup], WorkerHandle],
        publish_state: Callable[[str, ModelState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        folder = config.models.inbox if slot.name == "default" else config.models.inbox / slot.name
        self.slot = slot
        self.record = SlotRecord(slot.name, config, ledger, store, publish_state, lambda: self.inbox.names, clock)
        self.postponed = Postponed()
        self.inbox = Arrivals(
            folder,
            config.models,
            store.candidate_path(slot.name),
            self.record.dealt,
            self.postponed,
            clock=clock,
            arrived=slot.changed.set,
        )
        self.record.recall()
        store.drop_candidate(slot.name)
        store.sweep()
        self.keeper = Keeper(slot, self.record, config.models, load=self._load_accepted, clock=clock)
        self._config = config
        self._store = store
        self._papers = Papers(slot.name, config.models.require_signature, trusted_keys)
        self._keys_missing = trusted_keys.missing
        self._start_worker = start_worker
        self._clock = clock
        self._trial: _Trial | None = None
        self._pause_until = self._keep_at = 0.0
        self.requests = Requests(self.record, self.postponed, asked=slot.changed.set)

    @property
    def state(self) -> SlotState:
        """What is active, previous, refused."""
        return self.record.state

    @property
    def trial_goes_on(self) -> bool:
        """Whether a candidate is being tried. For any thread."""
        return self._trial is not None

    def alarms(self) -> list[str]:
        """Return the codes of what needs attention, for health."""
        codes = [self.state.returned, *self.keeper.damaged, "postponed" if self.postponed else ""]
        codes.append("state_damaged" if self.record.problem else "")
        codes.append(f"inbox_{self.inbox.state}" if self.inbox.state not in ("starting", "ok") else "")
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
        self.slot.changed.wait(TRIAL_POLL_SECONDS if at_work else timeout_seconds)

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
            self.keeper.tally.save()
        except Retry as error:
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing
        self.keeper.stop_loading()
        if self._trial is not None and self._trial.worker is not None:
            self._trial.worker.close(0.0)
        self._store.drop_candidate(self.slot.name)

    # -- 1 to 3: which file, and may it be tried -----------------------------------------------------------------------

    def _choose(self) -> None:
        request, arrival = self.requests.oldest(), self.inbox.take()
        if len(self._papers.trusted_keys.missing) < len(self._keys_missing):
            self.postponed.wait_no_longer()
        self._keys_missing = self._papers.trusted_keys.missing
        if request is not None:
            self._take_request(request, arrival)
        elif arrival is not None and arrival.is_wanted:  # by nobody any more
            self._end(arrival)
        elif arrival is not None and self._clock() >= self._pause_until and not self.record.is_far_behind:
            self._examine(arrival)
        if self.postponed and self.inbox.names is not None:
            self.postponed.keep_only(self.inbox.names)

    def _examine(self, arrival: Arrival) -> None:
        """Decide whether a file is to be tried."""
        if arrival.dealt is not None:
            self._note_digest(arrival, arrival.dealt)
            return
        file = arrival.file
        candidate = Candidate(arrival.sha256, file, push=arrival.push)
        try:
            if arrival.error is not None:
                raise arrival.error
            fate = self._papers.fate(arrival, self.record.dealt, self.state.active)
            if fate and not self.keeper.cannot_load(arrival.sha256):
                self.record.note_unchanged(candidate, file, fate)
                self._end(arrival)
                return
            candidate = self._papers.check(candidate, arrival, self.state.highest_version)
        except (Reject, Retry) as error:
            self._turn_away(candidate, error, arrival)
            return
        self._trial = _Trial(candidate, arrival=arrival)

    def _note_digest(self, arrival: Arrival, dealt: Dealt) -> None:
        """Remember the digest of a file that has been dealt with already."""
        if isinstance(arrival.error, Retry):  # it changed, and is another one; or it is read later
            self._pause_until = self._clock() + BOX_PAUSE_SECONDS
            self._end(arrival, again=arrival.error.blame is Blame.FILE)
            return
        if dealt.kind == Fate.BEHIND:
            self.record.note_superseded(arrival.file, arrival.sha256, dealt.note)
        else:
            kind = self.record.dealt.kind_of(arrival.sha256) or dealt.note or Fate.SUPERSEDED
            self.record.note_dealt(Dealt(dealt.file, arrival.file.key, arrival.sha256, arrival.push, kind))
        self.postponed.forget(arrival.file)
        self._end(arrival)

    def _take_request(self, request: Request, arrival: Arrival | None) -> None:
        """Take up what an operator asked for; from the inbox it has to be read first."""
        if carry_out(request, self.record):
            self.requests.finish()
            self.inbox.bell.set()
            return
        candidate = Candidate(request.sha256)
        try:
            request.check(self.state.active, self.inbox.state)
            if request.file:
                if arrival is None or not arrival.is_wanted or arrival.file.name != request.file:
                    self.inbox.want(request.file)
                    if arrival is not None:
                        self._end(arrival)
                    return
                candidate = Candidate(arrival.sha256, arrival.file, push=arrival.push)
                if arrival.error is not None:
                    raise arrival.error
                candidate = self._papers.check(candidate, arrival, None)
                check_same_digest(candidate.sha256, request.sha256)
            else:
                arrival = None
        except (Reject, Retry) as error:
            self._turn_away(candidate, error, arrival, request)
            return
        self._trial = _Trial(candidate, request, arrival)

    def _end(self, arrival: Arrival, *, again: bool = False) -> None:
        """Let the inbox go on with the next file."""
        self._store.drop_candidate(self.slot.name)
        self.inbox.done(arrival, again=again)

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
                ratio = self._config.models.probation.max_latency_ratio
                check_trial(loaded, trial.candidate.manifest, self.state, ratio)
            self._accept(trial, trial.worker, loaded)
        except (Reject, Retry) as error:
            self._trial = None
            if trial.worker is not None:
                trial.worker.close(0.0)
            self._turn_away(trial.candidate, error, trial.arrival, trial.request)

    def _accept(self, trial: _Trial, worker: WorkerHandle, loaded: Loaded) -> None:
        """Record, then swap: after a crash in between the recorded model is loaded; after the record nothing raises."""
        request, arrival = trial.request, trial.arrival
        is_shadow = request is None and trial.candidate.is_for_shadow
        behind = () if is_shadow or arrival is None else arrival.behind  # a shadow takes nobody's place
        if is_shadow:
            self.record.take_shadow(trial.candidate, loaded)
            worker.close(0.0)
        else:
            leaving = request.leaving if request is not None else self.keeper.leaving
            self.record.accept(trial.candidate, loaded, leaving, self.keeper.tally.counted, behind)
            self.keeper.hand_over(worker)
        self._trial = None
        if request is not None:
            self.requests.finish()
        if arrival is not None:
            for file in (arrival.file, *behind):
                self.postponed.forget(file)
            self._end(arrival)

    def _load(self, candidate: Candidate) -> WorkerHandle:
        is_copy = candidate.file is not None
        path = self._store.candidate_path(self.slot.name) if is_copy else self._store.model_path(candidate.sha256)
        return self._start(path, candidate.sha256, "candidate")

    def _load_accepted(self, sha256: str) -> WorkerHandle:
        return self._start(self._store.model_path(sha256), sha256, "worker")

    def _start(self, path: Path, sha256: str, role: Literal["candidate", "worker"]) -> WorkerHandle:
        return self._start_worker(Setup.of(self._config, path, sha256, role))

    # -- 7: what is not taken ------------------------------------------------------------------------------------------

    def _turn_away(
        self, candidate: Candidate, error: Reject | Retry, arrival: Arrival | None, request: Request | None = None
    ) -> None:
        """Refuse the candidate, or let it wait where the box or an upload under way is to blame."""
        try:
            if request is not None and (isinstance(error, Retry) or error.reason is Reason.DIGEST_MISMATCH):
                # Nothing is decided about the file: whoever asked is told, and asks again.
                told = Reject(error.reason, error.detail)
                self.record.refuse(Candidate(request.sha256), told, bytes_are_to_blame=False)
            elif isinstance(error, Reject):
                self._refuse(candidate, error)
            elif candidate.file is not None and error.blame is Blame.FILE:
                log.info("slot %s: %s: %s", self.slot.name, show_name(candidate.file.name), error)
            else:
                self._postpone(candidate, error)
        finally:
            if request is not None:
                self.requests.finish()
            if arrival is not None:
                self._end(arrival, again=isinstance(error, Retry) and error.blame is Blame.FILE)

    def _refuse(self, candidate: Candidate, refusal: Reject) -> None:
        self.record.refuse(candidate, refusal, bytes_are_to_blame=refusal.reason in BYTES_ARE_TO_BLAME)
        if candidate.file is not None:
            self.postponed.forget(candidate.file)

    def _postpone(self, candidate: Candidate, error: Retry) -> None:
        assert candidate.file is not None  # noqa: S101 - the store's models are refused instead
        pause = self.postponed.add(candidate.file, candidate.sha256, error, self._clock())
        if isinstance(pause, Reject):
            self._refuse(candidate, pause)
            return
        name = show_name(candidate.file.name)
        log.error("slot %s: %s cannot be tried now, again in %.0f s: %s", self.slot.name, name, pause, error)
