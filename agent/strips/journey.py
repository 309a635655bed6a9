"""The strip's journey: from a settled file in a camera's folder to a committed result.

    1, 2  `intake.py`          settled files that the ledger does not know
    3     `intake.py`          begin: from here on the strip is accounted for
    4     `StripJourney.step`  a worker judges it; what goes wrong is decided by `errors.decide`
    5     `StripJourney.step`  commit: result, message bytes and sequence number in one durable transaction

The publisher takes it from there. Between two steps a strip lives in the ledger and nowhere else.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent import messages
from agent.errors import Action, AgentError, Blame, Reason, Reject, Retry, decide
from agent.files import heatmap_stem, remove_temporary_files
from agent.ledger import NewResult
from agent.ledger.strips import BACKLOG, LIVE
from agent.logs import event
from agent.records import HeatmapFiles, Judgement, show_name
from agent.strips.message import strip_message, verdict_of
from agent.wire import Failed, Job, Judged

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.records import FileIdentity, Strip
    from agent.supervision import Slot, WorkerHandle

log = logging.getLogger(__name__)

JOBS_IN_A_WORKER = 2  # one that it is at, and one so that it never waits for the ledger
FIRST_LOOK_AGAIN_SECONDS = 0.5
LAST_LOOK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A strip whose file, or the box, is not ready; times are of the monotonic clock."""

    since: float
    until: float
    identity: FileIdentity
    for_the_box: bool = False


