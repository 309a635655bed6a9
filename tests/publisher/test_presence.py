"""Who else has our name, what is said about us, and what a message says of itself."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from agent import mqtt
from agent.messages import AgentState, encode, utc_text
from agent.publisher import Publisher
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.old_broker import OldBroker
from tests.helpers.outbox import ListOutbox
from tests.helpers.publishing import (
    EVENT,
    STATE,
    FastClock,
    connect,
    drain,
    fill,
    make_config,
    make_publisher,
    needs_mosquitto,
    states,
    step_until,
)

if TYPE_CHECKING:
    from tests.helpers.broker import Broker


@needs_mosquitto  # amqtt mixes up retained messages
def test_two_boxes_with_one_name_are_an_alarm(broker: Broker) -> None:
    """They throw each other out. Not every broker says so, but each sees the birth of the other."""
    first = make_publisher(broker.port)
    connect(first)
    step_until(first, lambda: first._presence.birth_arrived, "its birth has arrived")
    second = make_publisher(broker.port)
    connect(second)
    step_until(second, lambda: second._presence.birth_arrived, "its birth has arrived")
    step_until(first, lambda: "session_taken_over" in first.status().alarms, "alarm")
    second.close("test")
    first.close("test")


@needs_mosquitto  # amqtt mixes up retained messages
def test_a_restarted_agent_does_not_take_its_former_self_for_another(broker: Broker) -> None:
    """What the last run left behind, will included, is no alarm."""
    first = make_publisher(broker.port)
    connect(first)
    step_until(first, lambda: first._presence.birth_arrived, "its birth has arrived")
    second = make_publisher(broker.port)
    with Subscriber(broker.port) as subscriber:
        step_until(second, lambda: second._presence.birth_arrived, "its birth has arrived")
        wait_for(lambda: len(states(subscriber, "agent")) >= 2, "will or old birth, and new birth")
        second.step(0.1)
        assert second.status().alarms == ()
    second.close("test")
    first.close("test")


@needs_mosquitto  # amqtt mixes up retained messages
def test_an_agent_that_is_called_offline_while_it_is_online_contradicts(broker: Broker) -> None:
    """The will of an earlier run may come late; SCADA must not show the box as dead until the next restart."""
    late_will = AgentState(
        agent="insp1",
        online=False,
        reason="connection_lost",
        ts=utc_text(0),
        ts_ms=0,
        started_ts=utc_text(0),
        version="",
        connection=0,
    )
    publisher = make_publisher(broker.port)
    step_until(publisher, lambda: publisher._presence.birth_arrived, "its birth has arrived")
    with Subscriber(broker.port) as subscriber:
        subscriber.publish(STATE + "agent", encode(late_will), retain=True)
        step_until(publisher, lambda: len(states(subscriber, "agent")) == 3, "birth, will, and birth again")
        assert [state["online"] for state in states(subscriber, "agent")] == [True, False, True]
        assert publisher.status().alarms == ()
        publisher.close("test")
        wait_for(lambda: len(states(subscriber, "agent")) == 4, "offline at the end")
        assert states(subscriber, "agent")[-1]["online"] is False


def test_a_broker_that_says_session_taken_over_is_believed_and_not_pestered(broker: Broker) -> None:
    """Two boxes must not throw each other out many times a second."""
    takeover = struct.pack("BBBBB", 0x20, 3, 0, 0, 0) + struct.pack("BBBB", 0xE0, 2, mqtt.SESSION_TAKEN_OVER, 0)
    strict = OldBroker(broker.port, takeover)
    clock = FastClock(speed=0.0)
    publisher = Publisher(make_config(strict.port, protocol="5"), ListOutbox(), clock=clock, jitter=lambda: 0.0)
    step_until(publisher, lambda: publisher.status().alarms == ("session_taken_over",), "alarm")
    assert "Session taken over" in publisher.status().last_error
    assert (publisher._link.next_due() or 0.0) - clock() > 4.0
    publisher.close("test")
    strict.close()


@needs_mosquitto
def test_mqtt_5_messages_say_what_they_are(broker: Broker, outbox: ListOutbox) -> None:
    """Content type and schema travel with the message."""
    with Subscriber(broker.port) as subscriber:
        publisher = make_publisher(broker.port, outbox)
        fill(outbox, 1)
        drain(publisher, outbox)
        wait_for(lambda: subscriber.messages(EVENT), "the result")
        (message,) = subscriber.messages(EVENT)
        assert message.content_type == "application/json"
        assert message.user_properties == (("schema", "strip-result/1"),)
        assert (message.qos, message.retain) == (1, False)
        publisher.close("test")
