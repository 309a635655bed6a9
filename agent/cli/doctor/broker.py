"""A real login to the broker, as the service does it, and a message that shows whether it may publish there."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import mqtt
from agent.cli.doctor.finding import Finding
from agent.config.certificate import common_name, read_file

if TYPE_CHECKING:
    from agent.config import Config

PROBE_TOPIC = "doctor"  # below the base topic; neither `event/`, `state/` nor `cmd/`, so nobody takes it for a result
ANSWER_SECONDS = 15.0
ECHO_SECONDS = 5.0
GOODBYE_SECONDS = 2.0
_NOBODY = ("ConnectionRefusedError", "TimeoutError", "gaierror", "OSError")
_LOGIN_REFUSED = (mqtt.BAD_USER_OR_PASSWORD, mqtt.NOT_AUTHORIZED)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How an attempt ended: what to tell, and whether an older protocol may do better."""

    finding: Finding
    seems_old: bool = False


def try_broker(config: Config) -> Finding:
    """Log in, publish one small message that is not retained, and leave; say what happened and why.

    It logs in under a name of its own, or it would throw out the service that runs. `note` where nobody is there.
    """
    protocols: tuple[mqtt.ProtocolName, ...] = ("5", "3.1.1")
    if config.mqtt.protocol != "auto":
        protocols = (config.mqtt.protocol,)
    outcome = _try(config, protocols[0])
    for protocol in protocols[1:]:
        if outcome.seems_old:
            second = _try(config, protocol)
            outcome = second if second.finding.level != "bad" or not second.seems_old else outcome
    return outcome.finding


def _try(config: Config, protocol: mqtt.ProtocolName) -> _Outcome:
    attempt = _Attempt(config, protocol)
    try:
        return attempt.result()
    finally:
        attempt.close()


def _shown(config: Config) -> str:
    """Say under which name the box shows itself by its certificate; "" where it shows none."""
    if config.mqtt.tls.cert_file is None:
        return ""
    try:
        name = common_name(read_file(config.mqtt.tls.cert_file))
    except (OSError, ValueError):
        return ""  # what is wrong with the file is said elsewhere
    return f"; this box shows itself as {name!r} (mqtt.tls.cert_file)"


class _Attempt:
    """One connection, one message."""

    def __init__(self, config: Config, protocol: mqtt.ProtocolName) -> None:
        self._rung = threading.Event()
        self._protocol = protocol
        self._where = f"{config.mqtt.host}:{config.mqtt.port}"
        self._topic = f"{config.base_topic}/{PROBE_TOPIC}"
        self._sparkplug_alone = config.mqtt.payload == "sparkplug"
        self._shown = _shown(config)
        self._payload = b'{"schema": "doctor/1", "pid": %d}' % os.getpid()
        client_id = f"{config.mqtt.client_id or config.agent.name}-doctor"
        self._connected = False
        self._accepted_at = 0.0  # monotonic; over 3.1.1 that means nothing yet
        self._connection = mqtt.Connection(config.mqtt, client_id, protocol, None, self._rung.set)

    def result(self) -> _Outcome:
        until = time.monotonic() + ANSWER_SECONDS
        while (left := until - time.monotonic()) > 0:
            self._rung.wait(min(left, ECHO_SECONDS))
            self._rung.clear()
            for event in self._connection.take_events():
                outcome = self._follow(event)
                if outcome is not None:
                    return outcome
            if self._accepted_at and time.monotonic() > self._accepted_at + ECHO_SECONDS:
                break
        return self._silent()

    def _follow(self, event: mqtt.Event) -> _Outcome | None:
        """Go on; the outcome, once there is one."""
        if isinstance(event, mqtt.Connected):
            self._connected = True
            if self._sparkplug_alone:  # on its topics a probe would be a message that hosts take for one
                return self._good("; whether messages arrive, `strip-agent status` says (delivery)")
            if self._protocol != "5":  # over MQTT 5 the acknowledgement says whether it was allowed
                self._connection.subscribe(self._topic)
            self._connection.publish(self._topic, self._payload, "", retain=False)
        elif isinstance(event, mqtt.Ended):
            return self._ended(event)
        elif isinstance(event, mqtt.Acked) and event.code >= mqtt.FAILURE:
            return self._may_not_publish(event.text)
        elif isinstance(event, mqtt.Acked):
            self._accepted_at = time.monotonic()
            return self._good(f" and a message to {self._topic}") if self._protocol == "5" else None
        elif isinstance(event, mqtt.Received) and event.payload == self._payload:
            return self._good(f" and a message to {self._topic}")
        return None

    def _silent(self) -> _Outcome:
        """Tell what it means that nothing more comes."""
        if self._accepted_at:
            detail = (
                f"{self._where} takes the login (MQTT 3.1.1); whether this box may publish cannot be told, as nothing "
                f"came back from {self._topic}: such a broker acknowledges what it throws away; see its access list"
            )
            return _Outcome(Finding("note", "broker", detail))
        if self._connected:
            return _Outcome(Finding("bad", "broker", f"{self._where} takes the login, but does not answer a message"))
        detail = f"{self._where} takes connections, but does not answer"
        return _Outcome(Finding("bad", "broker", detail), seems_old=True)

    def _good(self, what_else: str) -> _Outcome:
        detail = f"{self._where} takes the login (MQTT {self._protocol}){what_else}"
        return _Outcome(Finding("good", "broker", detail))

    def _may_not_publish(self, said: str) -> _Outcome:
        refused = f"{self._where} takes the login, but not a message to {self._topic}: {said}"
        return _Outcome(Finding("bad", "broker", f"{refused}; see its access list{self._shown}"))

    def _ended(self, end: mqtt.Ended) -> _Outcome:
        if self._connected:
            return self._may_not_publish(f"it hung up: {end.text}")
        if end.code in _LOGIN_REFUSED:
            detail = f"{self._where} refuses the login: {end.text}; see mqtt.username and mqtt.password_file"
            return _Outcome(Finding("bad", "broker", detail))
        if end.code is not None:
            old = end.code == mqtt.UNSUPPORTED_PROTOCOL
            return _Outcome(Finding("bad", "broker", f"{self._where} refuses: {end.text}"), seems_old=old)
        if end.reached:
            detail = (
                f"{self._where} hung up without an answer ({end.text}): no MQTT broker, one that expects TLS "
                "(mqtt.tls.enabled), or one that refuses in silence"
            )
            return _Outcome(Finding("bad", "broker", detail), seems_old=True)
        if end.text.startswith(_NOBODY):
            detail = f"{self._where}: nobody is there: {end.text}; results wait in the outbox until it is"
            return _Outcome(Finding("note", "broker", detail))
        return _Outcome(Finding("bad", "broker", f"{self._where}: {end.text}"))

    def close(self) -> None:
        if self._connected and self._connection.alive:
            self._connection.disconnect(GOODBYE_SECONDS)
        self._connection.abort()
