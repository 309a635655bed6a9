"""Topics that a broker refuses, by an answer, by hanging up, or without a word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.publisher import Publisher
from agent.publisher.holds import LONGEST_SECONDS
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.outbox import ListOutbox
from tests.helpers.publishing import (
    EVENT,
    HANGS_UP,
    PATIENT_SECONDS,
    FastClock,
    acl,
    connect,
    cut,
    drain,
    fill,
    in_first_seen_order,
    make_config,
    make_publisher,
    needs_mosquitto,
    step_until,
)
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path


@needs_mosquitto
def test_a_topic_that_is_denied_over_mqtt_5_stays_pending_and_the_others_go_on(
    tmp_path: Path, outbox: ListOutbox
) -> None:
    """Not authorised: alarm, try again later, and all of it arrives in order once the access list is corrected."""
    allowed = ["topic readwrite strip-agent/insp1/state/#", "topic readwrite strip-agent/insp1/event/model/#"]
    with Broker(tmp_path, acl(tmp_path, *allowed, "topic read strip-agent/#")) as broker:
        publisher = make_publisher(broker.port, outbox)
        denied = fill(outbox, 40)
        fill(outbox, 3, topic="event/model/default")
        step_until(publisher, lambda: outbox.acknowledged == [41, 42, 43], "the allowed topic went through")
        assert publisher.status().alarms == ("not_authorized",)
        assert publisher.status().delivery == "refused"
        assert len(outbox.pending) == 40
        broker.reload(acl(tmp_path, "topic readwrite strip-agent/#"))
        with Subscriber(broker.port) as subscriber:
            drain(publisher, outbox)
            wait_for(lambda: subscriber.payloads(EVENT) == denied, "all results, in order")
        assert publisher.status().alarms == ()
        assert publisher.status().delivery == "verified"
        publisher.close("test")


@needs_mosquitto
def test_a_broker_that_hangs_up_on_what_it_denies_gets_the_rest(tmp_path: Path, outbox: ListOutbox) -> None:
    """A denied topic is not tried again at once on each new connection, or nothing else would ever get through."""
    allowed = "topic readwrite strip-agent/insp1/event/strip/side"  # no state at all
    with Broker(tmp_path, acl(tmp_path, allowed, "topic read strip-agent/#") + HANGS_UP) as broker:
        publisher = Publisher(
            make_config(broker.port), outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS
        )
        publisher.set_state("state/health", b"{}")
        for _ in range(20):
            fill(outbox, 1)
            fill(outbox, 1, topic="event/strip/side")
        step_until(publisher, lambda: len(outbox.acknowledged) == 20, "the allowed topic went through")
        assert {message.topic for message in outbox.pending.values()} == {"event/strip/top"}
        assert "not_authorized" in publisher.status().alarms
        broker.reload(acl(tmp_path, "topic readwrite strip-agent/#") + HANGS_UP)
        drain(publisher, outbox)
        publisher.close("test")


@needs_mosquitto
def test_a_broker_that_hangs_up_on_what_it_denies_over_mqtt_3_is_not_called_verified(
    tmp_path: Path, outbox: ListOutbox
) -> None:
    """What did not come back on two connections in a row stays in doubt, until something on its topic does."""
    access = acl(tmp_path, "topic readwrite strip-agent/insp1/state/#", "topic read strip-agent/#")
    with Broker(tmp_path, access + HANGS_UP) as broker:
        clock = FastClock()
        publisher = Publisher(
            make_config(broker.port, protocol="3.1.1"),
            outbox,
            clock=clock,
            jitter=lambda: 0.0,
            stall_seconds=PATIENT_SECONDS,
        )
        for _ in range(2):
            connect(publisher)
            fill(outbox, 1)
            drain(publisher, outbox)
            step_until(publisher, lambda: publisher.status().delivery == "down", "it hung up")
        connect(publisher)
        publisher.step(0.1)
        assert publisher.status().delivery == "unverified"
        clock.forward_seconds = 11.0
        publisher.step(0.1)
        assert publisher.status().alarms == ("delivery_unverified",)
        broker.reload(acl(tmp_path, "topic readwrite strip-agent/#") + HANGS_UP)
        wait_for(lambda: "Reloading config" in broker.log, "mosquitto read the new access list")
        fill(outbox, 1)
        step_until(publisher, lambda: publisher.status().delivery == "verified", "a result came back")
        assert publisher.status().alarms == ()
        publisher.close("test")


@needs_mosquitto
def test_the_time_without_proof_begins_anew_after_an_absence_of_the_broker(tmp_path: Path, outbox: ListOutbox) -> None:
    """A long outage is no doubt about what is delivered after it."""
    access = acl(tmp_path, "topic readwrite strip-agent/insp1/state/#", "topic read strip-agent/#")
    with Broker(tmp_path, access) as broker, TcpProxy(broker.port) as proxy:
        clock = FastClock(speed=1.0)
        publisher = Publisher(
            make_config(proxy.port, protocol="3.1.1"),
            outbox,
            clock=clock,
            jitter=lambda: 0.0,
            stall_seconds=PATIENT_SECONDS,
        )
        for _ in range(2):
            connect(publisher)
            fill(outbox, 1)
            drain(publisher, outbox)
            proxy.refuse = True
            proxy.cut()
            step_until(publisher, lambda: not publisher.status().connected, "it noticed")
            publisher.step(0.0)  # the absence begins
            clock.forward_seconds += 100.0
            publisher.step(0.0)
            assert "broker_unreachable" in publisher.status().alarms
            proxy.refuse = False
            clock.forward_seconds += 100.0
        connect(publisher)
        assert publisher.status().delivery == "unverified"
        assert publisher.status().alarms == ()
        clock.forward_seconds += 11.0
        publisher.step(0.0)
        assert publisher.status().alarms == ("delivery_unverified",)
        publisher.close("test")


def test_the_proxy_finds_what_is_forbidden_in_two_chunks(broker: Broker) -> None:
    """Where the network splits a message must not decide whether a test tests anything."""
    with TcpProxy(broker.port) as proxy:
        proxy.forbidden = b"/state/health"
        proxy.chunk_bytes = 5
        publisher = make_publisher(proxy.port)
        publisher.set_state("state/health", b"{}")
        step_until(publisher, lambda: proxy.accepted >= 2, "the proxy hung up")
        publisher.close("test")


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_broker_that_hangs_up_on_a_topic_without_an_answer_gets_the_rest(
    broker: Broker, outbox: ListOutbox, protocol: str
) -> None:
    """Many brokers only hang up on what they deny. That costs the topic, not the box, and few of its messages."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        clock = FastClock()
        publisher = Publisher(
            make_config(proxy.port, protocol=protocol),
            outbox,
            clock=clock,
            jitter=lambda: 0.0,
            stall_seconds=PATIENT_SECONDS,
        )
        proxy.forbidden = b"/event/strip/side"
        allowed = []
        for _ in range(200):
            allowed += fill(outbox, 1)
            fill(outbox, 1, topic="event/strip/side")
        step_until(publisher, lambda: len(outbox.acknowledged) == 200, "the allowed topic went through")
        assert "publish_refused" in publisher.status().alarms
        assert len(outbox.parked) <= 3 + clock() / (5 * LONGEST_SECONDS), "each hangs up five times, a minute apart"
        assert not any(row % 2 for row in outbox.parked)
        assert len(outbox.pending) + len(outbox.parked) == 200
        proxy.forbidden = b""
        drain(publisher, outbox)
        wait_for(lambda: len(set(subscriber.payloads("event/strip/side"))) == 200 - len(outbox.parked), "the others")
        late = subscriber.payloads("event/strip/side")
        assert in_first_seen_order(late) == sorted(set(late), key=lambda payload: int(json.loads(payload)["seq"]))
        wait_for(lambda: set(subscriber.payloads(EVENT)) == set(allowed), "the allowed ones")
        assert in_first_seen_order(subscriber.payloads(EVENT)) == allowed
        step_until(publisher, lambda: "publish_refused" not in publisher.status().alarms, "the alarm is over")
        publisher.close("test")


