"""Keeps one connection to the broker: when to connect, with which protocol, and what its end means."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent import mqtt

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import MqttSection

log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 15.0
_TAKEN_OVER_BACKOFF_SECONDS = 5.0  # two boxes with one name must not throw each other out many times a second
_STABLE_SECONDS = 30.0  # a connection that lived this long was a good one
_SHORT_LIVES_THAT_ALARM = 3
_SILENCES_THAT_MEAN_OLD_BROKER = 3
_FALLBACK_SECONDS = 3600.0  # then MQTT 5, and a retained will, is tried again: brokers get updated
_CONNECT_SECONDS = 120.0  # DNS, TCP and TLS have shorter limits of their own; this is for a resolver that hangs
_ABANDONED_LIMIT = 8  # threads of hung connection attempts that may pile up
_ALARM_SECONDS = 600.0
_UNREACHABLE_SECONDS = 30.0
_LOG_AGAIN_SECONDS = 600.0

_LOGIN_REFUSED = {mqtt.BAD_USER_OR_PASSWORD, mqtt.NOT_AUTHORIZED}


class Link:
    """At most one connection at a time. Used by the publisher's thread only; times are `now`, monotonic seconds."""

    def __init__(
        self,
        settings: MqttSection,
        client_id: str,
        make_will: Callable[[bool], mqtt.Will],
        ring: Callable[[], object],
        jitter: Callable[[], float],
        answer_seconds: float,
    ) -> None:
        """`jitter` returns 0..1; a broker that takes a connection must answer CONNECT within `answer_seconds`.

        `make_will` is told whether the will is to be retained.
        """
        self._settings = settings
        self._client_id = client_id
        self._make_will = make_will
        self._ring = ring
        self._jitter = jitter
        self._answer_seconds = answer_seconds
        self._connection: mqtt.Connection | None = None
        self._abandoned: list[mqtt.Connection] = []
        self._opened = False  # the other side took the TCP connection
        self._online = False  # and the broker took ours
        self._deadline = 0.0  # for the next of these two
        self._connected_at = 0.0
        self._lost_at: float | None = None
        self._retry_at = 0.0
        self._failures = 0  # in a row: attempts that failed, and connections that ended early
        self._short_lives = 0  # connections in a row that ended early
        self._silences = 0  # in a row: CONNECT of MQTT 5 was not answered
        self._knows_mqtt_5 = False
        self._fallback_until = float("-inf")
        self._no_retain_until = float("-inf")
        self._login_refused = False
        self._taken_over_until = float("-inf")
        self._logged = ("", float("-inf"))
        self.last_error = ""

    @property
    def connection(self) -> mqtt.Connection | None:
        """The connection, once the broker has accepted it."""
        return self._connection if self._online else None

    def alarms(self, now: float) -> set[str]:
        """Name what needs attention."""
        lost_at = now if self._lost_at is None else self._lost_at
        found = {
            "login_refused": self._login_refused,
            "session_taken_over": now < self._taken_over_until,
            "unstable_connection": self._short_lives >= _SHORT_LIVES_THAT_ALARM and not self._stable(now),
            "broker_unreachable": not self._online and now - lost_at >= _UNREACHABLE_SECONDS,
        }
        return {alarm for alarm, is_set in found.items() if is_set}

    def next_due(self) -> float | None:
        """When the next attempt is due (monotonic); None while there is a connection or an attempt."""
        return self._retry_at if self._connection is None else None

    def step(self, now: float) -> list[mqtt.Event]:
        """Connect when it is time, and return what happened; `Ended`, always the last, says that the link is gone."""
        if self._lost_at is None and not self._online:
            self._lost_at = now
        if self._connection is None:
            if now >= self._retry_at:
                self._start(now)
            return []
        alive = self._connection.alive
        events: list[mqtt.Event] = []
        for event in self._connection.take_events():
            if isinstance(event, mqtt.Opened):
                self._opened = True
                self._deadline = now + self._answer_seconds
            elif isinstance(event, mqtt.Connected):
                self._connected(now)
            events.append(event)
            if isinstance(event, mqtt.Ended):
                self._ended(event, now)
                return events
        if not alive:
            return [*events, self._ended(mqtt.Ended(self._online, None, "the network thread is gone"), now)]
        if not self._online and now >= self._deadline:
            waited = self._answer_seconds if self._opened else _CONNECT_SECONDS
            return [*events, self.drop(f"waited {waited:.1f} s", now)]
        return events

    def taken_over(self, now: float) -> None:
        """Raise the alarm that another agent of this name is about."""
        if now >= self._taken_over_until:
            log.error("Another agent uses the name of this one; two boxes must not have the same agent.name")
        self._taken_over_until = now + _ALARM_SECONDS

    def drop(self, why: str, now: float) -> mqtt.Ended:
        """End the connection without a goodbye, because it does not do what it should."""
        return self._ended(mqtt.Ended(reached=self._opened, code=None, text=why), now)

    def leave(self, why: str, timeout_seconds: float, now: float) -> None:
        """Say goodbye, the will included, and connect again: that is no fault of the broker."""
        if self._connection is not None:
            self._connection.disconnect(timeout_seconds, with_will=True)
        self._connection, self._online, self._lost_at = None, False, now
        self._retry_at = now + _FIRST_BACKOFF_SECONDS
        log.info("Disconnected from %s: %s", self._where, why)

    def close(self, timeout_seconds: float, *, with_will: bool = False) -> None:
        """Say goodbye, if there is a connection; there will be no other. `with_will`: have the will published, too."""
        if self._connection is not None:
            if self._online:
                self._connection.disconnect(timeout_seconds, with_will=with_will)
            self._connection.abort()
        self._connection, self._online, self._retry_at = None, False, float("inf")

    def _start(self, now: float) -> None:
        self._abandoned = [connection for connection in self._abandoned if connection.alive]
        if len(self._abandoned) >= _ABANDONED_LIMIT:
            self._fail("earlier attempts still hang, probably in the name service", now)
            return
        try:
            self._connection = mqtt.Connection(
                self._settings,
                self._client_id,
                self._protocol(now),
                self._make_will(self._settings.retain and now >= self._no_retain_until),
                self._ring,
            )
        except (OSError, RuntimeError, MemoryError) as error:  # no thread, no descriptor, no memory
            self._fail(f"{type(error).__name__}: {error}", now)
            return
        self._opened = False
        self._deadline = now + _CONNECT_SECONDS

    def _protocol(self, now: float) -> mqtt.ProtocolName:
        if self._settings.protocol != "auto":
            return self._settings.protocol
        return "3.1.1" if now < self._fallback_until else "5"

    def _connected(self, now: float) -> None:
        self._online, self._connected_at = True, now
        self._lost_at = None
        self._failures = self._short_lives  # a broker that was away for long does not make the next cut a long one
        self._silences = 0
        self._login_refused = False
        protocol = "" if self._connection is None else self._connection.protocol
        self._knows_mqtt_5 = protocol == "5"
        log.info("Connected to %s over MQTT %s", self._where, protocol)

    def _ended(self, end: mqtt.Ended, now: float) -> mqtt.Ended:
        if self._connection is not None:
            protocol = self._connection.protocol
            self._connection.abort()
            self._abandoned.append(self._connection)
            self._connection = None
            if self._online:
                self._lost(end, now)
            else:
                self._refused(end, protocol, now)
        return end

    def _stable(self, now: float) -> bool:
        return self._online and now - self._connected_at >= _STABLE_SECONDS

    def _lost(self, end: mqtt.Ended, now: float) -> None:
        stable = self._stable(now)
        self._online = False
        if stable:
            self._failures = self._short_lives = 0
        else:
            self._short_lives += 1
        self._fail(f"connection lost: {end.text}", now)
        if end.code == mqtt.SESSION_TAKEN_OVER:
            self.taken_over(now)
            self._retry_at = max(self._retry_at, now + _TAKEN_OVER_BACKOFF_SECONDS)

    def _refused(self, end: mqtt.Ended, protocol: mqtt.ProtocolName, now: float) -> None:
        no_answer = end.reached and end.code is None
        self._login_refused = end.code in _LOGIN_REFUSED
        self._fail(f"no answer to CONNECT: {end.text}" if no_answer else end.text, now)
        if end.code == mqtt.RETAIN_NOT_SUPPORTED and now >= self._no_retain_until:
            self._no_retain_until = now + _FALLBACK_SECONDS
            self._retry_at = now
        if self._settings.protocol != "auto":
            return
        if protocol == "3.1.1":
            if no_answer or end.code == mqtt.UNSUPPORTED_PROTOCOL:
                self._fallback_until = float("-inf")
            return
        # A broker that knew MQTT 5 before is out of order, not old.
        self._silences += no_answer and not self._knows_mqtt_5
        if end.code == mqtt.UNSUPPORTED_PROTOCOL or self._silences >= _SILENCES_THAT_MEAN_OLD_BROKER:
            log.warning("%s does not seem to know MQTT 5; trying MQTT 3.1.1", self._where)
            self._silences = 0
            self._fallback_until = now + _FALLBACK_SECONDS
            self._retry_at = now

    def _fail(self, error: str, now: float) -> None:
        self.last_error = error
        self._failures += 1
        longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures - 1, 16))
        self._retry_at = now + longest * (0.5 + 0.5 * self._jitter())
        text, logged_at = self._logged
        if error != text or now - logged_at >= _LOG_AGAIN_SECONDS:
            self._logged = (error, now)
            log.warning("No connection to %s: %s; next attempt in %.1f s", self._where, error, self._retry_at - now)

    @property
    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"
