"""What the broker's answers mean for a topic: its messages go on, or it rests for a while."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent import messages, mqtt
from agent.publisher.flow_control import NEVER
from agent.publisher.poison import REFUSED

if TYPE_CHECKING:
    from agent.publisher.audience import Audience
    from agent.publisher.holds import Holds
    from agent.publisher.inflight import Inflight
    from agent.publisher.presence import Presence
    from agent.publisher.states import States
    from agent.records import OutboxMessage

log = logging.getLogger(__name__)


def refuse(holds: Holds, base: str, topic: str, ack: mqtt.Acked, now: float) -> None:
    """Let a topic, which is below `base`, rest whose message the broker did not take."""
    if not holds.held(topic):
        why = ack.text or "nobody subscribes to it"
        log.warning("The broker does not take what is published on %s/%s: %s; trying it again later", base, topic, why)
    holds.refuse(topic, REFUSED.get(ack.code, "publish_refused"), now)


def judge_message(
    base: str, message: OutboxMessage, ack: mqtt.Acked, inflight: Inflight, holds: Holds, audience: Audience, now: float
) -> None:
    """Take the broker's answer to a message of the outbox, whose topic is below `base`."""
    taken = ack.code < mqtt.FAILURE and audience.acknowledged(message.topic, ack.code, now)
    audience.answered(message.topic, heard=taken)
    if taken:
        inflight.acknowledged(message)
        inflight.go_back(holds.accept(message.topic))
    elif ack.code in NEVER:
        inflight.refused_for_ever(message, NEVER[ack.code], ack.text)
        inflight.go_back(holds.try_another(message.topic))
    else:
        inflight.put_back(message)
        refuse(holds, base, message.topic, ack, now)
        holds.keep_back(message.topic, message.row)


def judge_state(
    base: str, topic: str, ack: mqtt.Acked, states: States, holds: Holds, presence: Presence, now: float
) -> None:
    """Take the broker's answer to a state, whose topic is below `base`."""
    taken = ack.code < mqtt.FAILURE
    if taken and topic == messages.STATE_AGENT:
        presence.arrived()
    if ack.code in NEVER:
        log.error("The broker will never take %s/%s: %s", base, topic, ack.text)
        taken = True  # until its value changes
    if taken:
        holds.accept(topic)
    else:
        refuse(holds, base, topic, ack, now)
    states.answered(topic, taken=taken)