@needs_mosquitto
def test_a_broker_that_hangs_up_on_a_state_without_an_answer_gets_all_results(
    broker: Broker, outbox: ListOutbox
) -> None:
    """Results matter more than the tidy display of a state."""
    with TcpProxy(broker.port) as proxy:
        publisher = Publisher(
            make_config(proxy.port), outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS
        )
        proxy.forbidden = b"/state/health"
        publisher.set_state("state/health", b"{}")
        publisher.set_state("state/model/default", b"{}")
        fill(outbox, 100)
        drain(publisher, outbox)
        assert "publish_refused" in publisher.status().alarms
        assert not outbox.parked
        publisher.close("test")


def test_a_broker_that_answers_nothing_and_hangs_up_is_not_blamed_on_a_message(
    broker: Broker, outbox: ListOutbox
) -> None:
    """A broker that is out of order for a night must not make the box set results aside."""
    with TcpProxy(broker.port) as proxy:
        publisher = Publisher(
            make_config(proxy.port), outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS
        )
        proxy.forbidden = b'"connected"'  # in the birth and not in the will
        fill(outbox, 20)
        connections = proxy.accepted
        step_until(publisher, lambda: proxy.accepted - connections >= 12, "it tries again")
        # One that lasted because this machine stood still is a good one, and those before it do not count any more.
        step_until(publisher, lambda: "unstable_connection" in publisher.status().alarms, "the alarm is raised")
        assert "publish_refused" not in publisher.status().alarms
        proxy.forbidden = b""
        drain(publisher, outbox)
        assert not outbox.parked
        publisher.close("test")


