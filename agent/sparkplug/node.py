"""The edge node: one thread that brings the outbox and the states to Sparkplug hosts, over a connection of its own."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from agent import __version__, mqtt
from agent.clock import Lately, now_ms
from agent.errors import Retry
from agent.publisher.echo import Echo
from agent.publisher.link import Link
from agent.publisher.status import Doubt, PublisherStatus
from agent.sparkplug import telling
from agent.sparkplug.bdseq import BdSeq
from agent.sparkplug.commands import take
from agent.sparkplug.delivery import Delivery
from agent.sparkplug.host import PrimaryHost
from agent.sparkplug.known import Known
from agent.sparkplug.metrics import response_metric, writable
from agent.sparkplug.session import Session, death
from agent.sparkplug.status import look
from agent.sparkplug.subscriptions import Subscriptions
from agent.sparkplug.topics import client_id_of, state_topic, topics_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.config import Config
    from agent.sparkplug.commands import Commands
    from agent.sparkplug.delivery import Outbox
    from agent.sparkplug.known import CameraFacts

log = logging.getLogger(__name__)

REBIRTH_SECONDS = 1.0  # who asks again within it is answered by the births that were just sent for that
HOST_SILENT_SECONDS = 120.0  # a host that dies is called offline only after one and a half of its keepalives
_FACTS_SECONDS = 5.0
_ANSWERS = 64
_STALL_KEEPALIVES = 1.5
_OFFLINE_SECONDS = 2.0  # for the goodbye


class EdgeNode:
    """`set_state`, `wake` and `status` may be called from any thread, all else from the one that calls `step`."""

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        *,
        facts: Callable[[], Mapping[str, CameraFacts]] = dict,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
        jitter: Callable[[], float] = random.random,
        stall_seconds: float | None = None,
        file: Path | None = None,
    ) -> None:
        """Prepare; nothing connects before the first step.

        `facts` returns what the ledger knows of each camera, `clock` monotonic seconds, `jitter` 0..1. A batch that is
        not confirmed within `stall_seconds` (None: one and a half keepalives) ends the connection. `file` remembers
        bdSeq (None: nothing does).
        """
        settings = config.mqtt.sparkplug
        self._topics = topics_of(config)
        self._cameras = [camera.name for camera in config.cameras]
        self._aliases = settings.aliases
        self._facts = facts
        self.commands: Commands | None = None  # takes what hosts write
        self._may_write = writable(config.mqtt.commands)
        self._answers: deque[str] = deque(maxlen=_ANSWERS)  # to commands, not sent yet
        self._clock = clock
        self._wall_ms = wall_ms
        self._stall_seconds = stall_seconds or _STALL_KEEPALIVES * config.mqtt.keepalive_seconds
        self._bell = threading.Event()
        self._bd_seq = BdSeq(file)
        self._host = PrimaryHost(settings.primary_host, wall_ms) if settings.primary_host is not None else None
        self._link = Link(
            config.mqtt, client_id_of(config), lambda _retain: self._will(), self._bell.set, jitter,
            answer_seconds=self._stall_seconds,
        )  # fmt: skip
        self._known = Known(__version__, wall_ms(), config.slots, self._may_write)
        self._delivery = Delivery(outbox)
        self._session: Session | None = None
        self._echo: Echo | None = None
        self._doubt = Doubt(clock())
        self._news = False  # a state has changed
        self._facts_are_old = True
        self._facts_at = 0.0  # monotonic: not asked before
        self._rebirth_asked = False
        self._rebirth_at = float("-inf")
        self._host_was_online = False
        self._lately = Lately(HOST_SILENT_SECONDS)
        self._waits_since: float | None = None  # for the primary host
        self._since_ms = wall_ms()
        self._acknowledged = 0
        self._subscriptions = Subscriptions(self._topics, self._may_write)
        self._status = PublisherStatus(since_ms=self._since_ms)
        self.last_step_monotonic = clock()

    def set_state(self, topic: str, payload: bytes) -> None:
        """Take a state of docs/messages.md; it becomes metrics."""
        if self._known.set(topic, payload):
            self._bell.set()

    def wake(self) -> None:
        """Say that the outbox has something new. A lost call costs one poll, never a message."""
        self._delivery.look_again()
        self._bell.set()

    def take_cameras(self, config: Config) -> None:
        """Give births to cameras that are new; those that are gone die when the health says so. For any thread."""
        self._cameras = [camera.name for camera in config.cameras]
        self._bell.set()

    def answer(self, text: str) -> None:
        """Take the answer to a command; any thread may call it."""
        self._answers.append(text)
        self._facts_are_old, self._facts_at = True, 0.0
        self._bell.set()

    def status(self) -> PublisherStatus:
        """Return how it was at the end of the last step."""
        return self._status

    def step(self, timeout_seconds: float) -> None:
        """Wait until there is something to do, at most `timeout_seconds`, and do it. Never blocks on the network."""
        self._bell.wait(self._wait_seconds(timeout_seconds))
        self._bell.clear()
        now = self._clock()
        self._lately.note(now, self._wall_ms())
        slept = now - self.last_step_monotonic > self._stall_seconds / 2
        self.last_step_monotonic = now
        if self._known.look():
            self._news = self._facts_are_old = True
        for event in self._link.step(now):
            self._handle(event, now)
        self._check_progress(now, slept=slept)
        if self._link.connection is not None:
            self._serve(self._link.connection, now)
        recorded = self._delivery.record(now)
        self._acknowledged += recorded
        self._facts_are_old |= recorded > 0
        self._ask_for_facts(now)
        self._status = self._make_status(now)

    def close(self, reason: str, flush_seconds: float = 5.0) -> None:
        """Send what is there for at most `flush_seconds`, say goodbye, and disconnect.

        Call it when nothing steps any more.
        """
        log.debug("the edge node stops: %s", reason)
        self._delivery.look_again()
        deadline = time.monotonic() + flush_seconds
        while self._session is not None and not self._delivery.empty and time.monotonic() < deadline:
            self.step(0.05)
        if self._link.connection is not None:
            self._publish_death(self._link.connection)
        self._link.close(_OFFLINE_SECONDS, with_will=True)
        self._session = None
        self._delivery.record(self._clock())
        self._status = self._make_status(self._clock())

    def _wait_seconds(self, timeout_seconds: float) -> float:
        now = self._clock()
        due = [self._link.next_due(), self._delivery.next_due(now)]
        if self._session is not None and self._session.born and self._delivery.ready(now):
            due.append(now)
        return max(0.0, min([timeout_seconds, *(at - now for at in due if at is not None)]))

    # What the broker says

    def _will(self) -> mqtt.Will:
        return mqtt.Will(self._topics.of("NDEATH"), death(self._bd_seq.reserve(), self._wall_ms()), None, retain=False)

    def _handle(self, event: mqtt.Event, now: float) -> None:
        match event:
            case mqtt.Opened():
                self._bd_seq.used()
            case mqtt.Connected():
                self._begin(now)
            case mqtt.Subscribed():
                self._delivery.confirmed(event.mid)
                self._subscriptions.answered(event)
            case mqtt.Received():
                self._received(event, now)
            case mqtt.Ended():
                self._end()

    def _begin(self, now: float) -> None:
        connection = self._link.connection
        if connection is None:
            return
        if self._host is not None:
            self._host.forget()
        self._subscriptions.begin(connection, *([] if self._host is None else [state_topic(self._host.host)]))
        self._subscriptions.ask_for(self._cameras, connection)
        doubts = None if self._echo is None else self._echo.left_unproven()
        self._echo = Echo(connection, "", doubts)
        self._session = Session(
            connection, self._topics, self._bd_seq.value, self._echo,
            aliases=self._aliases, may_write=self._may_write, wall_ms=self._wall_ms,
        )  # fmt: skip
        self._rebirth_asked = False
        self._since_ms = self._wall_ms()
        self._waits_since = now

    def _end(self) -> None:
        if self._session is not None:
            self._since_ms = self._wall_ms()
        self._session = None
        self._delivery.end()
        self._waits_since = None

    def _received(self, message: mqtt.Received, now: float) -> None:
        if self._echo is not None and self._echo.received(message.topic, message.payload):
            return
        if self._host is not None and message.topic == state_topic(self._host.host):
            was_online = self._host.online
            self._host.heard(message.payload)
            if was_online and not self._host.online:
                self._host_is_gone(now)
            elif not self._host.online and not self._host_was_online:  # perhaps it died before this start
                self._delivery.unheard_since(self._lately.since_ms(self._wall_ms()))
            self._host_was_online |= self._host.online
            return
        device = self._topics.command(message.topic)
        if device is not None and self._session is not None:
            rebirth = take(message, device, self._session, self._may_write, self.commands, self.answer)
            self._rebirth_asked |= rebirth and now - self._rebirth_at >= REBIRTH_SECONDS

    def _host_is_gone(self, now: float) -> None:
        """Die with the primary host: what it may not have heard is sent again when it is back."""
        connection = self._link.connection
        if connection is not None:
            self._publish_death(connection)
        self._link.leave("the primary host is offline", _OFFLINE_SECONDS, now)
        self._end()
        self._delivery.unheard_since(self._lately.since_ms(self._wall_ms()))

    def _publish_death(self, connection: mqtt.Connection) -> None:
        payload = death(self._bd_seq.value, self._wall_ms())
        connection.publish(self._topics.of("NDEATH"), payload, None, retain=False)

    def _check_progress(self, now: float, *, slept: bool) -> None:
        since = self._delivery.waits_since()
        if since is None or self._link.connection is None:
            return
        if slept:  # this process did not run: that says nothing about the broker
            self._delivery.be_patient(now)
        elif now - since >= self._stall_seconds:
            self._link.drop(f"nothing was confirmed for {self._stall_seconds:.1f} s", now)
            self._end()

    # What goes to the broker

    def _serve(self, connection: mqtt.Connection, now: float) -> None:
        session = self._session
        if session is None or (self._host is not None and not self._host.online):
            return
        self._waits_since = None
        self._subscriptions.ask_for(self._cameras, connection)
        try:
            self._give_births(session, now)
            if self._news:
                self._news = False
                telling.tell_changes(session, self._known, self._wall_ms())
            self._send_answers(session)
            telling.bury(session, self._known, self._deliver(session, now))
        except mqtt.CannotSend as error:
            self._link.drop(f"the broker does not take births and states: {error}", now)
            self._end()
        else:
            self._delivery.send_barrier(lambda: connection.subscribe(self._topics.of("NCMD")), now)

    def _give_births(self, session: Session, now: float) -> None:
        again, self._rebirth_asked = self._rebirth_asked, False
        if not session.born:
            self._delivery.start_again(now)
        if again:
            self._rebirth_at = now
        if again or not session.born:
            log.info("Sending births, bdSeq %d", self._bd_seq.value)
        telling.give_births(session, self._known, self._cameras, self._wall_ms(), again=again)

    def _send_answers(self, session: Session) -> None:
        while self._answers:
            try:
                session.tell("", [response_metric(self._answers.popleft(), self._wall_ms())])
            except mqtt.CannotSend as error:
                log.warning("The answer to a command can never be sent: %s", error)

    def _deliver(self, session: Session, now: float) -> set[str]:
        """Send a batch, if one is due; returns of which cameras it told."""
        cameras = set()
        for message, historical in self._delivery.take(now):
            try:
                cameras.add(telling.tell(session, self._known, message, self._wall_ms(), historical=historical))
            except mqtt.CannotSend as error:
                self._delivery.refused_for_ever(message, error.reason, str(error), now)
            except (LookupError, TypeError, ValueError) as error:
                self._delivery.refused_for_ever(message, "payload_invalid", str(error), now)
        return cameras

    def _ask_for_facts(self, now: float) -> None:
        if not self._facts_are_old or now < self._facts_at:
            return
        self._facts_at = now + _FACTS_SECONDS
        try:
            self._known.facts = self._facts()
        except Retry as error:
            log.warning("The cameras' strips cannot be counted: %s", error)
        else:
            self._facts_are_old, self._news = False, True

    def _make_status(self, now: float) -> PublisherStatus:
        return look(
            self._link, self._delivery, self._echo, self._doubt,
            born=self._session is not None and self._session.born,
            waits_since=None if self._host is None else self._waits_since,
            subscription_refused=self._subscriptions.refused,
            since_ms=self._since_ms, acknowledged=self._acknowledged, now=now,
        )  # fmt: skip
