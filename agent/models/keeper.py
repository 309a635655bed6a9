"""A worker for the active model: at start, after a loss, and the way back to an earlier model when it turns bad.

At start the active model is loaded, else the previous one, else an older one that is still kept, else none: strips
wait, and a push heals it. A model that fails on probation, or costs three strips in a row their worker, goes on (or is
held) until the earlier one is loaded; then that one takes over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.errors import Reason, Reject, Retry
from agent.models.probation import Failing, judge_probation
from agent.models.tally import Tally
from agent.wire import Judged

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import ModelsSection
    from agent.models.slot_record import SlotRecord
    from agent.supervision import Slot, WorkerHandle
    from agent.wire import Failed

log = logging.getLogger(__name__)

BOX_PAUSE_SECONDS = 10.0  # after a fault of the box, and when nothing can be loaded
SHORTEST_HOLD_SECONDS, LONGEST_HOLD_SECONDS = 30.0, 900.0
LOADS_BEFORE_GIVING_UP = 2


@dataclass(frozen=True, slots=True)
class _Idle:
    """No worker is on its way. Times are of the monotonic clock, in seconds."""

    until: float = 0.0  # none is started before


@dataclass(frozen=True, slots=True)
class _Loading:
    """A worker is loading an accepted model; `why` the active one is left for it, None when it is that."""

    worker: WorkerHandle
    sha256: str
    why: Failing | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """The active model's worker is loaded; it gets strips as soon as the ledger knows that it may score."""

    worker: WorkerHandle
    ends_hold: bool  # it is of another model than the one that strips are held for


@dataclass(frozen=True, slots=True)
class _Unloadable:
    """An accepted model that would not load."""

    times: int
    why: Failing

    @property
    def is_given_up(self) -> bool:
        """Whether it is not tried again."""
        return self.why.file_is_good or self.times >= LOADS_BEFORE_GIVING_UP


