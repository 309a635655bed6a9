"""Commands that hosts give by writing metrics: NCMD and DCMD, under the same `mqtt.commands` as those in JSON."""

from __future__ import annotations

import logging
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import messages
from agent.control.context import Who
from agent.control.desk import Order
from agent.control.over_mqtt import LARGEST_BYTES, read_request
from agent.control.over_mqtt import MalformedError as MalformedRequest
from agent.messages import Fault
from agent.sparkplug.metrics import PAUSED, REBIRTH, REQUEST, RESCAN, THRESHOLD
from agent.sparkplug.payload import MalformedError, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agent.control.desk import CommandDesk, Ignored
    from agent.mqtt import Received
    from agent.sparkplug.payload import Metric
    from agent.sparkplug.session import Session

log = logging.getLogger(__name__)

OF_THE_NODE = frozenset({REQUEST})
DEVICE_COMMANDS = frozenset({THRESHOLD, PAUSED, RESCAN})
SENDER = "sparkplug"  # a payload does not say who sends it


def take(
    message: Received,
    device: str,
    session: Session,
    may_write: Collection[str],
    commands: Commands | None,
    answer: Callable[[str], None],
) -> bool:
    """Take what a host has written of the node (`device` "") or a device; returns whether it asks for the births.

    `may_write` names the metrics that may be written, `answer` gets what becomes of the rest.
    """
    rebirth = False
    metrics, ignored = _read(message)
    for written in metrics:
        metric = session.with_name(device, written)
        if device == "" and metric.name == REBIRTH:
            rebirth |= metric.value is True
        elif commands is None or metric.name not in may_write or (metric.name in OF_THE_NODE) != (device == ""):
            ignored = "not_allowed"
        else:
            commands.written(device, metric, answer)
    if ignored is not None and commands is not None:
        commands.ignored(ignored)
    return rebirth


def _read(message: Received) -> tuple[tuple[Metric, ...], Ignored | None]:
    """Return what was written, or why that is passed over whatever it is."""
    if message.retain:  # it was left on the broker, and may be years old
        return (), "retained"
    if len(message.payload) > LARGEST_BYTES:
        return (), "too_large"
    try:
        return decode(message.payload).metrics, None
    except MalformedError as error:
        log.warning("What came in on %s is no payload of Sparkplug: %s", message.topic, error)
        return (), "failed"


class Commands:
    """Brings what hosts write to the desk, and the desk's answers back."""

    def __init__(self, desk: CommandDesk) -> None:
        self._desk = desk

    def ignored(self, why: Ignored) -> None:
        """Count a command that was passed over."""
        self._desk.ignore(why)

    def written(self, device: str, metric: Metric, answer: Callable[[str], None]) -> None:
        """Take a metric that a host has written and may write; `answer` gets the JSON of `command-result/1`."""
        self._desk.submit(partial(self._carry_out, device, metric, answer))

    def _carry_out(self, device: str, metric: Metric, answer: Callable[[str], None]) -> None:
        """Do what was asked, in the desk's thread."""
        try:
            order = _order(device, metric)
        except MalformedRequest as error:
            result = self._desk.refuse("", error.request, Fault.MALFORMED, str(error))
        else:
            carried_out = None if order is None else self._desk.ask(order)
            if carried_out is None:
                return
            result = carried_out
        answer(messages.encode(result).decode())


def _order(device: str, metric: Metric) -> Order | None:
    """Make the command that writing a metric means; None where it means nothing (a button that is not pressed).

    Raises MalformedRequest.
    """
    if metric.name == REQUEST:
        if not isinstance(metric.value, str):
            raise MalformedRequest("", f"{REQUEST} is a text with the JSON of command/1, and `command` in it")
        request, arguments = read_request(metric.value.encode())
        name = arguments.pop("command", None)
        if not isinstance(name, str):
            raise MalformedRequest(request.id, "`command` must name the command")
        return Order(name, arguments, Who(request.by, "sparkplug", request.id), request.ts_ms)
    asked: dict[str, Any] = {"camera": device}
    who = Who(SENDER, "sparkplug", secrets.token_hex(8))
    if metric.name == THRESHOLD:
        value = metric.value
        if value is None:
            return Order("set_threshold", asked | {"clear": True}, who)
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        return Order("set_threshold", asked | {"value": number}, who)
    if not isinstance(metric.value, bool):
        raise MalformedRequest("", f"{metric.name} is a Boolean")
    if metric.name == PAUSED:
        return Order("pause" if metric.value else "resume", asked, who)
    return Order("rescan", asked, who) if metric.value else None
