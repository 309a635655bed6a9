"""A worker for the active model: at start, after a loss, and the way back to an earlier model when it turns bad.

At start the active model is loaded, else the previous one, else an older one that is still kept, else none: strips
wait, and a push heals it. A model that fails on probation, or costs three strips in a row their worker, goes on (or is
held) until the earlier one is loaded; then that one takes over.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import Reason, Reject, Retry
from agent.models.probation import Counted, Failing, judge_probation
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
COUNTS_SAVED_EVERY = 10  # strips; a fault is saved at once


@dataclass(frozen=True, slots=True)
class _Loading:
    """A worker that is loading an accepted model; `why` the active one is left for it, None when it is that."""

    worker: WorkerHandle
    sha256: str
    why: Failing | None


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
        self.counted = Counted.from_counts(record.state.probation_counts)
        self._record = record
        self._models = models
        self._load = load
        self._clock = clock
        self._loading: _Loading | None = None
        self.leaving: Failing | None = None  # why the active model has to go
        self._unusable: dict[str, Failing] = {}  # accepted models that would not load, and why
        self._loads: dict[str, int] = {}  # how often they were tried
        self._load_at = 0.0
        self._hold_seconds = SHORTEST_HOLD_SECONDS
        self._hold_until: float | None = None
        self._scores_alone = ""  # the model of which that is recorded
        self._saved = self.counted
        self._counting = threading.Lock()  # the strip's journey counts

    def step(self, *, trial_goes_on: bool) -> None:
        """Do what can be done now. Raises Retry where the box is to blame."""
        self.slot.end_retired()
        self._note_who_scores()
        self._watch_hold()
        self._watch_probation()
        if self._loading is not None:
            self._follow(self._loading)
        elif not (trial_goes_on and self._stops_first) and self._clock() >= self._load_at:
            self._start_what_is_missing()

    @property
    def at_work(self) -> bool:
        """Whether something is being waited for."""
        return self._loading is not None or self.slot.incoming is not None

    def makes_room(self) -> bool:
        """Whether a candidate's worker may start: with `stop_first`, once no other worker is left."""
        if not self._stops_first:
            return True
        if self.at_work:
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
        return sha256 in self._unusable

    @property
    def damaged(self) -> list[str]:
        """`store_damaged`, once for each model whose copy is damaged."""
        return [failing.reason for failing in self._unusable.values() if failing.file_is_good]

    def count(self, worker: WorkerHandle, answer: Judged | Failed | None) -> None:
        """Count what a worker answered (None: it was lost); called by the strip's journey."""
        if isinstance(answer, Judged):
            self._hold_seconds = SHORTEST_HOLD_SECONDS
        with self._counting:
            if worker.setup.model_sha256 != self._record.state.active:
                return
            if answer is None:
                self.counted = self.counted.with_lost_worker(worker.jobs[0].strip_id if worker.jobs else "")
            else:
                self.counted = self.counted.with_answer(answer)
        if self._record.state.on_probation:
            self.slot.changed.set()

    def hand_over(self, worker: WorkerHandle) -> None:
        """Let the worker of a newly accepted model take over; whatever was on its way is given up."""
        self.stop_loading()
        self.leaving = None
        self._unusable.clear()
        self._loads.clear()
        self._forget_counts()
        self._offer(worker, another=True)

    def save_counts(self) -> None:
        """Remember how far probation has come."""
        if self._record.state.on_probation and self.counted != self._saved:
            self._saved = self.counted
            self._record.save_counts(self.counted)

    def stop_loading(self) -> None:
        """End a worker that is loading."""
        if self._loading is not None:
            self._loading.worker.close(0.0)
            self._loading = None

    # -- which model ---------------------------------------------------------------------------------------------------

    def _start_what_is_missing(self) -> None:
        state = self._record.state
        workers = [worker for worker in (self.slot.current, self.slot.incoming) if worker is not None]
        has_worker = any(worker.setup.model_sha256 == state.active for worker in workers)
        if self.leaving is None and (has_worker or not state.active):
            return
        first = [] if self.leaving else [state.active]
        for sha256 in (*first, *(name for name in reversed(state.accepted) if name != state.active)):
            if sha256 in self._unusable:
                continue
            if self.leaving is not None and self._stops_first and self.slot.current is not None:
                self.slot.stop_current()  # and then there is room
                return
            why = self.leaving or self._unusable.get(state.active)
            self._loading = _Loading(self._load(sha256), sha256, why)
            return
        self._nothing_loads()

    def _nothing_loads(self) -> None:
        leaving, self.leaving = self.leaving, None
        if leaving is not None:
            others = "; ".join(failing.detail for failing in self._unusable.values())
            kept = f"there is no earlier model to return to{': ' + others if others else ''}; it stays active"
            self._record.end_probation(passed=False)
            self._record.note_failed_return(leaving, kept)
        else:
            log.critical("slot %s: no model can be loaded: strips wait; push one", self.slot.name)
            self._load_at = self._clock() + BOX_PAUSE_SECONDS
        self._loads.clear()
        self._unusable = {sha256: failing for sha256, failing in self._unusable.items() if failing.file_is_good}

    def _follow(self, loading: _Loading) -> None:
        try:
            loaded = loading.worker.poll_loaded(0.0, self._models.trial.seconds)
        except (Reject, Retry) as error:
            self._loading = None
            loading.worker.close(0.0)
            if isinstance(error, Retry) and error.reason is not Reason.STORE_DAMAGED:
                self._load_at = self._clock() + BOX_PAUSE_SECONDS
                raise
            self._note_unusable(loading.sha256, Failing(error.reason, error.detail))
            return
        if loaded is None:
            return
        self._loading = None
        try:
            if loading.why is not None:
                self._record.go_back(loading.sha256, loading.why)
                self.leaving = None
                self._forget_counts()
            self._offer(loading.worker, another=loading.why is not None)
        except Retry:
            loading.worker.close(0.0)
            raise

    def _note_unusable(self, sha256: str, failing: Failing) -> None:
        self._loads[sha256] = self._loads.get(sha256, 0) + 1
        log.critical("slot %s: model %s cannot be loaded: %s", self.slot.name, sha256[:12], failing.detail)
        if failing.file_is_good:
            self._record.look_again(sha256)
        elif self._loads[sha256] < LOADS_BEFORE_GIVING_UP:
            return
        self._unusable[sha256] = failing

    def _offer(self, worker: WorkerHandle, *, another: bool) -> None:
        if another:
            self.slot.hold_is_over()
        self._scores_alone = ""
        self._record.may_score(worker.setup.model_sha256)
        self.slot.offer(worker)

    def _forget_counts(self) -> None:
        with self._counting:
            self.counted = self._saved = Counted()

    # -- when it turns bad ---------------------------------------------------------------------------------------------

    def _watch_probation(self) -> None:
        state = self._record.state
        if not state.on_probation or self.leaving is not None:
            return
        faults_or_many = self.counted.faults > self._saved.faults or (
            self.counted.judged >= self._saved.judged + COUNTS_SAVED_EVERY
        )
        if faults_or_many:
            self.save_counts()
        previous = state.accepted.get(state.previous)
        previous_ms = max(previous.serving_ms, previous.run_ms) if previous else 0.0
        verdict = judge_probation(self.counted, self._models.probation, previous_ms)
        if isinstance(verdict, Failing):
            self._leave(verdict)
        elif verdict:
            self._record.end_probation(passed=True)

    def _watch_hold(self) -> None:
        """Three strips in a row cost a worker each: back to an earlier model, or wait and try again."""
        if not self.slot.held:
            self._hold_until = None
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
        self.save_counts()
        self.leaving = why
        self._load_at = 0.0
        self.stop_loading()

    def _note_who_scores(self) -> None:
        current = self.slot.current
        if current is None or self.slot.incoming is not None or self._scores_alone == current.setup.model_sha256:
            return
        self._record.scores_alone(current.setup.model_sha256)
        self._scores_alone = current.setup.model_sha256