class Keeper:
    """Keeps one slot's worker."""

    def __init__(
        self,
        slot: Slot,
        record: SlotRecord,
        models: ModelsSection,
        *,
        load: Callable[[str], WorkerHandle],
        clock: Callable[[], float],
    ) -> None:
        self.slot = slot
        self.leaving: Failing | None = None  # why the active model has to go
        self._record = record
        self._models = models
        self._load = load
        self._clock = clock
        self._next: _Idle | _Loading | _Ready = _Idle()
        self._unloadable: dict[str, _Unloadable] = {}  # by model; replaced as a whole, any thread may read it
        self.tally = Tally(record)
        self._hold_seconds = SHORTEST_HOLD_SECONDS
        self._hold_until: float | None = None
        self._save_at = 0.0  # of the monotonic clock: how far probation has come is not written before
        self._scores_alone = ""  # the model of which that is recorded

    def step(self, *, trial_goes_on: bool) -> None:
        """Do what can be done now. Raises Retry where the box is to blame."""
        self.slot.end_retired()
        if isinstance(self._next, _Ready):
            self._offer(self._next)
        self._note_who_scores()
        self._watch_hold()
        self._watch_probation()
        if isinstance(self._next, _Loading):
            self._follow(self._next)
        elif isinstance(self._next, _Idle) and not (trial_goes_on and self._stops_first):
            self._start_what_is_missing(self._next.until)

    @property
    def at_work(self) -> bool:
        """Whether something is being waited for."""
        return not isinstance(self._next, _Idle) or self.slot.incoming is not None

    def makes_room(self) -> bool:
        """Whether a candidate's worker may start: with `stop_first`, once no other worker is left."""
        if not self._stops_first:
            return True
        if self.at_work or self.slot.shadow_is_there:  # the shadow leaves by itself
            return False
        if self.slot.current is not None:
            self.slot.stop_current()
            return False
        self.slot.end_retired()
        return True

    @property
    def _stops_first(self) -> bool:
        return self._models.switch == "stop_first"

    def cannot_load(self, sha256: str) -> bool:
        """Say whether an accepted model is damaged or fails to load, so that a push of the same file is welcome."""
        failed = self._unloadable.get(sha256)
        return failed is not None and failed.is_given_up

    @property
    def damaged(self) -> list[str]:
        """`store_damaged`, once for each model whose copy is damaged. For any thread."""
        return [failed.why.reason for failed in self._unloadable.values() if failed.why.file_is_good]

    def count(self, worker: WorkerHandle, answer: Judged | Failed | None) -> None:
        """Count what a worker answered (None: it was lost); called by the strip's journey."""
        if isinstance(answer, Judged):
            self._hold_seconds = SHORTEST_HOLD_SECONDS
        self.tally.count(worker, answer)
        if self._record.state.on_probation:
            self.slot.changed.set()

    def hand_over(self, worker: WorkerHandle) -> None:
        """Let the worker of a newly accepted model take over; whatever was on its way is given up. Raises nothing."""
        self.stop_loading()
        self._unloadable = {}
        self._take_over(worker)

    def stop_loading(self) -> None:
        """End a worker that is on its way."""
        if not isinstance(self._next, _Idle):
            self._next.worker.close(0.0)
        self._next = _Idle()

    # -- which model ---------------------------------------------------------------------------------------------------

    def _take_over(self, worker: WorkerHandle) -> None:
        """Let the worker of another model, which is active now, have the strips. Raises nothing."""
        self.leaving = None
        self.tally.begin(worker.setup.model_sha256)
        self._next = _Ready(worker, ends_hold=True)
        try:
            self._offer(self._next)
        except Retry as error:  # it is ready, and offered as soon as the ledger answers
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing

    def _start_what_is_missing(self, not_before: float) -> None:
        if self._clock() < not_before:
            return
        state = self._record.state
        workers = [worker for worker in (self.slot.current, self.slot.incoming) if worker is not None]
        has_worker = any(worker.setup.model_sha256 == state.active for worker in workers)
        if self.leaving is None and (has_worker or not state.active):
            return
        first = [] if self.leaving else [state.active]
        for sha256 in (*first, *(name for name in reversed(state.accepted) if name != state.active)):
            if self.cannot_load(sha256):
                continue
            if self.leaving is not None and self._stops_first and self.slot.current is not None:
                self.slot.stop_current()  # and then there is room
                return
            failed = self._unloadable.get(state.active)
            why = self.leaving or (failed.why if failed is not None and failed.is_given_up else None)
            self._next = _Loading(self._load(sha256), sha256, why)
            return
        self._nothing_loads()

    def _nothing_loads(self) -> None:
        if self.leaving is not None:
            others = "; ".join(failed.why.detail for failed in self._unloadable.values())
            kept = f"there is no earlier model to return to{': ' + others if others else ''}; it stays active"
            self._record.stay(self.leaving, kept)
            self.leaving = None
        else:
            log.critical("slot %s: no model can be loaded: strips wait; push one", self.slot.name)
            self._next = _Idle(self._clock() + BOX_PAUSE_SECONDS)
        self._unloadable = {sha256: failed for sha256, failed in self._unloadable.items() if failed.why.file_is_good}

    def _follow(self, loading: _Loading) -> None:
        try:
            loaded = loading.worker.poll_loaded(0.0, self._models.trial.seconds)
        except (Reject, Retry) as error:
            self.stop_loading()
            if isinstance(error, Retry) and error.reason is not Reason.STORE_DAMAGED:
                self._next = _Idle(self._clock() + BOX_PAUSE_SECONDS)
                raise
            self._note_unloadable(loading.sha256, Failing(error.reason, error.detail))
            return
        if loaded is None:
            return
        if loading.why is None:
            self._next = _Ready(loading.worker, ends_hold=False)
            self._offer(self._next)
            return
        try:
            self._record.go_back(loading.sha256, loading.why)
        except Retry:
            self.stop_loading()
            raise
        self._take_over(loading.worker)

    def _note_unloadable(self, sha256: str, why: Failing) -> None:
        log.critical("slot %s: model %s cannot be loaded: %s", self.slot.name, sha256[:12], why.detail)
        if why.file_is_good:
            self._record.look_again(sha256)
        before = self._unloadable.get(sha256)
        self._unloadable = self._unloadable | {sha256: _Unloadable(before.times + 1 if before else 1, why)}

    def _offer(self, ready: _Ready) -> None:
        """Let a worker of the active model have the strips. Raises Retry where the ledger cannot record that first."""
        sha256 = ready.worker.setup.model_sha256
        self._record.may_score(sha256)
        known = self._record.state.accepted.get(sha256)
        if known is not None and ready.worker.facts is not None:  # a file without metadata is named by its manifest
            ready.worker.facts = replace(ready.worker.facts, model_id=known.model_id, version=known.version)
        self._scores_alone = ""
        self._next = _Idle()
        if ready.ends_hold:
            self.slot.hold_is_over()
        self.slot.offer(ready.worker)

    # -- when it turns bad ---------------------------------------------------------------------------------------------

    def _watch_probation(self) -> None:
        state = self._record.state
        if not state.on_probation or self.leaving is not None:
            return
        if self.tally.is_worth_saving:
            self._save_if_possible(self.tally.save)
        previous = state.accepted.get(state.previous)
        previous_ms = max(previous.serving_ms, previous.run_ms) if previous else 0.0
        verdict = judge_probation(self.tally.counted, self._models.probation, previous_ms)
        if isinstance(verdict, Failing):
            self._leave(verdict)
        elif verdict:
            self._save_if_possible(self._record.pass_probation)

    def _watch_hold(self) -> None:
        """Three strips in a row cost a worker each: back to an earlier model, or wait and try again."""
        if not self.slot.held:
            self._hold_until = None
        elif isinstance(self._next, _Ready):
            return  # it ends when that worker is offered
        elif self.slot.held_model != self._record.state.active:  # the last words of a model that is gone already
            self.slot.hold_is_over()
        elif self._hold_until is None:
            self._hold_until = self._clock() + self._hold_seconds
            self._hold_seconds = min(2 * self._hold_seconds, LONGEST_HOLD_SECONDS)
            log.critical("slot %s holds its strips: %s", self.slot.name, self.slot.held)
            if self._record.state.previous:
                self._leave(Failing(Reason.LOST_WORKERS, self.slot.held))
        elif self._clock() >= self._hold_until:
            self.slot.hold_is_over()

    def _leave(self, why: Failing) -> None:
        """Give the active model up as soon as an earlier one is loaded."""
        log.error("slot %s: model %s has to go: %s", self.slot.name, self._record.state.active[:12], why.detail)
        self.leaving = why
        self.stop_loading()
        self._save_if_possible(self.tally.save)

    def _save_if_possible(self, save: Callable[[], None]) -> None:
        """Write how far probation has come, or log and try later: neither strips nor the way back wait for it."""
        if self._clock() < self._save_at:
            return
        try:
            save()
        except Retry as error:
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing
            self._save_at = self._clock() + BOX_PAUSE_SECONDS

    def _note_who_scores(self) -> None:
        current = self.slot.current
        if current is None or self.slot.incoming is not None or self._scores_alone == current.setup.model_sha256:
            return
        try:
            self._record.scores_alone(current.setup.model_sha256)
        except Retry as error:  # again at the next step; nothing else waits for it
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing
            return
        self._scores_alone = current.setup.model_sha256
