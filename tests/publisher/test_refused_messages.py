"""Logins and messages that a broker refuses, and its limits."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.publisher import Publisher
from tests.helpers.broker import ANYBODY, Broker, Subscriber, wait_for
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    FastClock,
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

    from tests.helpers.outbox import ListOutbox


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_refused_login_is_an_alarm_until_the_password_is_corrected(
    tmp_path: Path, outbox: ListOutbox, protocol: str
) -> None:
    """The password file is read for every attempt: no restart is needed."""
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "insp1", "right"], check=True, capture_output=True)
    password = tmp_path / "password"
    password.write_text("wrong\n")
    with Broker(tmp_path, f"allow_anonymous false\npassword_file {users}") as broker:
        publisher = make_publisher(
            broker.port, outbox, username="insp1", password_file=str(password), protocol=protocol
        )
        fill(outbox, 3)
        step_until(publisher, lambda: "login_refused" in publisher.status().alarms, "alarm")
        assert "Not authorized" in publisher.status().last_error
        password.write_text("right\n")
        drain(publisher, outbox)
        assert "login_refused" not in publisher.status().alarms
        publisher.close("test")


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path, broker: Broker) -> None:
    """The error says which file, and the agent goes on trying."""
    publisher = make_publisher(broker.port, username="insp1", password_file=str(tmp_path / "absent"))
    step_until(publisher, lambda: publisher.status().last_error, "an attempt")
    assert str(tmp_path / "absent") in publisher.status().last_error
    publisher.close("test")


@needs_mosquitto
def test_a_message_that_is_too_large_for_the_broker_is_parked_and_the_others_go_on(
    tmp_path: Path, outbox: ListOutbox
) -> None:
    """MQTT 5: the broker's limit is known, the message is never sent."""
    with Broker(tmp_path, ANYBODY + "\nmax_packet_size 4000") as broker:
        publisher = make_publisher(broker.port, outbox)
        fill(outbox, 2)
        fill(outbox, 1, size_bytes=5000)
        fill(outbox, 2)
        drain(publisher, outbox)
        assert outbox.parked == {3: "too_large"}
        assert outbox.acknowledged == [1, 2, 4, 5]
        assert publisher.status().parked == 1
        assert publisher.status().connected
        publisher.close("test")


@needs_mosquitto
@pytest.mark.parametrize(("protocol", "limit"), [("3.1.1", "max_packet_size 4000"), ("5", "message_size_limit 4000")])
def test_a_message_that_makes_the_connection_end_each_time_is_found_and_parked(
    tmp_path: Path, outbox: ListOutbox, protocol: str, limit: str
) -> None:
    """Over 3.1.1 a broker can only hang up. One message must not stop all others for ever."""
    with Broker(tmp_path, f"{ANYBODY}\n{limit}") as broker, Subscriber(broker.port, protocol="3.1.1") as subscriber:
        publisher = Publisher(
            make_config(broker.port, protocol=protocol),
            outbox,
            jitter=lambda: 0.0,
            clock=FastClock(),
            stall_seconds=PATIENT_SECONDS,
        )
        publisher.set_state("state/health", b"{}")
        payloads = fill(outbox, 5)
        fill(outbox, 1, size_bytes=5000)
        payloads += fill(outbox, 30)
        drain(publisher, outbox)
        assert outbox.parked == {6: "broker_disconnects"}
        wait_for(lambda: in_first_seen_order(subscriber.payloads(EVENT)) == payloads, "all the others, in order")
        publisher.close("test")


def test_a_topic_that_cannot_be_published_to_is_parked(broker: Broker, outbox: ListOutbox) -> None:
    """A wildcard or a control character would make the broker hang up."""
    for topic in ("event/strip/+", "event/#", "event/strip/\0", "event/strip/\ntop"):
        fill(outbox, 1, topic=topic)
    fill(outbox, 1)
    publisher = make_publisher(broker.port, outbox)
    drain(publisher, outbox)
    assert outbox.parked == dict.fromkeys([1, 2, 3, 4], "topic_invalid")
    assert outbox.acknowledged == [5]
    publisher.close("test")


@needs_mosquitto  # amqtt knows no such limit
def test_the_brokers_limit_of_unanswered_messages_is_kept(tmp_path: Path, outbox: ListOutbox) -> None:
    """A broker that allows two gets two, states included."""
    with Broker(tmp_path, ANYBODY + "\nmax_inflight_messages 2") as broker, TcpProxy(broker.port) as proxy:
        publisher = make_publisher(proxy.port, outbox)
        step_until(publisher, lambda: publisher._flow.link_works, "something was answered: results may be sent")
        proxy.answers_held = True
        fill(outbox, 10)
        step_until(publisher, lambda: publisher.status().unacked, "a result is under way")
        for number in range(20):
            publisher.set_state("state/health", b"%d" % number)
            publisher.step(0.01)
            assert publisher.status().unacked <= 2
            assert publisher._owed() <= 2
        proxy.answers_held = False
        drain(publisher, outbox)
        publisher.close("test")