class StripJourney:
    """Steps 4 and 5, for the cameras of one slot.

    It calls `committed(camera, captured_ts_ms, payload)` after each commit and `judged(worker, answer)` for each answer
    of a worker (None: it was lost). Before blaming a strip it asks `folder_is_away`, `file_is_gone` and `file_answers`.
    """

    def __init__(
        self,
        slot: Slot,
        config: Config,
        ledger: Ledger,
        *,
        committed: Callable[[str, int, bytes], None],
        judged: Callable[[WorkerHandle, Judged | Failed | None], None],
        folder_is_away: Callable[[str], bool],
        file_answers: Callable[[Strip], bool],
        file_is_gone: Callable[[Strip], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slot = slot
        self.bell = slot.bell  # rings when there may be something to do; a lost ring costs one poll
        self._config = config
        self._ledger = ledger
        self._cameras = {camera.name: camera for camera in config.cameras if camera.slot == slot.name}
        self._turns = list(self._cameras)  # the camera whose turn it is comes first
        self._feeding = True
        self._heatmaps_fail = False  # the last ones that should have been written were not
        self._in_work: dict[str, Strip] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._lost_in_a_row: set[str] = set()
        self._lost_by = ""  # the model whose workers they cost
        self._committed = committed
        self._judged = judged
        self._folder_is_away = folder_is_away
        self._file_answers, self._file_is_gone = file_answers, file_is_gone
        self._clock = clock

    def step(self, timeout_seconds: float) -> bool:
        """Give the worker strips, take one answer and record it; True when an answer was taken."""
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
        try:
            answer = worker.poll(timeout_seconds, self._config.inference.deadline_seconds)
        except Retry as lost:
            self._worker_lost(worker, lost)
            return True
        if answer is None:
            return False
        strip = self._in_work[answer.strip_id]
        self._feed(worker)  # it goes on while this answer is recorded
        self._lost_in_a_row.clear()
        self._judged(worker, answer)
        self._record(strip, answer, worker)
        del self._in_work[strip.strip_id]
        return True

    def stop_feeding(self) -> None:
        """Give the worker no more strips: the service is stopping."""
        self._feeding = False

    def alarms(self) -> list[str]:
        """Name what needs attention: strips that wait for the box for long, heatmaps that cannot be written."""
        long_ago = self._clock() - self._config.checks.incomplete_seconds
        stuck = any(waiting.for_the_box and waiting.since < long_ago for waiting in list(self._waiting.values()))
        alarms = [f"slot_{self.slot.name}_strips_wait_for_the_box"] if stuck else []
        return [*alarms, "heatmaps_failed"] if self._heatmaps_fail else alarms

    @property
    def holds_strips(self) -> bool:
        """Whether a worker is at work on strips of this slot."""
        return bool(self._in_work)

    def _rest(self, timeout_seconds: float) -> None:
        now = self._clock()
        soonest = min((wait.until for wait in self._waiting.values() if wait.until > now), default=float("inf"))
        self.bell.wait(min(timeout_seconds, soonest - now))
        self.bell.clear()

    # -- which strip is next -------------------------------------------------------------------------------------------

    def _feed(self, worker: WorkerHandle) -> None:
        while len(worker.jobs) < JOBS_IN_A_WORKER and self.slot.takes_strips and self._feeding:
            if any(strip.attempts for strip in self._in_work.values()):
                return  # a strip that a worker was lost on goes alone
            strip = self._next_strip()
            if strip is None or (strip.attempts and worker.jobs):
                return  # it goes alone: the worker finishes first
            camera = self._cameras[strip.camera]
            self._in_work[strip.strip_id] = strip
            threshold = camera.threshold if camera.threshold is not None else self._config.scoring.threshold
            worker.send(Job.of(strip, str(camera.folder), threshold))

    def _next_strip(self) -> Strip | None:
        """Live strips before the backlog, cameras in turn; those that a worker was lost on when it is their turn."""
        now = self._clock()
        busy = {row for row, waiting in self._waiting.items() if waiting.until > now}
        busy |= {strip.row for strip in self._in_work.values()}
        reachable = [camera for camera in self._turns if not self._folder_is_away(camera)]
        again = self._ledger.strips.next_again(reachable, busy)
        if again is not None and not self._lost_in_a_row:
            return again
        # After a loss a fresh strip shows first whether the model still works.
        for lane in (LIVE, BACKLOG):
            for camera in reachable:
                strip = self._ledger.strips.next_waiting(camera, lane, busy)
                if strip is not None:
                    position = self._turns.index(camera)
                    self._turns = self._turns[position + 1 :] + self._turns[: position + 1]
                    return strip
        return again

    # -- what became of it ---------------------------------------------------------------------------------------------

    def _record(self, strip: Strip, answer: Judged | Failed, worker: WorkerHandle) -> None:
        try:
            if isinstance(answer, Judged):
                self._commit(strip, answer.judgement, "", "", worker)
                return
            error = self._error_of(strip, answer)
            since = self._waits_since(strip)
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
                self._commit(strip, None, decision.reason, decision.detail, worker, answer.digest)
        except Retry as error:  # the ledger cannot write: the strip still waits there and is judged again
            log.error("strip %s: cannot be recorded yet: %s", strip.strip_id, error)  # noqa: TRY400 - the stack tells nothing
            self._waiting[strip.row] = _Waiting(self._clock(), self._clock() + LAST_LOOK_AGAIN_SECONDS, strip.identity)

    def _error_of(self, strip: Strip, answer: Failed) -> Retry | Reject:
        reason = Reason(answer.reason)
        vanished = reason is Reason.FILE_VANISHED and not self._file_is_gone(strip)
        if vanished or (reason is Reason.UNREADABLE and self._folder_is_away(strip.camera)):
            return Retry(Reason.UNREADABLE, f"the camera's folder may be away: {answer.detail}", Blame.BOX)
        if reason is Reason.FILE_REPLACED and (strip.half_written or not self._ledger.strips.has_newer_version(strip)):
            return Retry(Reason.INCOMPLETE if strip.half_written else reason, answer.detail, Blame.FILE)
        if answer.blame:
            return Retry(reason, answer.detail, Blame(answer.blame))
        return Reject(reason, answer.detail, model_fault=answer.model_fault)

    def _waits_since(self, strip: Strip) -> float:
        waiting = self._waiting.get(strip.row)
        return waiting.since if waiting and waiting.identity == strip.identity else self._clock()

    def _let_wait(self, strip: Strip, error: AgentError, since: float) -> None:
        now = self._clock()
        pause = min(max(FIRST_LOOK_AGAIN_SECONDS, (now - since) / 2), LAST_LOOK_AGAIN_SECONDS)
        if isinstance(error, Retry) and error.blame is Blame.FILE:
            pause = min(pause, max(0.05, since + self._config.checks.incomplete_seconds - now))
            if not strip.half_written and error.reason is not Reason.FILE_REPLACED:
                self._ledger.strips.mark_half_written(strip.row)
        level = logging.DEBUG if strip.row in self._waiting else logging.INFO
        for_the_box = isinstance(error, Retry) and error.blame is Blame.BOX
        self._waiting[strip.row] = _Waiting(since, now + pause, strip.identity, for_the_box)
        log.log(level, "strip %s (%s/%s) waits: %s", strip.strip_id, strip.camera, show_name(strip.path), error)

    def _worker_lost(self, worker: WorkerHandle, lost: Retry) -> None:
        """Blame the strip it was at, or, after three different ones in a row, the model or the box."""
        blamed = self._in_work[worker.jobs[0].strip_id] if worker.jobs else None
        self._in_work.clear()  # the second one never began: it waits in the ledger as before
        self.slot.lose(worker)
        if blamed is None:
            self._judged(worker, None)
            return
        if lost.reason is Reason.WORKER_TIMEOUT and not self._file_answers(blamed):
            away = Retry(Reason.UNREADABLE, f"the camera's folder does not answer: {lost.detail}", Blame.BOX)
            self._let_wait(blamed, away, self._clock())
            return
        self._remove_leftovers(blamed)
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
        try:
            if decision.action is Action.REJECT:
                self._commit(blamed, None, decision.reason, decision.detail, worker)
                return
            if decision.action is Action.HOLD:
                attempts = max(1, min(attempts, limit - 1))  # not this strip's fault: the attempt does not count
                why = f"{len(self._lost_in_a_row)} different strips in a row: {decision.detail}"
                self.slot.hold(why, worker.setup.model_sha256)
            if no_memory:  # others show meanwhile whether there is enough for them
                self._let_wait(blamed, Retry(lost.reason, lost.detail, Blame.BOX), self._waits_since(blamed))
            else:
                self._ledger.strips.put_back(blamed.row, attempts)
        except Retry as error:
            log.error("strip %s: cannot be recorded yet: %s", blamed.strip_id, error)  # noqa: TRY400 - the stack tells nothing

    def _remove_leftovers(self, strip: Strip) -> None:
        """Remove heatmaps that the lost worker was in the middle of writing."""
        stem = heatmap_stem(strip.camera, strip.identity.mtime_ns, strip.path, strip.strip_id, strip.revision)
        remove_temporary_files((self._config.heatmap_folder / stem).parent)

    # -- commit --------------------------------------------------------------------------------------------------------

    def _commit(
        self,
        strip: Strip,
        judgement: Judgement | None,
        reason: str,
        detail: str,
        worker: WorkerHandle,
        digest: str = "",
    ) -> None:
        camera = self._cameras[strip.camera]
        verdict = verdict_of(judgement)
        files = HeatmapFiles() if judgement is None else judgement.heatmaps
        if files.state in ("saved", "failed"):
            self._heatmaps_fail = files.state == "failed"
        result = NewResult(
            verdict=verdict,
            reason=reason,
            score=messages.INVALID_SCORE if judgement is None else judgement.score,
            model_sha256=worker.setup.model_sha256,
            heatmap_bytes=files.bytes_written,
            digest=digest if judgement is None else judgement.digest,
            topic=messages.strip_event_topic(strip.camera),
            dispose=camera.when_done != "keep",
        )
        message = partial(
            strip_message, self._config, camera, strip, judgement, reason, worker.facts,
            stream=self._ledger.database.stream, model_sha256=worker.setup.model_sha256,
        )  # fmt: skip
        payload = b""

        def build(seq: int, ts_ms: int) -> bytes:
            nonlocal payload
            payload = messages.encode(message(seq=seq, ts_ms=ts_ms))
            return payload

        seq = self._ledger.strips.commit(strip, result, build, self._config.outbox.max_messages)
        self._waiting.pop(strip.row, None)
        if seq is None:
            log.info("strip %s: its file was written on while it was judged; once more", strip.strip_id)
            return
        event(
            log,
            logging.WARNING if verdict == "invalid" else logging.INFO,
            "strip",
            f"{strip.camera}/{show_name(strip.path)} {verdict}"
            + (f" ({reason}: {detail})" if reason else f" score {result.score:.4f}"),
            strip_id=strip.strip_id,
            seq=seq,
            verdict=verdict,
            reason=reason,
            score=result.score,
            inference_ms=round(judgement.inference_ms, 1) if judgement else 0.0,
        )
        self._committed(strip.camera, strip.identity.mtime_ns // 1_000_000, payload)
