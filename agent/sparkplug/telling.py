"""What an edge node tells, as a function of what is known: births, changes, results, deaths."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.sparkplug.metrics import event_metric, strip_metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.records import OutboxMessage
    from agent.sparkplug.known import Known
    from agent.sparkplug.session import Session

_RESULTS = ("event/strip/", "replay/strip/")


def give_births(session: Session, known: Known, cameras: Iterable[str], now_ms: int, *, again: bool) -> None:
    """Send the births that are due: the node's first, then those of all cameras whose folder is there."""
    if again or not session.born:
        session.give_birth(known.node_birth(now_ms))
    for camera in cameras:
        if known.is_reachable(camera) and not session.is_alive(camera):
            session.give_birth_to(camera, known.camera_birth(camera, now_ms))


def tell_changes(session: Session, known: Known, now_ms: int) -> None:
    """Send what has another value than the host knows."""
    session.tell_changes("", known.node(now_ms))
    for camera in session.devices:
        session.tell_changes(camera, known.camera(camera, now_ms))


def tell(session: Session, known: Known, message: OutboxMessage, now_ms: int, *, historical: bool) -> str:
    """Send one message of the outbox; returns the camera that it is about, "" for one about the box.

    Raises LookupError, TypeError or ValueError for what is none of our messages, mqtt.CannotSend for what the broker
    does not take.
    """
    values: dict[str, Any] = json.loads(message.payload)
    if not message.topic.startswith(_RESULTS):
        session.tell("", [event_metric(message.payload.decode(), int(values["ts_ms"]), historical=historical)])
        return ""
    camera = message.topic.rsplit("/", 1)[1]
    metrics = strip_metrics(values, now_ms, historical=historical)
    if not session.is_alive(camera):  # its folder is away, or it is configured no more; this is still to be told
        session.give_birth_to(camera, known.camera_birth(camera, now_ms))
    session.tell(camera, metrics)
    return camera


def bury(session: Session, known: Known, told: Collection[str]) -> None:
    """Let the devices die whose folder is away, unless there was something to tell of them just now."""
    for camera in session.devices:
        if camera not in told and not known.is_reachable(camera):
            session.bury(camera)
