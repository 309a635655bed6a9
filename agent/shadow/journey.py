"""The shadow's journey: one strip after the other that has been published, while nothing waits to be judged.

    1  which     the next result of the slot, whose file is still there (`notes.py`)
    2  when      no strip waits, no worker is at one, no model is tried, and the shadow has rested
    3  judge     a worker of its own, which writes no heatmaps, takes only what is left of the processor, and stands
                 still while another worker is at a strip (`brake.py`)
    4  compare   what it says goes into the ledger, many strips at a time, beside what was published

It disturbs nothing: what goes wrong with its worker counts against the shadow (`rules.py`), which in the end is
switched off. The slot's state says which model it is; only the model's journey changes that, and is asked to.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.contract.threshold import choose_threshold, operators_threshold
from agent.errors import Blame, Reason, Reject, Retry
from agent.shadow.message import events_of
from agent.shadow.notes import Notes
from agent.shadow.rules import DEADLINES, Strikes, is_missed, needs_memory, rest_seconds
from agent.shadow.telling import PUBLISH_SECONDS, Telling
from agent.supervision import starved_seconds
from agent.wire import Job, Judged, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.ledger.shadow import Published
    from agent.models.journey import ModelJourney
    from agent.models.slot_state import Shadow
    from agent.models.store import Store
    from agent.shadow.brake import Brake
    from agent.shadow.message import Doing
    from agent.strips.folder import CameraFolder
    from agent.supervision import WorkerHandle
    from agent.wire import Failed

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2  # so soon it sees that nothing waits any more
BOX_PAUSE_SECONDS = 10.0
GRACE_SECONDS = 1.0  # for a worker that is to end


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the worker is at."""

    strip: Published
    threshold: float
    at: float  # monotonic seconds
    starved_before: float  # seconds that the worker had waited for a processor by then
    stood_before: float  # seconds that the brake had been on by then


