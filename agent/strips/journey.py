"""The strip's journey: from a settled file in a camera's folder to a committed result.

    1     `watching/`          settled files that the ledger does not know
    2, 3  `intake.py`          which strip is it; begin: from here on the strip is accounted for
    4     `StripJourney.step`  a worker judges it; what goes wrong is decided by `errors.decide`
    5     `commit.py`          result, message bytes and sequence number in one durable transaction

The publisher takes it from there. Between two steps a strip lives in the ledger and nowhere else. What a worker is at
is known by its handle alone, so that whatever goes wrong here, no strip is taken for being in work for ever.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from agent.contract.threshold import Threshold, choose_threshold, operators_threshold
from agent.errors import Action, AgentError, Blame, Reason, Reject, Retry, decide
from agent.ledger.strips import LANES
from agent.records import show_name
from agent.strips.commit import Outcome, commit
from agent.strips.former_folders import FormerFolders
from agent.strips.postponed import LAST_LOOK_AGAIN_SECONDS, WaitingStrips, pause_seconds
from agent.wire import Failed, Job, Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config import Camera, Config
    from agent.ledger import Ledger
    from agent.records import Judgement, Strip
    from agent.strips.folder import CameraFolder
    from agent.strips.leftovers import Leftovers
    from agent.supervision import Slot, WorkerHandle

log = logging.getLogger(__name__)

JOBS_IN_A_WORKER = 2  # one that it is at, and one so that it never waits for the ledger


class StripJourney:
    """Steps 4 and 5, for the cameras of one slot.

    It calls `committed(camera, captured_ts_ms, payload)` after each commit and `judged(worker, answer)` for each answer
    of a worker (None: it was lost), and `looked(strip, judgement, worker)` for each that was judged and is committed.
    It calls `begins()` before a worker gets a strip, and `rests()` when it holds none. Before it blames a strip it asks
    the camera's folder, one of `folders`.
    """

    def __init__(
        self,
        slot: Slot,
        config: Config,
        ledger: Ledger,
        folders: Mapping[str, CameraFolder],
        leftovers: Leftovers,
        *,
        committed: Callable[[str, int, bytes], None],
        judged: Callable[[WorkerHandle, Judged | Failed | None], None],
        looked: Callable[[Strip, Judgement, WorkerHandle], None] = lambda *_: None,
        begins: Callable[[], None] = lambda: None,
        rests: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slot = slot
        self.bell = slot.bell  # rings when there may be something to do; a lost ring costs one poll
        self._config = config
        self._ledger = ledger
        self._folders = folders
        self._leftovers = leftovers
        self._cameras: dict[str, Camera] = {}  # also those that are gone, of which a worker may hold a strip
        self._turns: list[str] = []  # the camera whose turn it is comes first
        self._reloaded: Config | None = config  # not looked at yet
        self._take_reloaded()
        self._feeding = True
        self._heatmaps_fail = False  # the last ones that should have been written were not
        self._waiting = WaitingStrips(clock)
        self._former = FormerFolders()
        self._lost_in_a_row: set[str] = set()
        self._lost_by = ""  # the model whose workers they cost
        self._committed = committed
        self._judged = judged
        self._looked = looked
        self._begins, self._rests = begins, rests
        self._clock = clock

    def step(self, timeout_seconds: float) -> bool:
        """Give the worker strips, take one answer and record it; True when an answer was taken.

        Raises Retry where the ledger does not answer: nothing has happened then, or all but the last part of it.
        """
        try:
            return self._step(timeout_seconds)
        finally:
            if not self.holds_strips:
                self._rests()

    def _step(self, timeout_seconds: float) -> bool:
        self._take_reloaded()
        worker = self.slot.adopt()
        if worker is not None and not worker.jobs and not worker.alive:
            log.error("worker %d ended while it had nothing to do", worker.pid)
            self.slot.lose(worker)
            worker = None
        if worker is None or (self.slot.held and not worker.jobs):
            self._rest(timeout_seconds)
            return False
        self._feed(worker)
        if not worker.jobs:
            self._rest(timeout_seconds)
            return False
        job = worker.jobs[0]
        try:
            answer = worker.poll(timeout_seconds, self._config.inference.deadline_seconds)
        except Retry as lost:
            self._worker_lost(worker, job, lost)
            return True
        if answer is None:
            return False
        self._lost_in_a_row.clear()
        self._judged(worker, answer)
        try:
            self._feed(worker, recording=job.strip)  # it goes on while this answer is recorded
        except Retry as error:  # the answer is in hand: it is recorded before anything else is tried
            log.error("slot %s: no further strip can be given: %s", self.slot.name, error)  # noqa: TRY400 - no stack
        self._record(job, answer, worker)
        return True

    def take(self, config: Config) -> None:
        """Go by another configuration from the next step on. For any thread."""
        self._reloaded = config
        self.bell.set()

    def _take_reloaded(self) -> None:
        config, self._reloaded = self._reloaded, None
        if config is None:
            return
        self._config = config
        mine = {camera.name: camera for camera in config.cameras if camera.slot == self.slot.name}
        self._cameras |= mine
        known = [name for name in self._turns if name in mine]
        self._turns = known + [name for name in mine if name not in known]

    def stop_feeding(self) -> None:
        """Give the worker no more strips: the service is stopping."""
        self._feeding = False

    def alarms(self) -> list[str]:
        """Name what needs attention: strips that wait for the box for long, heatmaps that cannot be written."""
        stuck = self._waiting.for_the_box_since(self._clock() - self._config.checks.incomplete_seconds)
        alarms = [f"slot_{self.slot.name}_strips_wait_for_the_box"] if stuck else []
        return [*alarms, "heatmaps_failed"] if self._heatmaps_fail else alarms

    @property
    def holds_strips(self) -> bool:
        """Whether a worker is at work on strips of this slot."""
        worker = self.slot.current
        return worker is not None and bool(worker.jobs)

    def _rest(self, timeout_seconds: float) -> None:
        self.bell.wait(min(timeout_seconds, self._waiting.next_due() - self._clock()))
        self.bell.clear()

    # -- which strip is next -------------------------------------------------------------------------------------------

    def _feed(self, worker: WorkerHandle, recording: Strip | None = None) -> None:
        while len(worker.jobs) < JOBS_IN_A_WORKER and self.slot.takes_strips and self._feeding:
            self._put_back_what_is_due()
            if any(job.strip.attempts for job in worker.jobs):
                return  # a strip that a worker was lost on goes alone
            busy = {job.strip.row for job in worker.jobs} | ({recording.row} if recording else set())
            strip = self._next_strip(busy | self._waiting.rows())
            if strip is None or (strip.attempts and worker.jobs):
                return  # it goes alone: the worker finishes first
            camera = self._cameras[strip.camera]
            threshold = choose_threshold(
                operator=self._operators_threshold(strip.camera),
                camera=camera.threshold,
                scoring=self._config.scoring.threshold,
                model=worker.facts.threshold if worker.facts else None,
            )
            self._begins()
            folder = self._former.place(strip.row, strip.folder, camera)
            worker.send(Job(strip, folder, threshold.value, threshold.source))

    def _operators_threshold(self, camera: str) -> float | None:
        told = self._ledger.operators.thresholds.get(camera)
        return None if told is None else operators_threshold(told.value, told.method, self._config.scoring.method)

    def _next_strip(self, busy: set[int]) -> Strip | None:
        """Lane by lane, cameras in turn; those that a worker was lost on when it is their turn; of no paused camera."""
        if not self._ledger.strips.any_waits(busy):
            return None
        paused = self._ledger.operators.paused
        reachable = [camera for camera in self._turns if camera not in paused and not self._folders[camera].is_away]
        hanging = self._former.hanging
        again = self._ledger.strips.next_again(reachable, busy, hanging)
        if again is not None and not self._lost_in_a_row:
            return again
        # After a loss a fresh strip shows first whether the model still works.
        for lane in LANES:
            for camera in reachable:
                strip = self._ledger.strips.next_waiting(camera, lane, busy, hanging)
                if strip is not None:
                    position = self._turns.index(camera)
                    self._turns = self._turns[position + 1 :] + self._turns[: position + 1]
                    return strip
        return again

    def _put_back_what_is_due(self) -> None:
        for row, attempts in self._waiting.to_put_back().items():
            self._ledger.strips.put_back(row, attempts)
            self._waiting.forget(row)

    # -- what became of it ---------------------------------------------------------------------------------------------

    def _record(self, job: Job, answer: Judged | Failed, worker: WorkerHandle) -> None:
        strip = job.strip
        try:
            if isinstance(answer, Judged):
                self._commit(job, Outcome(answer.judgement), worker)
                return
            error = self._error_of(job, answer)
            since = self._waiting.since(strip)
            decision = decide(
                error,
                attempts=strip.attempts,
                max_attempts=self._config.inference.max_attempts,
                waited_seconds=self._clock() - since,
                incomplete_seconds=self._config.checks.incomplete_seconds,
                different_strips_lost_in_a_row=0,
            )
            if decision.action is Action.WAIT:
                self._let_wait(strip, error, since)
            else:
                self._commit(job, Outcome(None, decision.reason, decision.detail, answer.digest), worker)
        except Retry as error:  # the ledger cannot write: the strip still waits there and is judged again
            log.error("strip %s: cannot be recorded yet: %s", strip.strip_id, error)  # noqa: TRY400 - the stack tells nothing
            self._waiting.add(strip, LAST_LOOK_AGAIN_SECONDS)

    def _error_of(self, job: Job, answer: Failed) -> Retry | Reject:
        strip, reason = job.strip, Reason(answer.reason)
        folder = self._folders[strip.camera]
        is_over = self._clock() - self._waiting.since(strip) >= self._config.checks.incomplete_seconds
        elsewhere = self._former.error(job, self._cameras[strip.camera], folder, reason, patience_is_over=is_over)
        if elsewhere is not None:
            return elsewhere
        vanished = reason is Reason.FILE_VANISHED and not folder.is_gone(strip.path)
        if vanished or (reason is Reason.UNREADABLE and folder.is_away):
            return Retry(Reason.UNREADABLE, f"the camera's folder may be away: {answer.detail}", Blame.BOX)
        if reason is Reason.FILE_REPLACED and (strip.half_written or not self._ledger.strips.has_newer_version(strip)):
            return Retry(Reason.INCOMPLETE if strip.half_written else reason, answer.detail, Blame.FILE)
        if answer.blame:
            return Retry(reason, answer.detail, Blame(answer.blame))
        return Reject(reason, answer.detail, model_fault=answer.model_fault)

    def _let_wait(self, strip: Strip, error: AgentError, since: float) -> None:
        waited = self._clock() - since
        pause = pause_seconds(waited)
        if isinstance(error, Retry) and error.blame is Blame.FILE:
            pause = min(pause, max(0.05, self._config.checks.incomplete_seconds - waited))
            if not strip.half_written and error.reason is not Reason.FILE_REPLACED:
                self._ledger.strips.mark_half_written(strip.row)
        level = logging.DEBUG if strip in self._waiting else logging.INFO
        for_the_box = isinstance(error, Retry) and error.blame is Blame.BOX
        self._waiting.add(strip, pause, since=since, for_the_box=for_the_box)
        log.log(level, "strip %s (%s/%s) waits: %s", strip.strip_id, strip.camera, show_name(strip.path), error)

    def _worker_lost(self, worker: WorkerHandle, job: Job, lost: Retry) -> None:
        """Blame the strip it was at, or, after three different ones in a row, the model or the box.

        The second strip that it held was never begun: it waits in the ledger as before.
        """
        blamed = job.strip
        self.slot.lose(worker)
        self._leftovers.of_lost_worker(blamed)
        if lost.blame is Blame.BOX:  # its file did not come: neither the strip nor the model is to blame
            if job.folder == str(self._cameras[blamed.camera].folder):
                self._folders[blamed.camera].answers(blamed.path)  # where it does not, the folder is away for now
            else:
                self._former.answers(job.folder, blamed.path)
            self._let_wait(blamed, lost, self._waiting.since(blamed))
            return
        no_memory = lost.reason is Reason.KILLED  # costs no attempt, and counts on no probation
        if not no_memory:
            self._judged(worker, None)
        if worker.setup.model_sha256 != self._lost_by:  # another model is not to blame for what this one lost
            self._lost_in_a_row.clear()
        self._lost_by = worker.setup.model_sha256
        self._lost_in_a_row.add(blamed.strip_id)
        limit = self._config.inference.max_attempts
        attempts = blamed.attempts + (not no_memory)
        decision = decide(
            lost, attempts=attempts, max_attempts=limit, waited_seconds=0.0, incomplete_seconds=0.0,
            different_strips_lost_in_a_row=len(self._lost_in_a_row),
        )  # fmt: skip
        log.error("strip %s: %s: %s", blamed.strip_id, decision.action.value, decision.detail)
        if decision.action is Action.HOLD:
            attempts = max(1, min(attempts, limit - 1))  # not this strip's fault: the attempt does not count
            why = f"{len(self._lost_in_a_row)} different strips in a row: {decision.detail}"
            self.slot.hold(why, worker.setup.model_sha256)
        try:
            if decision.action is Action.REJECT:
                self._commit(job, Outcome(None, decision.reason, decision.detail), worker)
            elif no_memory:  # others show meanwhile whether there is enough for them
                self._let_wait(blamed, Retry(lost.reason, lost.detail, Blame.BOX), self._waiting.since(blamed))
            else:
                self._ledger.strips.put_back(blamed.row, attempts)
        except Retry as error:  # what it cost is remembered until the ledger can be told
            log.error("strip %s: cannot be recorded yet: %s", blamed.strip_id, error)  # noqa: TRY400 - the stack tells nothing
            self._waiting.add(blamed, LAST_LOOK_AGAIN_SECONDS, attempts=attempts)

    def _commit(self, job: Job, outcome: Outcome, worker: WorkerHandle) -> None:
        strip, threshold = job.strip, Threshold(job.threshold, job.threshold_source)
        payload = commit(self._config, self._ledger, self._cameras[strip.camera], strip, threshold, outcome, worker)
        self._waiting.forget(strip.row)
        self._former.forget(strip.row)
        if payload is None:
            return
        if outcome.heatmaps.state in ("saved", "failed"):
            self._heatmaps_fail = outcome.heatmaps.state == "failed"
        self._leftovers.of_committed(strip, outcome.heatmaps)
        self._committed(strip.camera, strip.identity.mtime_ns // 1_000_000, payload)
        if outcome.judgement is not None:
            self._looked(strip, outcome.judgement, worker)