@needs_mosquitto  # amqtt mixes up retained messages, which is another alarm
def test_a_connection_that_holds_ends_the_alarm_about_those_before(broker: Broker) -> None:
    """`unstable_connection` is about now, not about last month."""
    with TcpProxy(broker.port) as proxy:
        clock = FastClock(speed=1.0)
        publisher = Publisher(
            make_config(proxy.port), ListOutbox(), clock=clock, jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS
        )
        connect(publisher)
        for _ in range(3):
            cut(publisher, proxy, clock)
        assert publisher.status().alarms == ("unstable_connection",)
        clock.forward_seconds += 31.0
        publisher.step(0.0)
        assert publisher.status().connected
        assert publisher.status().alarms == ()
        publisher.close("test")


@needs_mosquitto
def test_a_denied_state_is_an_alarm_and_does_not_stop_results(tmp_path: Path, outbox: ListOutbox) -> None:
    """Results matter more than the tidy display of a state."""
    access = acl(tmp_path, "topic readwrite strip-agent/insp1/event/#", "topic readwrite strip-agent/insp1/state/agent")
    with Broker(tmp_path, access) as broker:
        publisher = make_publisher(broker.port, outbox)
        publisher.set_state("state/health", b"{}")
        fill(outbox, 5)
        drain(publisher, outbox)
        step_until(publisher, lambda: "not_authorized" in publisher.status().alarms, "alarm")
        publisher.close("test")


@needs_mosquitto
def test_a_denied_topic_over_mqtt_3_is_said_to_be_unverified(tmp_path: Path, outbox: ListOutbox) -> None:
    """The broker acknowledges what it throws away; the agent does not pretend to know better."""
    access = acl(tmp_path, "topic readwrite strip-agent/insp1/state/#", "topic read strip-agent/#")
    with Broker(tmp_path, access) as broker:
        clock = FastClock()
        publisher = Publisher(
            make_config(broker.port, protocol="3.1.1"),
            outbox,
            clock=clock,
            jitter=lambda: 0.0,
            stall_seconds=PATIENT_SECONDS,
        )
        step_until(publisher, lambda: publisher.status().delivery == "verified", "the birth came back")
        fill(outbox, 1)
        drain(publisher, outbox)
        clock.forward_seconds = 11.0
        publisher.step(0.1)
        assert publisher.status().delivery == "unverified"
        assert publisher.status().alarms == ("delivery_unverified",)
        broker.reload(acl(tmp_path, "topic readwrite strip-agent/#"))
        wait_for(lambda: "Reloading config" in broker.log, "mosquitto read the new access list")
        fill(outbox, 1)
        step_until(publisher, lambda: publisher.status().delivery == "verified", "a result came back")
        assert publisher.status().alarms == ()
        publisher.close("test")
