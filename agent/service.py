"""The service: build the parts, start their loops, beat the heart while all of them move, drain, close.

main thread      starts workers (they die with the thread that started them), watches the hearts, tells systemd
cameras.py       two loops for each camera
strips-<slot>    the strip's journey        models-<slot>  the model's journey        inbox-<slot>  what is pushed
shadow-<slot>    beside the active model
publisher-<way>  to the broker              housekeeping   old rows
control          the control socket         commands       those that come over MQTT or Sparkplug
heatmaps         old ones                   leftovers      those that no result names
certificates     how long they hold
configuration    its file, and SIGHUP, on which it is read again
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from agent import __version__, health, logs, messages, sdnotify
from agent.cameras import Cameras
from agent.certificates import Certificates
from agent.clock import now_ms
from agent.config.ignored import keep_copies
from agent.control import endpoint
from agent.control.commands import handle
from agent.control.context import Context
from agent.control.desk import CommandDesk
from agent.control.over_mqtt import MqttCommands
from agent.drift.watch import DriftWatch
from agent.errors import ExitCode
from agent.files import make_folder
from agent.heatmap_folder import HeatmapFolder
from agent.housekeeping import Housekeeping
from agent.ledger import open_ledger
from agent.loops import Loops
from agent.metrics import make_server
from agent.models.journey import ModelJourney
from agent.models.store import Store
from agent.models.trusted_keys import TrustedKeys
from agent.ownership import OldWorker, take_lock, wait_for_old_workers
from agent.patience import LOOK_SECONDS, within
from agent.reload import Reloader
from agent.shadow.brake import Brake
from agent.shadow.shadows import Shadows
from agent.strips.capture_clocks import CaptureClocks
from agent.strips.journey import StripJourney
from agent.strips.leftovers import Leftovers
from agent.supervision import Slot, Starter
from agent.ways import make_ways

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent import mqtt
    from agent.config import Config
    from agent.config.difference import Difference
    from agent.config.on_disk import ConfigFile
    from agent.messages import Health, ModelState

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0  # of a loop that knows when it is next needed
SERVE_SECONDS = 0.5  # so long at the most the main thread does not see that the service is to stop
READY_WITHOUT_MODEL_SECONDS = 30.0
DRAIN_MARGIN_SECONDS = 5.0
FLUSH_SECONDS = 5.0
SHARE_SECONDS = 2.0


@dataclass
class Service:
    """All parts of a running service."""

    config: Config
    lock: IO[bytes]
    file: ConfigFile
    reload_asked: threading.Event
    old_workers: tuple[OldWorker, ...] = ()
    loops: Loops = field(default_factory=Loops)

    def __post_init__(self) -> None:
        state = self.config.agent.state_folder
        self.started_ms = now_ms()
        self.ledger = open_ledger(state / "ledger.db", patience=sdnotify.extend_timeout)
        self.starter = Starter()
        self.publisher = make_ways(self.config, self.ledger, state, self._received)
        self.slots = {name: Slot(name) for name in self.config.slots}
        self.trusted_keys = TrustedKeys(self.config.models.trusted_keys)
        within(LOOK_SECONDS, self.trusted_keys.step, about=self.trusted_keys)
        self.store = Store(state / "store")
        self.models = {
            name: ModelJourney(
                slot,
                self.config,
                self.ledger,
                self.store,
                self.trusted_keys,
                start_worker=self.starter.order,
                publish_state=self._publish_model_state,
            )
            for name, slot in self.slots.items()
        }
        self.cameras = Cameras(self.config, self.ledger, self.loops, self._tidy)
        self.states_change = threading.Lock()  # held while cameras' states are set or cleared
        self.capture_clocks = CaptureClocks()
        self.leftovers = Leftovers(self.config.heatmap_folder)
        self.drift = DriftWatch(self.config, self.ledger, self.slots)
        self.brake = Brake()
        self.strips = {
            name: StripJourney(
                slot,
                self.config,
                self.ledger,
                self.cameras.folders,
                self.leftovers,
                committed=self._committed,
                judged=self.models[name].keeper.count,
                looked=self.drift.note,
                begins=partial(self.brake.put_on, name),
                rests=partial(self.brake.release, name),
            )
            for name, slot in self.slots.items()
        }
        self.shadows = Shadows(
            self.config, self.ledger, self.store, self.models, self.cameras.folders, self.brake,
            start_worker=self.starter.order, publish=self.publisher.set_state,
        )  # fmt: skip
        self.heatmaps = HeatmapFolder(self.config, self.ledger)
        self.certificates = Certificates(self.config.mqtt.tls)
        self.housekeeping = Housekeeping(self.config, self.ledger)
        self.context = Context(self.config, self.ledger, self.models, self._live, self._ring, self._rescan)
        self.reloader = Reloader(self.file, self.context, self._take_on, self.reload_asked)
        self.context.reload = self.reloader.reload
        self.desk = CommandDesk(self.context)
        self.mqtt_commands = MqttCommands(self.config, self.desk, self.publisher.answer)
        self.publisher.take_commands(self.desk)
        self.control = endpoint.ControlServer(state / "control.sock", partial(handle, self.context))
        self.metrics = make_server(self.config.metrics.listen, self._take, self.drift.facts, self.models)
        self.reporter = health.Reporter(self.config, self.ledger, self.publisher)

    # -- what the parts call -------------------------------------------------------------------------------------------

    def _committed(self, camera: str, captured_ts_ms: int, payload: bytes) -> None:
        """Show what was committed last; the files' own times decide nothing, they may lie in the future."""
        with self.states_change:
            if camera in self.cameras.intakes:  # else it is gone, and so is its state
                self.publisher.set_state(messages.last_strip_topic(camera), payload)
                self.capture_clocks.note(camera, captured_ts_ms)
        self.publisher.wake()
        self.shadows.ring()

    def _publish_model_state(self, slot: str, state: ModelState) -> None:
        self.publisher.set_state(messages.model_state_topic(slot), messages.encode(state))
        self.publisher.wake()

    def _ring(self) -> None:
        for strips in self.strips.values():
            strips.bell.set()
        self.publisher.wake()

    def _received(self, message: mqtt.Received | mqtt.PassedOver) -> None:
        self.mqtt_commands.received(message)

    def _rescan(self, camera: str) -> None:
        self.cameras.intakes[camera].watcher.request_scan()

    def _parts(self) -> health.Parts:
        files = self.cameras.files
        alarms = ["ledger_was_damaged"] if any(self.config.agent.state_folder.glob("ledger.db.corrupt.*")) else []
        alarms += self.reloader.alarms()
        alarms += ["trusted_keys_missing"] if self.trusted_keys.missing else []
        alarms += ["old_workers_hang"] if any(worker.is_there() for worker in self.old_workers) else []
        alarms += self.capture_clocks.alarms() + self.certificates.alarms() + self.shadows.alarms()
        alarms += self.metrics.alarms() if self.metrics else []
        alarms += [f"slot_{name}_worker_hangs" for name, slot in self.slots.items() if slot.hanging]
        alarms += [alarm for strips in self.strips.values() for alarm in strips.alarms()]
        alarms += [alarm for models in self.models.values() for alarm in models.alarms()]
        alarms += [alarm for one in files.values() for alarm in one.alarms()]
        return health.Parts(
            self.config, self.ledger, self.publisher, self.cameras.watched(), self.slots, self.started_ms,
            self.heatmaps.state(), {name: one.error for name, one in files.items()}, alarms, self.desk.status(),
            self.drift.alarms(),
        )  # fmt: skip

    def _take(self) -> tuple[health.Parts, Health]:
        parts = self._parts()
        return parts, health.take_health(parts)

    def _live(self) -> dict[str, Any]:
        return health.live_facts(*self._take()) | {"configuration": self.reloader.facts(), "drift": self.drift.facts()}

    # -- the loops -----------------------------------------------------------------------------------------------------

    def _start_loops(self) -> None:
        for name, way in self.publisher.ways.items():
            self.loops.start(f"publisher-{name}", lambda way=way: way.step(POLL_SECONDS))  # type: ignore[misc]
        for name, models in self.models.items():
            models.record.announce()
            self.loops.start(f"models-{name}", lambda models=models: models.step(POLL_SECONDS))  # type: ignore[misc]
            self.loops.start(f"inbox-{name}", lambda models=models: models.inbox.step(POLL_SECONDS))  # type: ignore[misc]
        for name, strips in self.strips.items():
            self.loops.start(f"strips-{name}", lambda strips=strips: strips.step(POLL_SECONDS))  # type: ignore[misc]
        self.shadows.start(self.loops)
        self.cameras.start(self.cameras.intakes, self._ring_slot)
        self.loops.start("leftovers", lambda: self.leftovers.step(POLL_SECONDS))
        self.loops.start("heatmaps", partial(self._tidy, "heatmaps", self.heatmaps.step))
        if self.config.mqtt.tls.enabled:
            self.loops.start("certificates", partial(self._tidy, "certificates", self.certificates.step))
        if self.trusted_keys.missing:
            self.loops.start("keys", partial(self._tidy, "keys", self.trusted_keys.step))
        self.loops.start("housekeeping", partial(self._tidy, "housekeeping", self.housekeeping.step))
        self.loops.start("control", lambda: self.control.step(POLL_SECONDS))
        if self.metrics is not None:
            self.loops.start("metrics", partial(self.metrics.step, POLL_SECONDS))
        self.loops.start("commands", lambda: self.desk.step(POLL_SECONDS))

    def _tidy(self, loop: str, step: Callable[[], float | None]) -> None:
        pause = None
        try:
            pause = step()
        except OSError as error:
            log.warning("cannot tidy up: %s", error)
        self.loops.pause(loop, max(POLL_SECONDS, min(pause or 0.0, LONGEST_PAUSE_SECONDS)))

    def _ring_slot(self, slot: str) -> None:
        self.strips[slot].bell.set()

    # -- another configuration -----------------------------------------------------------------------------------------

    def _take_on(self, new: Config, found: Difference) -> None:
        """Go by another configuration, of which nothing needs a restart. Raises Retry, and nothing has changed then."""
        gone, coming = found.removed | found.watched_anew, found.added | found.watched_anew
        before = self.cameras.ask(coming)
        newest = self.ledger.outbox.newest_payloads(sorted(found.added))
        self.cameras.replace(new, gone, before)
        self.config = self.context.config = new
        self.housekeeping.config = self.heatmaps.config = self.reporter.alarms.config = self.drift.config = new
        logs.setup(new.log)
        for strips in self.strips.values():
            strips.take(new)
        self.shadows.take(new)
        with self.states_change:
            self.publisher.take_cameras(new)
            self.capture_clocks.forget(found.removed)
        for camera, (captured_ts_ms, payload) in newest.items():  # one that was there before
            self._committed(camera, captured_ts_ms, payload)
        self.cameras.start(coming, self._ring_slot)

    # -- the main thread -----------------------------------------------------------------------------------------------

    def run(self) -> ExitCode:
        """Run until `stop` is set, then drain and close."""
        for camera, (captured_ts_ms, payload) in self.ledger.outbox.newest_payloads(list(self.cameras.intakes)).items():
            self._committed(camera, captured_ts_ms, payload)
        self._start_loops()
        log.info("strip-agent %s watches %s", __version__, ", ".join(self.cameras.intakes))
        ready, began = False, time.monotonic()
        interval = sdnotify.watchdog_interval_seconds(os.environ)
        beat_at = 0.0
        while not self.loops.stop.is_set():
            self.starter.serve(SERVE_SECONDS)
            now = time.monotonic()
            self.reporter.step(self._parts, now, settled=ready)
            if not ready and (self._models_are_up() or now - began > READY_WITHOUT_MODEL_SECONDS):
                ready = True
                sdnotify.ready("watching")
                self.loops.start("configuration", partial(self.reloader.step, POLL_SECONDS))
                log.info("ready")
            if interval and now >= beat_at and not self.loops.late(now):
                beat_at = now + interval / 3
                sdnotify.watchdog()
        self._drain()
        return ExitCode.INTERNAL if self.loops.failed.is_set() else ExitCode.OK

    def _models_are_up(self) -> bool:
        return all(slot.current is not None or not self.models[name].state.active for name, slot in self.slots.items())

    def _drain(self) -> None:
        """Finish the strips that workers hold, flush the outbox, close everything; what is left waits in the ledger."""
        sdnotify.stopping("finishing what is under way")
        log.info("stopping: finishing what is under way; a second signal forces")
        deadline = time.monotonic() + self.config.inference.deadline_seconds + DRAIN_MARGIN_SECONDS
        self._ring()
        self.loops.join(deadline, SHARE_SECONDS, lambda: self.starter.serve(0.02))  # a journey may wait for a worker
        for slot, strips in self.strips.items():
            strips.stop_feeding()
            while strips.holds_strips and time.monotonic() < deadline:
                strips.step(POLL_SECONDS)
            self.slots[slot].close()
        for models in self.models.values():
            models.close()
        self.publisher.close("shutdown", FLUSH_SECONDS)
        self.control.close()
        if self.metrics is not None:
            self.metrics.close()
        self.ledger.database.close()
        log.info("stopped")


def run_service(config: Config, file: ConfigFile) -> ExitCode:
    """Run the service with the `config` of `file` until it is told to stop. Raises Fatal where it cannot start."""
    reload_asked = threading.Event()
    if not sys.stdin.isatty():  # on a terminal SIGHUP says that it is closed
        signal.signal(signal.SIGHUP, lambda *_: reload_asked.set())
    state = config.agent.state_folder
    lock = take_lock(state)
    old_workers = wait_for_old_workers(state / "workers.lock", patience=sdnotify.extend_timeout)
    make_folder(state / "store" / "slots")
    keep_copies(config, Store(state / "store").active_sizes(config.slots))
    service = Service(config, lock, file, reload_asked, old_workers)
    signals = 0

    def on_signal(_number: int, _frame: object) -> None:  # no logging here: the main thread may be in the middle of it
        nonlocal signals
        signals += 1
        service.loops.stop.set()
        if signals > 1:  # in a hurry: everything that matters is on the disk
            os._exit(ExitCode.FAILED)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return service.run()
