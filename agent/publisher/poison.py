"""Finds the message that made the broker hang up, if it was one.

Over 3.1.1 a broker can only hang up on a message that it does not like, and many do so on what they deny. The topic of
such a message is left alone for a while like any that was refused; a message that ends the connection again and again
is parked, or nothing behind it would ever leave the box.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent import mqtt
from agent.publisher.flow_control import NEVER

if TYPE_CHECKING:
    from agent.publisher.flow_control import FlowControl
    from agent.publisher.holds import Holds
    from agent.publisher.inflight import Inflight
    from agent.records import OutboxMessage

log = logging.getLogger(__name__)

NO_SUBSCRIBER = "no_subscriber"
REFUSED = {
    mqtt.NOT_AUTHORIZED: "not_authorized",
    mqtt.QUOTA_EXCEEDED: "quota_exceeded",
    mqtt.NO_MATCHING_SUBSCRIBERS: NO_SUBSCRIBER,
}
"""Codes of the broker that mean that it does not take messages on a topic now, and the alarms for them."""
_NO_ANSWER = {
    mqtt.SERVER_BUSY,
    mqtt.SERVER_SHUTTING_DOWN,
    mqtt.SESSION_TAKEN_OVER,
    mqtt.ADMINISTRATIVE_ACTION,
}
"""Reasons of the broker to hang up that have nothing to do with any message."""
_CLOSES_THAT_PARK = 5


def after_hanging_up(
    end: mqtt.Ended,
    inflight: Inflight,
    states: dict[int, str],
    answers: set[int],
    flow: FlowControl,
    holds: Holds,
    now: float,
) -> None:
    """Let the topic rest that is to blame, or park the message.

    `states` are the topics under way, by packet id, `answers` the packet ids of answers to commands: when one of those
    is the oldest, it may be to blame, and it is soon given up.
    """
    results = inflight.under_way
    if end.given_up or end.code in _NO_ANSWER or not flow.link_works or not (results or states):
        return
    tried = holds.hung_up(now)
    if tried is not None:
        row, closes = tried
        for message in results.values():
            if message.row == row and closes >= _CLOSES_THAT_PARK:
                _park(inflight, message, "broker_disconnects", end.text)
        return
    packet_id = min([*results, *states, *answers])  # the oldest: ids only rise, until far more are sent than matter
    if packet_id in answers:
        return
    result = results.get(packet_id)
    topic, row = (states[packet_id], None) if result is None else (result.topic, result.row)
    closes = flow.hung_up(end.code, f"{topic} {row}", alone=len(results) + len(states) + len(answers) == 1)
    if closes and result is not None and end.code in NEVER:
        _park(inflight, result, NEVER[end.code], end.text)
    elif closes:
        log.warning("The broker hangs up on %s: %s; trying it again later", topic, end.text)
        holds.blame(topic, REFUSED.get(end.code or 0, "publish_refused"), row, closes, now)


def _park(inflight: Inflight, message: OutboxMessage, reason: str, detail: str) -> None:
    inflight.answered_by_closing(message)
    inflight.refused_for_ever(message, reason, detail)