class ShadowJourney:
    """The shadow of one slot, if it has one. `step` is for a thread of its own, `alarms` and `bell` for any."""

    def __init__(
        self,
        models: ModelJourney,
        config: Config,
        ledger: Ledger,
        store: Store,
        folders: Mapping[str, CameraFolder],
        brake: Brake,
        *,
        start_worker: Callable[[Setup], WorkerHandle],
        is_busy: Callable[[], bool],
        publish: Callable[[str, bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_busy`: a worker is at a strip, or a model is being tried; `publish` takes a topic and its new value."""
        self.bell = threading.Event()  # rings when a result was committed
        self._models = models
        self._slot = models.slot
        self._ledger = ledger
        self._store = store
        self._folders = folders
        self._brake = brake
        self._start_worker = start_worker
        self._is_busy = is_busy
        self._telling = Telling(self._slot.name, ledger, publish, clock)
        self._clock = clock
        self.take(config)
        self._shadow: Shadow | None = None  # the one that all of the following is about
        self._notes: Notes | None = None
        self._worker: WorkerHandle | None = None
        self._asked: _Asked | None = None
        self._strikes = Strikes()
        self._given_up = False  # it is to be switched off, and the model's journey was asked to
        self._start_at = self._rest_until = 0.0  # monotonic
        self._stood_before = 0.0  # seconds that the brake had been on when the worker was started

    def take(self, config: Config) -> None:
        """Go by this configuration from the next strip on. For any thread."""
        self._config = config
        self._deadline = DEADLINES * config.inference.deadline_seconds

    def alarms(self) -> list[str]:
        """Return the codes of what needs attention, for health."""
        shadow = self._models.state.shadow
        return [f"slot_{self._slot.name}_shadow_off"] if shadow is not None and shadow.reason else []

    def step(self, timeout_seconds: float) -> None:
        """Do what can be done now; wait up to `timeout_seconds` where there is nothing. Raises nothing."""
        pause = timeout_seconds
        try:
            pause = min(pause, self._work())
        except Retry as error:  # the box is to blame: nothing is lost but a little time
            log.warning("slot %s: its shadow waits: %s", self._slot.name, error)
            self._rest_until = self._clock() + BOX_PAUSE_SECONDS
        except Exception as error:  # nobody expected it, and it must not cost the service anything
            log.exception("slot %s: its shadow failed", self._slot.name)
            self._give_up(Reason.WORKER_CRASHED, f"{type(error).__name__}: {error}")
        self.bell.wait(pause)
        self.bell.clear()

    def close(self) -> None:
        """Write down what is known and end its worker: the service ends, and nothing steps any more."""
        asked, self._asked = self._asked, None
        try:
            if self._notes is not None:
                if asked is not None:
                    self._notes.give_back(asked.strip)
                self._notes.write()
        except Retry as error:  # it is judged again
            log.warning("slot %s: %s", self._slot.name, error)
        self._end_worker(0.0)

    # -- who is the shadow ---------------------------------------------------------------------------------------------

    def _work(self) -> float:
        """Do one thing; return for how many seconds there is nothing else. Raises Retry where the ledger cannot."""
        shadow = self._models.state.shadow
        if _key(shadow) != _key(self._shadow):
            self._change_to(shadow)
        self._shadow = shadow
        if shadow is None or shadow.reason or self._given_up or self._notes is None:
            self._end_worker()
            if self._notes is not None:
                self._notes.write()
            if (
                shadow is not None and not shadow.reason
            ):  # it is about to be switched off, which is told with the reason
                return LOOK_SECONDS
            self._tell("off")
            return PUBLISH_SECONDS
        if self._has_to_wait():
            self._end_worker(0.0)
            self._tell("waiting")
            return LOOK_SECONDS
        pause = self._follow(shadow.sha256, self._notes)
        self._tell("scoring" if self._worker is not None and self._worker.facts is not None else "starting")
        return pause

    def _change_to(self, shadow: Shadow | None) -> None:
        """Begin anew with another shadow, or with none."""
        self._end_worker()
        if self._notes is not None:
            self._notes.write()
        self._notes = None
        if shadow is not None and not shadow.reason:
            stream = self._ledger.database.stream
            events = events_of(self._config, self._slot.name, shadow.sha256, stream) if shadow.events else None
            self._notes = Notes(self._ledger.shadow, self._slot.name, shadow, events=events, clock=self._clock)
        self._strikes, self._given_up = Strikes(), False
        self._start_at = self._rest_until = 0.0

    def _has_to_wait(self) -> bool:
        """Whether its memory is needed, or there is nothing to compare with and no worker yet."""
        if self._config.models.switch == "stop_first" and (self._models.trial_goes_on or self._slot.current is None):
            return True
        return self._worker is None and self._slot.current is None

    def _give_up(self, reason: str, detail: str) -> None:
        """Have the shadow switched off; the slot's file, which the model's journey writes, remembers it."""
        shadow = self._models.state.shadow
        if self._given_up or shadow is None:
            return
        self._given_up = True
        log.error("slot %s: its shadow %s is switched off: %s", self._slot.name, shadow.sha256[:12], detail)
        try:
            self._models.requests.end_shadow(shadow.sha256, reason, detail)
        except LookupError as gone:
            log.info("slot %s: %s", self._slot.name, gone)

    # -- its worker ----------------------------------------------------------------------------------------------------

    def _follow(self, sha256: str, notes: Notes) -> float:
        worker = self._worker
        if worker is None:
            pause = self._start_at - self._clock()
            if pause <= 0:
                self._start(sha256)
            return max(0.0, pause)
        asked = self._asked
        if worker.facts is not None and asked is None:
            return self._ask(worker, notes)
        try:
            if asked is None:
                stood = self._brake.on_seconds - self._stood_before
                worker.poll_loaded(LOOK_SECONDS, self._config.models.trial.seconds + stood)
                self._slot.shadow_facts = worker.facts
                if worker.opens:
                    self._brake.hold(worker)
                return 0.0
            answer = worker.poll(LOOK_SECONDS, self._deadline + self._brake.on_seconds - asked.stood_before)
        except (Reject, Retry) as lost:
            self._lost(worker, notes, lost)
            return 0.0
        if answer is not None:
            self._take(worker, notes, asked, answer)
        return 0.0

    def _start(self, sha256: str) -> None:
        self._slot.shadow_is_there = True  # before it is: a trial that needs its memory waits until it has gone
        self._stood_before = self._brake.on_seconds
        setup = Setup.of(self._config, self._store.model_path(sha256), sha256, "shadow")
        try:
            self._worker = self._start_worker(setup)
        except Retry as error:
            self._slot.shadow_is_there = False
            self._strike(error, blames_box=True)

    def _end_worker(self, grace_seconds: float = GRACE_SECONDS) -> None:
        worker, asked = self._worker, self._asked
        self._worker = self._asked = None
        if asked is not None and self._notes is not None:
            self._notes.give_back(asked.strip)
        if worker is not None:
            self._brake.let_go(worker)
            self._slot.end(worker, grace_seconds)
        self._slot.shadow_is_there, self._slot.shadow_facts = False, None

    def _lost(self, worker: WorkerHandle, notes: Notes, lost: Reject | Retry) -> None:
        """Note that the worker is gone, and what that says of the strip that it was at."""
        asked, self._asked = self._asked, None
        starved = worker.starved_seconds - (asked.starved_before if asked is not None else 0.0)
        blames_box = starved > self._deadline / 2 or (isinstance(lost, Retry) and lost.blame is Blame.BOX)
        if asked is not None and (blames_box or lost.reason is Reason.KILLED):
            notes.missed(asked.strip)
        elif asked is not None:
            notes.not_judged(asked.strip, asked.threshold, lost.reason)
        self._end_worker(0.0)
        self._strike(lost, blames_box=blames_box)

    def _strike(self, lost: Reject | Retry, *, blames_box: bool) -> None:
        self._strikes = self._strikes.with_lost(blames_box=blames_box)
        pause, name = self._strikes.pause_seconds, self._slot.name
        self._start_at = self._clock() + pause
        if self._strikes.is_out:
            self._give_up(lost.reason, f"{self._strikes.number} times; the last time: {lost.detail}")
        else:
            log.warning("slot %s: its shadow was lost, and is started again in %.0f s: %s", name, pause, lost)

    # -- strip by strip ------------------------------------------------------------------------------------------------

    def _ask(self, worker: WorkerHandle, notes: Notes) -> float:
        """Give the worker the next strip when it is time for one, and write down what has gathered."""
        if not worker.alive:
            self._lost(worker, notes, Retry(Reason.WORKER_CRASHED, f"worker {worker.pid} is gone", Blame.WORKER))
            return 0.0
        now = self._clock()
        if now < self._rest_until:
            return max(LOOK_SECONDS, self._rest_until - now)
        if self._is_busy() or self._anything_waits():
            return LOOK_SECONDS
        if notes.are_due:
            notes.write()
            return 0.0
        config = self._config
        cameras = {camera.name: camera for camera in config.cameras if camera.slot == self._slot.name}
        strip = notes.next_strip(cameras, lambda camera: self._folders[camera].is_away)
        if strip is None:
            return PUBLISH_SECONDS
        camera = cameras[strip.strip.camera]
        told, method = self._ledger.operators.thresholds.get(camera.name), config.scoring.method
        threshold = choose_threshold(
            operator=None if told is None else operators_threshold(told.value, told.method, method),
            camera=camera.threshold,
            scoring=config.scoring.threshold,
            model=worker.facts.threshold if worker.facts else None,
        )
        self._asked = _Asked(strip, threshold.value, now, starved_seconds(worker.pid), self._brake.on_seconds)
        worker.send(Job(strip.strip, str(camera.folder), threshold.value, threshold.source))
        return 0.0

    def _anything_waits(self) -> bool:
        """Whether a strip waits, of any slot: not those that wait for a person, or for a share."""
        paused = self._ledger.operators.paused
        names = (camera.name for camera in self._config.cameras)
        waiting = [name for name in names if name not in paused and not self._folders[name].is_away]
        return self._ledger.shadow.any_waits(waiting)

    def _take(self, worker: WorkerHandle, notes: Notes, asked: _Asked, answer: Judged | Failed) -> None:
        """Note what the worker says, and let the shadow rest."""
        if not isinstance(answer, Judged) and needs_memory(answer.reason):
            self._lost(worker, notes, Retry(Reason(answer.reason), answer.detail, Blame.WORKER))
            return
        now = self._clock()
        self._asked = None
        self._rest_until = now + rest_seconds(now - asked.at - (self._brake.on_seconds - asked.stood_before))
        if isinstance(answer, Judged):
            said = answer.judgement
            notes.judged(asked.strip, anomalous=said.anomalous, score=said.score, threshold=said.threshold,
                         inference_ms=said.inference_ms)  # fmt: skip
            self._strikes = self._strikes.with_judged()
        elif is_missed(answer.reason, answer.blame):
            notes.missed(asked.strip)
        else:
            notes.not_judged(asked.strip, asked.threshold, answer.reason)

    def _tell(self, doing: Doing) -> None:
        loaded = self._slot.shadow_facts
        self._telling.tell(self._config.agent.name, self._models.state, self._shadow, doing, loaded)


def _key(shadow: Shadow | None) -> tuple[str, int] | None:
    return None if shadow is None else (shadow.sha256, shadow.since_ms)
