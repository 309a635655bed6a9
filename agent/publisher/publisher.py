"""The publisher: one thread that brings the outbox and the retained states to the broker.

A message leaves the outbox only when the broker has acknowledged it with a success code. Everything that is not
acknowledged when a connection ends is sent again on the next one, the same bytes in the same order.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from agent import messages, mqtt
from agent.clock import now_ms
from agent.publisher.answers import Answer, Answers
from agent.publisher.audience import Audience
from agent.publisher.echo import Echo
from agent.publisher.flow_control import FlowControl
from agent.publisher.holds import Holds
from agent.publisher.inflight import Inflight
from agent.publisher.link import Link
from agent.publisher.poison import after_hanging_up
from agent.publisher.presence import Presence
from agent.publisher.refusals import judge_message, judge_state
from agent.publisher.retained import Retained
from agent.publisher.states import States
from agent.publisher.status import Doubt, PublisherStatus, look
from agent.publisher.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.config import Config
    from agent.publisher.outbox import Outbox

log = logging.getLogger(__name__)

_RESCAN_SECONDS = 60.0  # an idle outbox is read from its beginning this often, in case a row became pending again
_STALL_KEEPALIVES = 1.5
_OFFLINE_SECONDS = 2.0  # for the goodbye


class Publisher:
    """`set_state`, `answer`, `wake` and `status` may be called from any thread, the rest from the one that steps."""

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
        jitter: Callable[[], float] = random.random,
        stall_seconds: float | None = None,
        on_message: Callable[[mqtt.Received | mqtt.PassedOver], None] | None = None,
        subscribe_to: Sequence[str] = (),
        retained_file: Path | None = None,
    ) -> None:
        """Prepare; nothing connects before the first step.

        `clock` is monotonic seconds, `jitter` returns 0..1. A connection that brings no acknowledgement for
        `stall_seconds` (None: one and a half keepalives) is dropped. `subscribe_to` names topics below the base topic
        whose messages `on_message` gets. `retained_file` remembers what is retained on the broker (None: nothing does).
        """
        self._base = config.base_topic
        self._clock = clock
        self._wall_ms = wall_ms
        self._stall_seconds = stall_seconds or _STALL_KEEPALIVES * config.mqtt.keepalive_seconds
        self._retained = Retained(retained_file, f"{config.mqtt.host}:{config.mqtt.port}", wanted=config.mqtt.retain)
        self._presence = Presence(config.agent.name, config.base_topic, wall_ms, self._retained.connection_number)
        self._bell = threading.Event()
        client_id = config.mqtt.client_id or config.agent.name
        self._link = Link(
            config.mqtt, client_id, self._make_will, self._bell.set, jitter, answer_seconds=self._stall_seconds
        )
        self._states = States()
        self.take_cameras(config)
        # First, so that it is the first of the births; each connection begins with a fresh one.
        self._states.set(messages.STATE_AGENT, self._presence.birth())
        self._holds = Holds()
        self._inflight = Inflight(outbox)
        self._echo: Echo | None = None
        self._state_ids: dict[int, str] = {}  # packet id -> topic of a state that is under way
        self._audience = Audience(holds=config.outbox.hold_until_subscribed)
        self._answers = Answers(clock)
        self._subscriptions = Subscriptions([f"{config.base_topic}/{topic}" for topic in subscribe_to], on_message)
        self._flow = FlowControl()
        self._progress_at = 0.0  # the last answer, or the last moment when none was owed
        self._doubt = Doubt(clock())
        self._rescan_at, self._closing = 0.0, False
        self._since_ms = wall_ms()
        self._acknowledged = 0
        self._status = PublisherStatus(since_ms=self._since_ms)
        self.last_step_monotonic = clock()

    def set_state(self, topic: str, payload: bytes) -> None:
        """Set a retained state, or clear it with an empty payload; `topic` is below the base topic."""
        if self._states.set(topic, payload):
            self._bell.set()

    def take_cameras(self, config: Config) -> None:
        """Clear what is retained of cameras that are gone; nothing is set for them any more."""
        self._states.configure(messages.retained_topics((camera.name for camera in config.cameras), config.slots))

    def answer(self, answer: Answer) -> None:
        """Send the answer to a command."""
        self._answers.add(answer)
        self._bell.set()

    def wake(self) -> None:
        """Say that the outbox has something new. A lost call costs one poll, never a message."""
        self._bell.set()

    def status(self) -> PublisherStatus:
        """Return how it was at the end of the last step."""
        return self._status

    def step(self, timeout_seconds: float) -> None:
        """Wait until there is something to do, at most `timeout_seconds`, and do it. Never blocks on the network."""
        self._bell.wait(self._wait_seconds(timeout_seconds))
        self._bell.clear()
        now = self._clock()
        if now - self.last_step_monotonic > self._stall_seconds / 2:
            self._progress_at = now  # this process did not run: that says nothing about the broker
        self.last_step_monotonic = now
        for event in self._link.step(now):
            self._handle(event, now)
        self._check_progress(now)
        if self._link.connection is not None:
            self._send(self._link.connection, now)
        # After sending, so that the broker is busy while the disk is.
        self._acknowledged += self._inflight.record(now)
        self._status = self._make_status(now)

    def close(self, reason: str, flush_seconds: float = 5.0) -> None:
        """Send what is there for at most `flush_seconds`, publish that the agent is offline, and disconnect.

        Call it when nothing steps any more. Takes `flush_seconds` and a few seconds at most, less when not connected.
        """
        self._closing = True
        self.step(0.0)  # so that `empty` knows of what came last
        self._step_until(self._all_sent, flush_seconds)
        if self._link.connection is not None:
            self._states.set(messages.STATE_AGENT, self._presence.goodbye(reason))
            self._step_until(lambda: self._states.all_sent(self._holds.held), _OFFLINE_SECONDS)
        if self._link.connection is not None and self._states.waits(messages.STATE_AGENT):
            # A clean end would leave the box online for ever on a broker that owes answers: the will says what is true.
            self._link.drop("the broker left no room for the goodbye", self._clock())
        self._link.close(_OFFLINE_SECONDS)
        self._inflight.record(self._clock())
        self._status = self._make_status(self._clock())

    def _all_sent(self) -> bool:
        return self._inflight.empty and self._answers.empty and self._states.all_sent(self._holds.held)

    def _step_until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._link.connection is not None and not done():
            self.step(0.05)  # once at least, however late it is
            if time.monotonic() >= deadline:
                return

    def _wait_seconds(self, timeout_seconds: float) -> float:
        now = self._clock()
        due = [self._link.next_due(), self._inflight.next_due(now)]
        if self._link.connection is not None:
            if self._inflight.more_to_fetch and self._flow.link_works and self._room() > 0:
                return 0.0
            due += [self._states.next_due(now), self._holds.next_due(now)]
            due += [now + self._stall_seconds / 4] if self._owed() else []
        return max(0.0, min([timeout_seconds, *(at - now for at in due if at is not None)]))

    # What the broker says

    def _handle(self, event: mqtt.Event, now: float) -> None:
        match event:
            case mqtt.Connected():
                self._begin(event, now)
            case mqtt.Acked():
                self._answered(event, now)
            case mqtt.Received():
                self._received(event, now)
            case mqtt.PassedOver() | mqtt.Subscribed():
                self._subscriptions.take(event)
            case mqtt.Ended():
                self._subscriptions.end(event, now)
                after_hanging_up(
                    event, self._inflight, self._state_ids, self._answers.packet_ids, self._flow, self._holds, now
                )
                self._end()

    def _received(self, message: mqtt.Received, now: float) -> None:
        echo = self._echo is not None and self._echo.received(message.topic, message.payload)
        if message.topic == self._presence.topic:
            namesake, called_offline = self._presence.read(message)
            if namesake:
                self._link.taken_over(now)
            if called_offline and not self._closing:
                self._states.repeat(messages.STATE_AGENT)
            if not message.payload and not self._closing:
                self._states.repeat()  # an agent that had our name before has cleared what it left
        elif not echo:
            self._subscriptions.take(message)

    def _begin(self, connected: mqtt.Connected, now: float) -> None:
        """Births: a new connection may be to a broker that has forgotten everything."""
        connection = self._link.connection
        doubts = None if self._echo is None else self._echo.left_unproven()
        self._echo = None
        if connection is not None:
            connection.subscribe(self._presence.topic)
            if connection.protocol == "3.1.1":
                self._echo = Echo(connection, self._presence.topic, doubts)
        self._retained.begin(broker_keeps=connected.retains)
        self._flow.begin(connected.receive_maximum)
        self._presence.birth_arrived = False
        self._progress_at = now
        self._since_ms = self._wall_ms()
        self._holds.begin(now)
        self._inflight.start_again()
        self._audience.begin()
        self._state_ids.clear()
        self._states.set(messages.STATE_AGENT, self._presence.birth())
        self._states.send_all_again()

    def _answered(self, ack: mqtt.Acked, now: float) -> None:
        self._progress_at = now
        if self._retained.answered(ack):
            return
        if self._answers.answered(ack):
            self._flow.state_answered()
            return
        topic = self._state_ids.pop(ack.mid, None)
        if topic is not None:
            self._flow.state_answered()
            judge_state(self._base, topic, ack, self._states, self._holds, self._presence, now)
            return
        message = self._inflight.answered(ack.mid)
        if message is None:
            log.warning("The broker acknowledged packet %d, which was not under way", ack.mid)
            return
        self._flow.outbox_answered()
        judge_message(self._base, message, ack, self._inflight, self._holds, self._audience, now)

    def _end(self) -> None:
        if self._status.connected:
            self._since_ms = self._wall_ms()
        self._inflight.start_again()
        self._state_ids.clear()
        self._answers.end()
        self._retained.end()

    def _check_progress(self, now: float) -> None:
        if not self._owed():
            self._progress_at = now
        elif now - self._progress_at >= self._stall_seconds and self._link.connection is not None:
            self._flow.stalled()
            self._link.drop(f"no acknowledgement for {self._stall_seconds:.1f} s", now)
            self._end()

    # What goes to the broker

    def _owed(self) -> int:
        """Count the answers that the broker owes."""
        ours = len(self._state_ids) + len(self._answers.packet_ids)
        return ours + self._inflight.unanswered + self._retained.clearing

    def _room(self) -> int:
        return 0 if self._retained.clearing else self._flow.size - self._owed()

    def _outbox_room(self) -> int:
        if self._flow.link_works:
            return self._room()
        # No state may be sent because all of them are held: then one result finds out whether the link answers.
        return int(not self._owed() and self._states.all_sent(self._holds.held))

    def _send(self, connection: mqtt.Connection, now: float) -> None:
        self._subscriptions.step(connection, now, calm="unstable_connection" not in self._link.alarms(now))
        self._inflight.go_back(self._holds.wake(now))
        if self._inflight.empty and now >= self._rescan_at:
            self._inflight.go_back(0)
            self._rescan_at = now + _RESCAN_SECONDS
        # One by one, because only one held topic may be tried.
        while self._room() > 0 and (taken := self._states.take(now, 1, self._holds.held)):
            [(topic, payload)] = taken
            try:
                packet_id = self._publish(connection, topic, payload, retain=True)
            except mqtt.CannotSend as error:
                log.error("%s can never be sent: %s", topic, error)  # noqa: TRY400 - the trace says nothing more
                self._states.answered(topic, taken=True)
            else:
                self._state_ids[packet_id] = topic
                self._holds.sent(topic)
        if self._flow.link_works:
            self._answers.send(connection, self._room())
        for message in self._inflight.take(self._outbox_room(), self._holds, self._audience, now):
            try:
                packet_id = self._publish(connection, message.topic, message.payload, retain=False)
            except mqtt.CannotSend as error:
                self._inflight.refused_for_ever(message, error.reason, str(error))
                self._inflight.go_back(self._holds.try_another(message.topic))
                self._audience.answered(message.topic, heard=False)
            else:
                self._inflight.sent(packet_id, message)
        if not self._owed() and self._flow.link_works and not self._closing:
            self._retained.clear_one(connection, {f"{self._base}/{topic}" for topic in self._states.topics()})

    def _make_will(self, retain: bool) -> mqtt.Will:
        return self._presence.will(retain=retain and self._retained.retain(self._presence.topic))

    def _publish(self, connection: mqtt.Connection, topic: str, payload: bytes, *, retain: bool) -> int:
        full_topic = f"{self._base}/{topic}"
        if self._echo is not None and (topic == messages.STATE_AGENT or not retain):
            self._echo.before_publish(full_topic, payload)
        retain = retain and self._retained.retain(full_topic)
        return connection.publish(full_topic, payload, messages.schema_name(payload), retain=retain)

    # What others see

    def _make_status(self, now: float) -> PublisherStatus:
        return look(
            self._link, self._inflight, self._holds, self._echo, self._doubt, self._audience, self._retained,
            self._subscriptions, answers_lost=self._answers.lost, since_ms=self._since_ms,
            acknowledged=self._acknowledged, now=now,
        )  # fmt: skip
