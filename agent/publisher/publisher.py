"""The publisher: one thread that brings the outbox and the retained states to the broker.

A message leaves the outbox only when the broker has acknowledged it with a success code. Everything that is not
acknowledged when a connection ends is sent again on the next one, the same bytes in the same order.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from agent import __version__, messages, mqtt
from agent.publisher.holds import Holds
from agent.publisher.link import Link
from agent.publisher.proof import Proof
from agent.publisher.states import States
from agent.publisher.window import Outbox, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.records import OutboxMessage

log = logging.getLogger(__name__)

WINDOW = 16  # messages that may be unanswered: enough to keep a fast link busy, few to send twice after a cut
_RESCAN_SECONDS = 60.0  # an idle outbox is read from its beginning this often, in case a row became pending again
_PROOF_SECONDS = 10.0  # MQTT 3.1.1: nothing came back for so long
_STALL_KEEPALIVES = 1.5
_OFFLINE_SECONDS = 2.0  # for the goodbye

# A message that makes the broker close the connection is found by sending it alone; then it is parked.
_CLOSES_THAT_SUSPECT = 2
_CLOSES_THAT_PARK = 5
_PARKED_AT_ONCE = {
    mqtt.TOPIC_NAME_INVALID: "topic_invalid",
    mqtt.PACKET_TOO_LARGE: "too_large",
    mqtt.PAYLOAD_FORMAT_INVALID: "payload_invalid",
}

_REFUSED = {mqtt.NOT_AUTHORIZED: "not_authorized", mqtt.QUOTA_EXCEEDED: "quota_exceeded"}

Delivery = Literal["verified", "unverified", "refused", "down"]


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """The publisher at the end of its last step."""

    connected: bool = False
    protocol: Literal["", "5", "3.1.1"] = ""
    since_ms: int = 0  # Unix milliseconds: since when connected, or not
    unacked: int = 0  # messages of the outbox that are sent and not answered
    acknowledged: int = 0  # of the outbox, recorded, since the start
    parked: int = 0  # since the start
    delivery: Delivery = "down"
    nobody_listening: bool = False
    last_error: str = ""
    alarms: tuple[str, ...] = ()


class Publisher:
    """`set_state`, `wake` and `status` may be called from any thread, all else from one.

    `run` is a loop around `step`, which anybody may call by hand instead.
    """

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        jitter: Callable[[], float] = random.random,
        stall_seconds: float | None = None,
        on_message: Callable[[str, bytes, bool], None] | None = None,
    ) -> None:
        """Prepare; nothing connects before the first step.

        `clock` is monotonic seconds, `jitter` returns 0..1. A connection that brings no acknowledgement for
        `stall_seconds` (None: one and a half keepalives) is dropped. `on_message(topic, payload, retain)` gets what
        comes in on topics that are not the publisher's own.
        """
        self._agent = config.agent.name
        self._base = config.base_topic
        self._agent_topic = f"{self._base}/{messages.STATE_AGENT}"
        self._born = False  # a birth of this run has reached the broker
        self._birth_arrived = False  # the one of this connection
        self._clock = clock
        self._wall_ms = wall_ms
        self._stall_seconds = stall_seconds or _STALL_KEEPALIVES * config.mqtt.keepalive_seconds
        self._on_message = on_message
        self._started_ms = wall_ms()
        self._bell = threading.Event()
        self._link = Link(
            config.mqtt,
            config.mqtt.client_id or config.agent.name,
            self._will,
            self._bell.set,
            jitter,
            self._stall_seconds,
        )
        self._states = States()
        # First, so that it is the first of the births; each connection begins with a fresh one.
        self._states.set(messages.STATE_AGENT, self._agent_state(online=False, reason="starting"), None)
        self._holds = Holds()
        self._window = Window(outbox)
        self._proof: Proof | None = None
        self._state_ids: dict[int, str] = {}  # packet id -> topic of a state that is under way
        self._size = WINDOW
        self._receive_maximum = WINDOW
        self._progress_at = 0.0  # the last answer, or the last moment when none was owed
        self._unverified_since = clock()
        self._answers = 0  # on this connection, of states too
        self._outbox_answers = 0
        self._suspect = (0, 0)  # row that was the oldest when the broker closed the connection, and how often in a row
        self._rescan_at = 0.0
        self._closing = False
        self._since_ms = self._started_ms
        self._acknowledged = self._parked = 0
        self._nobody_listening = False
        self._status = PublisherStatus(since_ms=self._started_ms)
        self.last_step_monotonic = clock()

    def set_state(self, topic: str, payload: bytes, *, order: int | None = None) -> None:
        """Set a retained state; `topic` is below the base topic.

        A lower `order` than the present value's is ignored: `state/last_strip` only moves to a newer strip.
        """
        if self._states.set(topic, payload, order):
            self._bell.set()

    def wake(self) -> None:
        """Say that the outbox has something new. A lost call costs one poll, never a message."""
        self._bell.set()

    def status(self) -> PublisherStatus:
        """How it was at the end of the last step."""
        return self._status

    def run(self, stop: threading.Event, poll_seconds: float = 1.0) -> None:
        """Step until `stop` is set; call `wake` after setting it."""
        while not stop.is_set():
            self.step(poll_seconds)

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
        self._acknowledged += self._window.record(now)
        self._status = self._make_status(now)

    def close(self, reason: str, flush_seconds: float = 5.0) -> None:
        """Send what is there for at most `flush_seconds`, publish that the agent is offline, and disconnect.

        Call it when `run` has returned. Takes `flush_seconds` and a few seconds at most, less when not connected.
        """
        self._closing = True
        self._step_until(lambda: self._window.empty and self._states.all_sent(self._held), flush_seconds)
        if self._link.connection is not None:
            self._states.set(messages.STATE_AGENT, self._agent_state(online=False, reason=reason), None)
            self._step_until(lambda: self._states.all_sent(self._held), _OFFLINE_SECONDS)
        self._link.close(_OFFLINE_SECONDS)
        self._window.record(self._clock())
        self._status = self._make_status(self._clock())

    def _step_until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._link.connection is not None and not done() and time.monotonic() < deadline:
            self.step(0.05)

    def _wait_seconds(self, timeout_seconds: float) -> float:
        if self._window.more_to_fetch and self._room() > 0:
            return 0.0
        due = [self._link.next_due(), self._window.next_due()]
        if self._link.connection is not None:
            due += [self._states.next_due(), self._holds.next_due()]
        now = self._clock()
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
            case mqtt.Ended():
                self._end(event)

    def _received(self, message: mqtt.Received, now: float) -> None:
        if self._proof is not None:
            self._proof.received(message.topic, message.payload)
        if message.topic == self._agent_topic:
            self._agent_state_seen(message, now)
        elif self._on_message is not None:
            self._on_message(message.topic, message.payload, message.retain)

    def _agent_state_seen(self, message: mqtt.Received, now: float) -> None:
        """Look at what the broker says about this agent, which may be the work of another or of an earlier run."""
        try:
            state = messages.AgentState.model_validate_json(message.payload)
        except ValidationError:
            return
        # A will that an earlier run left behind comes late and live; anything else that is foreign is another agent.
        # Not every broker says that it gave our place to another.
        foreign = state.started_ts != messages.utc_text(self._started_ms)
        if foreign and self._born and (message.retain or state.online):
            self._link.taken_over(now)
        if not state.online and self._birth_arrived and not self._closing:
            self._states.set(messages.STATE_AGENT, self._agent_state(online=True, reason="connected"), None)

    def _begin(self, connected: mqtt.Connected, now: float) -> None:
        """Births: a new connection may be to a broker that has forgotten everything."""
        connection = self._link.connection
        self._proof = None
        if connection is not None:
            connection.subscribe(self._agent_topic)
            if connection.protocol == "3.1.1":
                self._proof = Proof(connection, self._agent_topic)
        self._receive_maximum = connected.receive_maximum
        self._progress_at = self._unverified_since = now
        self._answers = self._outbox_answers = 0
        self._birth_arrived = False
        self._since_ms = self._wall_ms()
        self._holds.clear()
        self._window.start_again()
        self._state_ids.clear()
        self._states.set(messages.STATE_AGENT, self._agent_state(online=True, reason="connected"), None)
        self._states.send_all_again()

    def _answered(self, ack: mqtt.Acked, now: float) -> None:
        self._progress_at = now
        self._answers += 1
        topic = self._state_ids.pop(ack.mid, None)
        if topic is not None:
            self._judge_state(topic, ack, now)
            return
        message = self._window.answered(ack.mid)
        if message is None:
            log.warning("The broker acknowledged packet %d, which was not under way", ack.mid)
            return
        self._outbox_answers += 1
        self._suspect = (0, 0)
        self._size = min(WINDOW, self._size + 1)
        if ack.code < mqtt.FAILURE:
            self._nobody_listening = ack.code == mqtt.NO_MATCHING_SUBSCRIBERS
            self._window.acknowledged(message)
            self._window.go_back(self._holds.accept(message.topic))
        elif ack.code in _PARKED_AT_ONCE:
            self._park(message, _PARKED_AT_ONCE[ack.code], ack.text)
        else:
            self._window.put_back(message)
            self._refuse(message.topic, ack, now)
            self._holds.keep_back(message.topic, message.row)

    def _judge_state(self, topic: str, ack: mqtt.Acked, now: float) -> None:
        never = ack.code in _PARKED_AT_ONCE
        if never:
            log.error("The broker will never take %s: %s", topic, ack.text)
        if topic == messages.STATE_AGENT and ack.code < mqtt.FAILURE:
            self._born = self._birth_arrived = True
        if ack.code < mqtt.FAILURE or never:
            self._holds.accept(topic)
        else:
            self._refuse(topic, ack, now)
        self._states.answered(topic, taken=ack.code < mqtt.FAILURE or never)

    def _refuse(self, topic: str, ack: mqtt.Acked, now: float) -> None:
        if not self._holds.held(topic):
            log.warning("The broker refuses %s/%s: %s; trying it again later", self._base, topic, ack.text)
        self._holds.refuse(topic, _REFUSED.get(ack.code, "publish_refused"), now)

    def _park(self, message: OutboxMessage, reason: str, detail: str) -> None:
        log.error("Message %d on %s can never be sent (%s: %s); set aside", message.row, message.topic, reason, detail)
        self._window.refused_for_ever(message, reason)
        self._parked += 1

    def _end(self, end: mqtt.Ended, *, by_us: bool = False) -> None:
        if not by_us:
            self._look_for_a_culprit(end)
        if self._status.connected:
            self._since_ms = self._wall_ms()
        self._window.start_again()
        self._state_ids.clear()
        self._proof = None

    def _look_for_a_culprit(self, end: mqtt.Ended) -> None:
        """Find the message that makes the broker close the connection each time, or nothing would ever pass it."""
        oldest = self._window.oldest
        if oldest is None or self._outbox_answers or not self._answers:
            return
        alone = self._window.unanswered == 1 and not self._state_ids
        row, times = self._suspect
        times = times + 1 if row == oldest.row else 1
        self._suspect = (oldest.row, times)
        if alone and (times >= _CLOSES_THAT_PARK or end.code in _PARKED_AT_ONCE):
            self._window.answered_by_closing(oldest)
            self._park(oldest, _PARKED_AT_ONCE.get(end.code or 0, "broker_disconnects"), end.text)
            self._suspect = (0, 0)
        elif times >= _CLOSES_THAT_SUSPECT or end.code in _PARKED_AT_ONCE:
            self._size = 1

    def _check_progress(self, now: float) -> None:
        if not (self._window.unanswered or self._state_ids):
            self._progress_at = now
        elif now - self._progress_at >= self._stall_seconds and self._link.connection is not None:
            # Half as much next time: a link that is only slow must get through with less.
            self._size = max(1, self._size // 2)
            self._end(self._link.drop(f"no acknowledgement for {self._stall_seconds:.1f} s", now), by_us=True)

    # What goes to the broker

    def _room(self) -> int:
        return min(self._size, self._receive_maximum) - self._window.unanswered - len(self._state_ids)

    def _held(self, topic: str) -> bool:
        return self._holds.held(topic)

    def _send(self, connection: mqtt.Connection, now: float) -> None:
        self._window.go_back(self._holds.wake(now))
        if self._window.empty and now >= self._rescan_at:
            self._window.go_back(0)
            self._rescan_at = now + _RESCAN_SECONDS
        for topic, payload in self._states.take(now, self._room(), self._held):
            try:
                packet_id = self._publish(connection, topic, payload, retain=True)
            except mqtt.CannotSend as error:
                log.error("%s can never be sent: %s", topic, error)  # noqa: TRY400 - the trace says nothing more
                self._states.answered(topic, taken=True)
            else:
                self._state_ids[packet_id] = topic
                self._holds.sent(topic)
        for message in self._window.take(self._room(), self._holds, now):
            try:
                packet_id = self._publish(connection, message.topic, message.payload, retain=False)
            except mqtt.CannotSend as error:
                self._park(message, error.reason, str(error))
            else:
                self._window.sent(packet_id, message)

    def _publish(self, connection: mqtt.Connection, topic: str, payload: bytes, *, retain: bool) -> int:
        full_topic = f"{self._base}/{topic}"
        if self._proof is not None and (topic == messages.STATE_AGENT or not retain):
            self._proof.before_publish(full_topic, payload)
        return connection.publish(full_topic, payload, messages.schema_name(payload), retain=retain)

    def _will(self) -> mqtt.Will:
        payload = self._agent_state(online=False, reason="connection_lost")
        return mqtt.Will(self._agent_topic, payload, messages.schema_name(payload))

    def _agent_state(self, *, online: bool, reason: str) -> bytes:
        now_ms = self._wall_ms()
        return messages.encode(
            messages.AgentState(
                agent=self._agent,
                online=online,
                reason=reason,
                ts=messages.utc_text(now_ms),
                ts_ms=now_ms,
                started_ts=messages.utc_text(self._started_ms),
                version=__version__,
            )
        )

    # What others see

    def _make_status(self, now: float) -> PublisherStatus:
        connection = self._link.connection
        delivery = self._delivery()
        if delivery != "unverified":
            self._unverified_since = now
        alarms = self._link.alarms(now) | self._holds.alarms
        if self._window.in_trouble:
            alarms.add("outbox_error")
        if now - self._unverified_since >= _PROOF_SECONDS:
            alarms.add("delivery_unverified")
        return PublisherStatus(
            connected=connection is not None,
            protocol="" if connection is None else connection.protocol,
            since_ms=self._since_ms,
            unacked=self._window.unanswered,
            acknowledged=self._acknowledged,
            parked=self._parked,
            delivery=delivery,
            nobody_listening=self._nobody_listening,
            last_error=self._link.last_error,
            alarms=tuple(sorted(alarms)),
        )

    def _delivery(self) -> Delivery:
        if self._link.connection is None:
            return "down"
        if self._holds.alarms:
            return "refused"
        return "verified" if self._proof is None or self._proof.complete else "unverified"
