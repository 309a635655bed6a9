"""Commands over MQTT: from a message on `cmd/<name>` to the answer below `rsp/`.

Everything in a message is hostile until it is checked: its size and its flags at once, in the publisher's thread, its
text when its turn comes at the desk. An answer never leaves `rsp/`, wherever a request wants to have it.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from agent import messages, mqtt
from agent.control.arguments import sentence
from agent.control.context import Who
from agent.control.desk import Order
from agent.messages import CommandRequest, Fault
from agent.messages.commands import CommandId
from agent.printable import printable
from agent.publisher.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.control.desk import CommandDesk

LARGEST_BYTES = 8192  # payload, response topic and correlation data together
LARGEST_TOPIC_BYTES = 512
DEEPEST = 4  # an object of lists; whatever goes through the arguments later must not run out of stack
_DETAIL_CHARACTERS = 500
_ENVELOPE = {"schema", "id", "by", "ts_ms"}
_ID: TypeAdapter[str] = TypeAdapter(CommandId)


class MalformedError(ValueError):
    """What came is no command; `request` is its id, "" where it has none that can be used."""

    def __init__(self, request: str, detail: str) -> None:
        super().__init__(detail)
        self.request = request


class MqttCommands:
    """Brings commands from MQTT to the desk, and its answers back."""

    def __init__(self, config: Config, desk: CommandDesk, answer: Callable[[Answer], None]) -> None:
        """`answer` hands an answer to the publisher; any thread may call it."""
        self._base = config.base_topic
        self._topics = {f"{config.base_topic}/{topic}": name for name, topic in topics(config).items()}
        self._desk = desk
        self._send = answer

    def received(self, message: mqtt.Received | mqtt.PassedOver) -> None:
        """Take what came in, or how much could not be taken; in the publisher's thread, so nothing here waits."""
        if isinstance(message, mqtt.PassedOver):
            self._desk.ignore("flood", message.number)
            return
        name = self._topics.get(message.topic)
        if name is None:
            self._desk.ignore("not_allowed")
        elif message.retain:  # it would be done again on every connection
            self._desk.ignore("retained")
        elif len(message.payload) + len(message.response_topic) + len(message.correlation) > LARGEST_BYTES:
            self._desk.ignore("too_large")
        else:
            self._desk.submit(partial(self._carry_out, name, message), name)

    def _carry_out(self, name: str, message: mqtt.Received) -> None:
        """Do what was asked, in the desk's thread."""
        try:
            request, arguments = read_request(message.payload)
        except MalformedError as error:
            result = self._desk.refuse(name, error.request, Fault.MALFORMED, str(error))
        else:
            order = Order(name, arguments, Who(request.by, "mqtt", request.id), request.ts_ms)
            carried_out = self._desk.ask(order)
            if carried_out is None:
                return
            result = carried_out
        topic = answer_topic(self._base, name, message.response_topic)
        self._send(Answer(topic, messages.encode(result), message.correlation))


def topics(config: Config) -> dict[str, str]:
    """Return the topics below the base topic on which commands may be given, by the command's name."""
    return {name: messages.command_topic(name) for name in config.mqtt.commands}


def answer_topic(base: str, name: str, response_topic: str) -> str:
    """Return where the answer goes: to the topic that was asked for, if it lies below `rsp/`, else to `rsp/<name>`."""
    below = f"{base}/{messages.ANSWERS}/"
    fits = response_topic.startswith(below) and len(response_topic) > len(below)
    sound = response_topic.isprintable() and not set(response_topic) & {"+", "#"}
    if fits and sound and len(response_topic.encode()) <= LARGEST_TOPIC_BYTES:
        return response_topic
    return f"{base}/{messages.answer_topic(name)}"


def read_request(payload: bytes) -> tuple[CommandRequest, dict[str, Any]]:
    """Read a request; returns it and the command's arguments. Raises MalformedError, whatever the bytes are."""
    try:
        found = json.loads(payload.decode(), object_pairs_hook=_without_repeats, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise MalformedError("", printable(f"it is no JSON: {error}"[:_DETAIL_CHARACTERS])) from error
    if not isinstance(found, dict):
        raise MalformedError("", "it must be a JSON object")
    if _depth(found) > DEEPEST:
        raise MalformedError("", f"it is nested deeper than {DEEPEST}")
    envelope = {key: value for key, value in found.items() if key in _ENVELOPE}
    try:
        request = CommandRequest.model_validate(envelope)
    except ValidationError as error:
        said = "; ".join(map(sentence, error.errors(include_url=False)))
        raise MalformedError(_usable_id(found), printable(said[:_DETAIL_CHARACTERS])) from error
    return request, {key: value for key, value in found.items() if key not in _ENVELOPE}


def _usable_id(found: dict[str, Any]) -> str:
    try:
        return _ID.validate_python(found.get("id"), strict=True)
    except ValidationError:
        return ""


def _depth(value: Any) -> int:
    """Count how deep something is nested, up to one more than it may be."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        depth += 1
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [item for one in inner for item in (one.values() if isinstance(one, dict) else one)]
    return depth


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of two values for one key nobody could say which one is meant."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
