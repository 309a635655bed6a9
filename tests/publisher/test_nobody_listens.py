"""`outbox.hold_until_subscribed`: what nobody would get waits in the outbox until somebody subscribes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.publisher import Publisher
from tests.helpers.broker import ANYBODY, Broker, Subscriber, wait_for
from tests.helpers.packets import PUBLISH, Packets
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    FastClock,
    drain,
    fill,
    in_first_seen_order,
    make_config,
    needs_mosquitto,
    step_until,
)
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.outbox import ListOutbox

pytestmark = needs_mosquitto  # amqtt does not speak MQTT 5


def patient(port: int, outbox: ListOutbox, **mqtt: object) -> Publisher:
    """Make a publisher that holds, whose pauses are short."""
    config = make_config(port, hold_until_subscribed=True, **mqtt)
    return Publisher(config, outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS)


def held(publisher: Publisher) -> bool:
    """Whether it says that something waits for a subscriber."""
    return "no_subscriber" in publisher.status().alarms


def test_results_wait_until_somebody_subscribes_and_come_in_order(broker: Broker, outbox: ListOutbox) -> None:
    """None is given to nobody, an alarm says so, and none is counted as unheard: they are not lost."""
    publisher = patient(broker.port, outbox)
    payloads = fill(outbox, 100)
    step_until(publisher, lambda: held(publisher), "the alarm is raised")
    status = publisher.status()
    assert (status.nobody_listening, status.unheard, status.delivery) == (True, 0, "verified")
    assert "nobody_listening" not in status.alarms
    for _ in range(50):
        publisher.step(0.02)
    assert outbox.acknowledged == []
    with Subscriber(broker.port, "strip-agent/+/event/#") as subscriber:
        drain(publisher, outbox)
        wait_for(lambda: payloads[-1] in subscriber.payloads(EVENT), "the last one")
        assert in_first_seen_order(subscriber.payloads(EVENT)) == payloads
        publisher.step(0.0)
        assert publisher.status().alarms == ()
        assert not publisher.status().nobody_listening
    publisher.close("test")


def test_a_topic_that_nobody_wants_holds_up_no_other(broker: Broker, outbox: ListOutbox) -> None:
    """A subscriber of one camera gets that camera's results while the rest waits; events of any kind are held."""
    publisher = patient(broker.port, outbox)
    with Subscriber(broker.port, EVENT) as subscriber:
        for _ in range(10):
            fill(outbox, 1, topic="event/strip/side")
            fill(outbox, 1, topic="event/alarm")
            fill(outbox, 1)
        step_until(publisher, lambda: len(outbox.pending) == 20, "those of the wanted topic are gone")
        wait_for(lambda: len(set(subscriber.payloads(EVENT))) == 10, "they have arrived")
        assert {message.topic for message in outbox.pending.values()} == {"event/strip/side", "event/alarm"}
        step_until(publisher, lambda: held(publisher), "the alarm is raised")
        with Subscriber(broker.port, "strip-agent/insp1/event/#"):
            drain(publisher, outbox)
    publisher.close("test")


def test_a_broker_that_forgot_everything_gets_nothing_before_its_subscribers_are_back(
    tmp_path: Path, outbox: ListOutbox
) -> None:
    """The outbox of an outage does not go to nobody because the agent was the first to be connected again."""
    with Broker(tmp_path, ANYBODY) as broker:
        publisher = patient(broker.port, outbox)
        with Subscriber(broker.port) as subscriber:
            payloads = fill(outbox, 20)
            drain(publisher, outbox)
            wait_for(lambda: len(set(subscriber.payloads(EVENT))) == 20, "all arrive")
        broker.kill()
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        payloads += fill(outbox, 50)
        broker.start()
        step_until(publisher, lambda: held(publisher), "it is connected again, and nobody else is")
        assert len(outbox.pending) == 50
        with Subscriber(broker.port) as returned:
            drain(publisher, outbox)
            wait_for(lambda: payloads[-1] in returned.payloads(EVENT), "the last one")
            assert in_first_seen_order(returned.payloads(EVENT)) == payloads[20:]
        publisher.close("test")


def test_while_nobody_is_known_to_listen_a_topic_is_tried_with_one_message(broker: Broker, outbox: ListOutbox) -> None:
    """Of a window sent at once the end could reach a subscriber who comes meanwhile, and the beginning nobody."""
    with TcpProxy(broker.port) as proxy:
        proxy.watch = packets = Packets()
        publisher = patient(proxy.port, outbox)
        payloads = fill(outbox, 50)
        step_until(publisher, lambda: held(publisher), "the alarm is raised")
        events = [packet for packet in packets.connections[0] if packet.kind == PUBLISH and packet.topic == EVENT]
        assert {payload for packet in events for payload in payloads if payload in packet.body} == {payloads[0]}
        publisher.close("test")


def test_a_subscriber_that_is_away_and_has_a_session_is_somebody(broker: Broker, outbox: ListOutbox) -> None:
    """The broker keeps it for the session; holding it back as well would help nobody."""
    Subscriber(broker.port, keep_session=True).close()
    publisher = patient(broker.port, outbox)
    fill(outbox, 10)
    drain(publisher, outbox)
    assert not held(publisher)
    publisher.close("test")


def test_stopping_does_not_wait_for_subscribers(broker: Broker, outbox: ListOutbox) -> None:
    """What is held stays in the ledger for the next start."""
    publisher = patient(broker.port, outbox)
    fill(outbox, 10)
    step_until(publisher, lambda: held(publisher), "the alarm is raised")
    with Subscriber(broker.port, "strip-agent/insp1/state/agent") as subscriber:
        publisher.close("stopped", flush_seconds=30.0)
        wait_for(lambda: any(b'"stopped"' in payload for payload in subscriber.payloads()), "it said goodbye")
    assert len(outbox.pending) == 10


def test_where_the_protocol_cannot_tell_an_alarm_says_that_nothing_is_held(broker: Broker, outbox: ListOutbox) -> None:
    """MQTT 3.1.1: better an alarm than a promise that is not kept."""
    config = make_config(broker.port, hold_until_subscribed=True)
    old = config.model_copy(
        update={"mqtt": config.mqtt.model_copy(update={"protocol": "3.1.1"})}
    )  # as after falling back
    publisher = Publisher(old, outbox, jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS)
    fill(outbox, 3)
    drain(publisher, outbox)
    publisher.step(0.0)
    assert "hold_not_possible" in publisher.status().alarms
    publisher.close("test")
