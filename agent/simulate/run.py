"""Runs a simulated box against a real broker, by the real publisher: outages and repeats are those of a real one."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent import messages
from agent.clock import now_ms
from agent.health import changed
from agent.publisher import Publisher
from agent.simulate import saying, story
from agent.simulate.outbox import MemoryOutbox

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from agent.config import Config

log = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0
HEALTH_SECONDS = 60.0
LOOK_SECONDS = 1.0
SAID: dict[story.Act, str] = {
    "raise": "alarm {about}",
    "clear": "the end of the alarm {about}",
    "cut": "the connection is cut: the broker publishes the will, results wait",
    "mend": "the connection is back: what waited comes late, in order",
    "reject": "a pushed model is refused",
    "activate": "a pushed model becomes active",
    "roll_back": "it fails on probation, and the previous one is back",
    "review": "somebody says of a strip: {about}",
    "stop": "the agent stops and says goodbye",
    "start": "the agent is back",
}


class _CutPublisher(Publisher):
    """A publisher whose cable can be cut."""

    def cut(self) -> None:
        """End the connection without a goodbye; the broker publishes the will."""
        if self._link.connection is not None:
            self._link.connection.abort()


class Simulation:
    """One simulated box. Used by one thread."""

    def __init__(self, config: Config, *, seed: int, retained_file: Path, say: Callable[[str], None]) -> None:
        """`retained_file` counts the connections; `say` tells a person what happens."""
        self._config = config
        self._seed = seed
        self._retained_file = retained_file
        self._say = say
        self._cameras = tuple(camera.name for camera in config.cameras)
        self._outbox = MemoryOutbox()
        self._box = saying.Box(config, active_since_ms=now_ms())
        self._publisher: _CutPublisher | None = None  # None while the agent is stopped
        self._cut = False
        self._waiting: list[story.Judged] = []  # strips that came meanwhile
        self._last: dict[str, bytes] = {}  # camera -> its newest result
        self._told: messages.Health | None = None
        self._look_at = self._tell_at = 0.0  # monotonic
        self._start()

    def turn(self, seconds: float) -> None:
        """Let so much time pass, or a little less."""
        if self._publisher is None or self._cut:
            time.sleep(seconds)
            return
        self._publisher.step(seconds)
        self._box.acknowledged = self._outbox.results_acknowledged
        self._tell_health(time.monotonic())

    def strip(self, number: int) -> None:
        """Let strip `number` come, and what happens before it."""
        act = story.act_before(number)
        if act is not None:
            self._act(*act)
        judged = story.judge(self._seed, number, self._cameras, saying.THRESHOLD)
        if self._publisher is None:
            self._waiting.append(judged)
        else:
            self._commit(judged)

    def close(self) -> None:
        """Send what waits and say goodbye, as a service that stops."""
        if self._publisher is None:
            self._start()
        self._cut = False
        deadline = time.monotonic() + FLUSH_SECONDS
        while len(self._outbox) and time.monotonic() < deadline:
            self.turn(0.1)
        if self._publisher is not None:
            self._publisher.close("shutdown", FLUSH_SECONDS)
        if len(self._outbox):
            log.warning("%d messages have not reached the broker", len(self._outbox))

    def _act(self, act: story.Act, about: str) -> None:
        about = about.format(camera=self._cameras[-1])
        self._say(SAID[act].format(about=about))
        now = now_ms()
        match act:
            case "raise" | "clear":
                event = saying.alarm_event(self._box, about, now, raised=act == "raise")
                self._outbox.add(messages.ALARM_EVENT, messages.encode(event))
            case "reject" | "activate" | "roll_back":
                happened: dict[story.Act, saying.Event] = {
                    "reject": "rejected", "activate": "activated", "roll_back": "rolled_back"
                }  # fmt: skip
                told = saying.model_event(self._box, happened[act], now)
                self._outbox.add(messages.model_event_topic(saying.SLOT), messages.encode(told))
                self._set_model_state()
            case "review":
                review = saying.review_event(self._box, "defect" if about == "defect" else "no_defect", now)
                self._outbox.add(messages.REVIEW_EVENT, messages.encode(review))
            case "cut" | "mend":
                self._cut = act == "cut"
                if self._cut and self._publisher is not None:
                    self._publisher.cut()
            case "stop":
                if self._publisher is not None:
                    self._publisher.close("shutdown", FLUSH_SECONDS)
                self._publisher = None
            case "start":
                self._start()
        self._tell_at = 0.0

    def _start(self) -> None:
        self._cut = False
        self._started_ms = now_ms()
        self._publisher = _CutPublisher(self._config, self._outbox, retained_file=self._retained_file)
        for camera, payload in self._last.items():
            self._publisher.set_state(messages.last_strip_topic(camera), payload)
        self._set_model_state()
        for judged in self._waiting:
            self._commit(judged)
        self._waiting.clear()

    def _commit(self, judged: story.Judged) -> None:
        payload = messages.encode(saying.strip_result(self._box, judged, now_ms()))
        self._outbox.add(messages.strip_event_topic(judged.camera), payload)
        self._last[judged.camera] = payload
        if self._publisher is not None:
            self._publisher.set_state(messages.last_strip_topic(judged.camera), payload)
            self._publisher.wake()

    def _set_model_state(self) -> None:
        if self._publisher is not None:
            state = messages.encode(saying.model_state(self._box, now_ms()))
            self._publisher.set_state(messages.model_state_topic(saying.SLOT), state)

    def _tell_health(self, now: float) -> None:
        if self._publisher is None or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        health = saying.health(
            self._box, self._publisher.status(), outbox=(len(self._outbox), len(self._outbox.parked)),
            waiting=len(self._waiting), started_ms=self._started_ms, now_ms=now_ms(),
        )  # fmt: skip
        if now >= self._tell_at or changed(self._told, health):
            self._told, self._tell_at = health, now + HEALTH_SECONDS
            self._publisher.set_state(messages.STATE_HEALTH, messages.encode(health))


def simulate(
    config: Config,
    *,
    rate: float,
    strips: int | None,
    seed: int,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Publish `strips` results (None: until `stop`), `rate` each second over all cameras."""
    with tempfile.TemporaryDirectory(prefix="strip-agent-simulate-") as folder:
        simulation = Simulation(config, seed=seed, retained_file=Path(folder) / "broker.json", say=say)
        number, due = 0, time.monotonic()
        try:
            while not stop.is_set() and (strips is None or number < strips):
                now = time.monotonic()
                if now >= due:
                    simulation.strip(number)
                    number, due = number + 1, max(due + 1 / rate, now)
                else:
                    simulation.turn(min(due - now, 0.2))
        finally:
            simulation.close()
