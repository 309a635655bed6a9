"""The service: build the parts, start their loops, beat the heart while all of them move, drain, close.

main thread      starts workers (they die with the thread that started them), watches the hearts, tells systemd
intake-<camera>  watch one folder, begin what has settled
files-<camera>   move or remove its files that are done
strips-<slot>    the strip's journey        models-<slot>  the model's journey
publisher        to the broker              housekeeping   old heatmaps, old rows
control          the control socket
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from agent import __version__, health, messages, sdnotify
from agent.clock import now_ms
from agent.control import endpoint
from agent.control.commands import CHANGING_COMMANDS, Context, handle
from agent.errors import ExitCode, Fatal, Retry
from agent.files import make_folder
from agent.housekeeping import Housekeeping
from agent.ledger import open_ledger
from agent.models.inbox import read_trusted_keys
from agent.models.journey import ModelJourney
from agent.models.store import Store
from agent.ownership import take_lock, wait_for_old_workers
from agent.publisher import Publisher
from agent.strips.finished_files import CameraFiles
from agent.strips.intake import Intake
from agent.strips.journey import StripJourney
from agent.supervision import Slot, Starter
from agent.watching import CameraWatcher, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Camera, Config
    from agent.messages import Health, ModelState
    from agent.records import Strip

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
HEALTH_EVERY_SECONDS = 60.0
READY_WITHOUT_MODEL_SECONDS = 30.0
DRAIN_MARGIN_SECONDS = 5.0
FLUSH_SECONDS = 5.0
SHARE_SECONDS = 2.0
BUDGET_SECONDS = {"strips": 60.0, "publisher": 60.0, "models": 600.0, "housekeeping": 600.0, "control": 300.0}
"""How long each kind of loop may take for one round before the heart stops. The loops that touch a camera's folder are
not among them: a hung share stops nothing else."""


@dataclass
class Service:
    """All parts of a running service."""

    config: Config
    lock: IO[bytes]
    stop: threading.Event = field(default_factory=threading.Event)
    failed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        state = self.config.agent.state_folder
        self.started_ms = now_ms()
        self.ledger = open_ledger(state / "ledger.db", patience=sdnotify.extend_timeout)
        self.starter = Starter()
        self.publisher = Publisher(self.config, self.ledger.outbox, retained_file=state / "broker.json")
        self.slots = {name: Slot(name) for name in self.config.slots}
        try:
            trusted_keys = read_trusted_keys(self.config.models.trusted_keys)
        except ValueError as error:
            raise Fatal(ExitCode.CONFIG, str(error)) from error
        self.store = Store(state / "store")
        self.models = {
            name: ModelJourney(
                slot,
                self.config,
                self.ledger,
                self.store,
                trusted_keys,
                start_worker=self.starter.order,
                publish_state=self._publish_model_state,
            )
            for name, slot in self.slots.items()
        }
        self.strips = {
            name: StripJourney(
                slot,
                self.config,
                self.ledger,
                committed=self._committed,
                judged=self.models[name].keeper.count,
                folder_is_away=self._folder_is_away,
                file_answers=lambda strip: self.probes[strip.camera].answers(strip.path),
                file_is_gone=self._file_is_gone,
            )
            for name, slot in self.slots.items()
        }
        self.intakes = {camera.name: self._intake(camera) for camera in self.config.cameras}
        self.probes = {camera.name: Probe(camera.folder) for camera in self.config.cameras}
        self.camera_files = {
            camera.name: CameraFiles(
                camera, self.ledger, keep_days=self.config.ledger.keep_days, folder_is_away=self._folder_is_away
            )
            for camera in self.config.cameras
        }
        self.housekeeping = Housekeeping(self.config, self.ledger)
        self.context = Context(self.config, self.ledger, self.models, self._live, self._ring)
        self.control = endpoint.ControlServer(state / "control.sock", self._command)
        self.hearts: dict[str, float] = {}
        self.health: Health | None = None
        self._health_at = self._health_due = 0.0
        self._threads: list[threading.Thread] = []

    # -- what the parts call -------------------------------------------------------------------------------------------

    def _intake(self, camera: Camera) -> Intake:
        strips = self.ledger.strips
        watcher = CameraWatcher(camera, known=strips.known, first_scan_ever=not strips.camera_was_scanned(camera.name))
        return Intake(camera, watcher, self.ledger, self.config.checks.max_file_mib << 20)

    def _committed(self, camera: str, captured_ts_ms: int, payload: bytes) -> None:
        self.publisher.set_state(messages.last_strip_topic(camera), payload, order=captured_ts_ms)
        self.publisher.wake()

    def _folder_is_away(self, camera: str) -> bool:
        if camera not in self.intakes or self.probes[camera].hangs:
            return True
        return self.intakes[camera].watcher.status().state in (*health.AWAY, "starting")

    def _file_is_gone(self, strip: Strip) -> bool:
        return self.probes[strip.camera].is_gone(strip.path, self.intakes[strip.camera].watcher.folder_identity)

    def _publish_model_state(self, slot: str, state: ModelState) -> None:
        self.publisher.set_state(messages.model_state_topic(slot), messages.encode(state))
        self.publisher.wake()

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("command") in CHANGING_COMMANDS:
            log.warning("command %s", request)
        return handle(self.context, request)

    def _ring(self) -> None:
        for strips in self.strips.values():
            strips.bell.set()

    def _parts(self) -> health.Parts:
        watchers = {name: intake.watcher.status() for name, intake in self.intakes.items()}
        state = self.config.agent.state_folder
        alarms = ["ledger_was_damaged"] if any(state.glob("ledger.db.corrupt.*")) else []
        alarms += [alarm for strips in self.strips.values() for alarm in strips.alarms()]
        alarms += [alarm for models in self.models.values() for alarm in models.alarms()]
        alarms += [alarm for files in self.camera_files.values() for alarm in files.alarms()]
        errors = {name: files.error for name, files in self.camera_files.items()}
        return health.Parts(
            self.config, self.ledger, self.publisher, watchers, self.slots, self.started_ms, errors, tuple(alarms)
        )

    def _live(self) -> dict[str, Any]:
        parts = self._parts()
        return health.live_facts(parts, health.take_health(parts))

    # -- the loops -----------------------------------------------------------------------------------------------------

    def _start_loops(self) -> None:
        self._start("publisher", lambda: self.publisher.step(POLL_SECONDS))
        for name, models in self.models.items():
            models.record.announce()
            self._start(f"models-{name}", lambda models=models: models.step(POLL_SECONDS))  # type: ignore[misc]
        for name, strips in self.strips.items():
            self._start(f"strips-{name}", lambda strips=strips: strips.step(POLL_SECONDS))  # type: ignore[misc]
        for name, intake in self.intakes.items():
            self._start(f"intake-{name}", lambda intake=intake: self._take_in(intake))  # type: ignore[misc]
        for name, files in self.camera_files.items():
            self._start(f"files-{name}", lambda files=files: self._tidy(files.step))  # type: ignore[misc]
        self._start("housekeeping", lambda: self._tidy(self.housekeeping.step))
        self._start("control", lambda: self.control.step(POLL_SECONDS))

    def _take_in(self, intake: Intake) -> None:
        intake.watcher.wait(POLL_SECONDS)
        if intake.step():
            self.strips[intake.camera.slot].bell.set()

    def _tidy(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            log.warning("cannot tidy up: %s", error)
        self.stop.wait(POLL_SECONDS)

    def _start(self, name: str, step: Callable[[], None]) -> None:
        self.hearts[name] = time.monotonic()
        thread = threading.Thread(target=self._loop, args=(name, step), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _loop(self, name: str, step: Callable[[], None]) -> None:
        """Call `step` until the service stops; an error that nobody expected ends the service, which is restarted."""
        while not self.stop.is_set():
            self.hearts[name] = time.monotonic()
            try:
                step()
            except Retry as error:
                log.error("%s: %s", name, error)  # noqa: TRY400 - the stack tells nothing
                self.stop.wait(POLL_SECONDS)
            except Exception:
                log.critical("%s failed; the service ends and is to be restarted", name, exc_info=True)
                self.failed.set()
                self.stop.set()

    # -- the main thread -----------------------------------------------------------------------------------------------

    def run(self) -> ExitCode:
        """Run until `stop` is set, then drain and close."""
        for camera, (captured_ts_ms, payload) in self.ledger.outbox.newest_payloads(list(self.intakes)).items():
            self.publisher.set_state(messages.last_strip_topic(camera), payload, order=captured_ts_ms)
        self._start_loops()
        log.info("strip-agent %s watches %s", __version__, ", ".join(self.intakes))
        ready = False
        began = time.monotonic()
        interval = sdnotify.watchdog_interval_seconds(os.environ)
        beat_at = 0.0
        while not self.stop.is_set():
            self.starter.serve(0.2)
            now = time.monotonic()
            self._report_health(now)
            if not ready and (self._models_are_up() or now - began > READY_WITHOUT_MODEL_SECONDS):
                ready = True
                sdnotify.ready("watching")
                log.info("ready")
            if interval and now >= beat_at and not self._late(now):
                beat_at = now + interval / 3
                sdnotify.watchdog()
        self._drain()
        return ExitCode.INTERNAL if self.failed.is_set() else ExitCode.OK

    def _models_are_up(self) -> bool:
        return all(slot.current is not None or not self.models[name].state.active for name, slot in self.slots.items())

    def _late(self, now: float) -> list[str]:
        late = [name for name, beat in self.hearts.items() if now - beat > BUDGET_SECONDS.get(name.split("-")[0], 1e9)]
        if late:
            log.critical("no progress in %s", ", ".join(late))
        return late

    def _report_health(self, now: float) -> None:
        if now < self._health_at:
            return
        self._health_at = now + POLL_SECONDS
        try:
            taken = health.take_health(self._parts())
        except Retry as error:
            log.error("health: %s", error)  # noqa: TRY400 - the stack tells nothing
            return
        if now >= self._health_due or health.changed(self.health, taken):
            self._health_due = now + HEALTH_EVERY_SECONDS
            self.health = taken
            self.publisher.set_state(messages.STATE_HEALTH, messages.encode(taken))
            sdnotify.status(
                f"{taken.status}{': ' + taken.alarms if taken.alarms else ''}; {taken.strips_pending} strips wait, "
                f"{taken.outbox_depth} messages wait, {taken.acknowledged} acknowledged"
            )

    def _drain(self) -> None:
        """Finish the strips that workers hold, flush the outbox, close everything; what is left waits in the ledger."""
        sdnotify.stopping("finishing what is under way")
        log.info("stopping: finishing what is under way; a second signal forces")
        deadline = time.monotonic() + self.config.inference.deadline_seconds + DRAIN_MARGIN_SECONDS
        for thread in self._threads:
            may_hang = thread.name.startswith(("intake-", "files-"))  # for ever, on a dead share
            self._join(thread, min(deadline, time.monotonic() + SHARE_SECONDS) if may_hang else deadline)
        for slot, strips in self.strips.items():
            strips.stop_feeding()
            while strips.holds_strips and time.monotonic() < deadline:
                strips.step(POLL_SECONDS)
            self.slots[slot].close()
        for models in self.models.values():
            models.close()
        self.publisher.close("shutdown", FLUSH_SECONDS)
        alive = {thread.name for thread in self._threads if thread.is_alive()}
        for name, intake in self.intakes.items():
            if f"intake-{name}" not in alive:
                intake.watcher.close()
        self.control.close()
        self.ledger.database.close()
        log.info("stopped")

    def _join(self, thread: threading.Thread, deadline: float) -> None:
        self._ring()
        self.publisher.wake()
        while thread.is_alive() and time.monotonic() < deadline:
            self.starter.serve(0.02)  # a journey may be waiting for a worker
            thread.join(0.05)


def run_service(config: Config) -> ExitCode:
    """Run the service until it is told to stop. Raises Fatal where it cannot start."""
    state = config.agent.state_folder
    lock = take_lock(state)
    wait_for_old_workers(state / "workers.lock")
    for folder in (state / "store" / "slots", config.heatmap_folder):
        make_folder(folder)
    service = Service(config, lock)
    signals = 0

    def on_signal(_number: int, _frame: object) -> None:  # no logging here: the main thread may be in the middle of it
        nonlocal signals
        signals += 1
        service.stop.set()
        if signals > 1:  # in a hurry: everything that matters is on the disk
            os._exit(ExitCode.FAILED)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return service.run()
