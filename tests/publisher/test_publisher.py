"""The publisher against a real broker: what arrives, in which order, whatever happens to the broker and the link."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent import mqtt
from agent.messages import AgentState, encode, utc_text
from agent.publisher import Publisher
from tests.helpers.broker import ANYBODY, MOSQUITTO, PERSISTENT, Broker, Subscriber, describe, free_port, wait_for
from tests.helpers.outbox import ListOutbox
from tests.helpers.publishing import (
    STALL_SECONDS,
    connect,
    drain,
    fill,
    in_first_seen_order,
    make_config,
    make_publisher,
    step_until,
)
from tests.helpers.repository import ROOT
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENT = "strip-agent/insp1/event/strip/top"
STATE = "strip-agent/insp1/state/"

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason=describe())


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Run a broker that takes everything from everybody."""
    with Broker(tmp_path, ANYBODY) as running:
        yield running


@pytest.fixture
def outbox() -> ListOutbox:
    """Make an empty outbox."""
    return ListOutbox()


def states(subscriber: Subscriber, topic: str) -> list[dict[str, Any]]:
    """List what was published on a state topic, in order."""
    return [json.loads(payload) for payload in subscriber.payloads(STATE + topic)]


# Broker away and back


def test_a_broker_that_is_absent_at_the_start_gets_everything_in_order_later(
    tmp_path: Path, outbox: ListOutbox
) -> None:
    """The service starts without a broker; results wait in the outbox."""
    with Broker(tmp_path, ANYBODY, start=False) as broker:
        publisher = make_publisher(broker.port, outbox)
        payloads = fill(outbox, 50)
        step_until(publisher, lambda: publisher.status().last_error, "the first attempt failed")
        assert "ConnectionRefusedError" in publisher.status().last_error
        assert publisher.status().delivery == "down"
        broker.start()
        with Subscriber(broker.port) as subscriber:
            drain(publisher, outbox)
            wait_for(lambda: subscriber.payloads(EVENT) == payloads, "all results, in order")
            first = subscriber.messages()[0]
            assert first.topic == STATE + "agent", "the birth comes before any result"
            assert json.loads(first.payload)["online"] is True
        publisher.close("test")


@needs_mosquitto  # amqtt keeps nothing for a subscriber
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_broker_that_goes_away_and_comes_back_gets_everything_in_order(
    tmp_path: Path, outbox: ListOutbox, how: str
) -> None:
    """Results of the outage arrive afterwards, in order; repeats carry the same bytes."""
    with Broker(tmp_path, PERSISTENT) as broker, Subscriber(broker.port, keep_session=True) as subscriber:
        publisher = make_publisher(broker.port, outbox)
        payloads = fill(outbox, 200)
        step_until(publisher, lambda: len(outbox.acknowledged) > 20, "some are acknowledged")
        subscriber.expect_reconnect()
        getattr(broker, how)()
        payloads += fill(outbox, 20)
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        assert "connection lost" in publisher.status().last_error
        acknowledged = set(outbox.acknowledged)
        broker.start()
        subscriber.wait_for_subscription()
        drain(publisher, outbox)
        wait_for(lambda: payloads[-1] in subscriber.payloads(EVENT), "the last result")
        received = in_first_seen_order(subscriber.payloads(EVENT))
        # A killed broker forgets what it had acknowledged and not passed on yet, which is not the agent's to keep.
        lost = {row for row, payload in enumerate(payloads, start=1) if payload not in received}
        assert lost <= (acknowledged if how == "kill" and broker.kind == "mosquitto" else set())
        assert received == [payload for row, payload in enumerate(payloads, start=1) if row not in lost]
        publisher.close("test")


def test_a_cut_after_a_long_absence_of_the_broker_is_a_short_one(tmp_path: Path, outbox: ListOutbox) -> None:
    """Attempts that failed while the broker was away do not make the box wait after the next cut."""
    with Broker(tmp_path, ANYBODY, start=False) as broker, TcpProxy(broker.port) as proxy:
        proxy.refuse = True
        clock = FastClock()
        publisher = Publisher(
            make_config(proxy.port, protocol="3.1.1"), outbox, clock=clock, jitter=lambda: 1.0, stall_seconds=60
        )
        step_until(publisher, lambda: proxy.accepted >= 8, "many attempts failed", 30)
        broker.start()
        proxy.refuse = False
        step_until(publisher, lambda: publisher.status().connected, "connected", 30)
        proxy.cut()
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        due = publisher._link.next_due()
        assert due is not None
        assert due - clock() <= 0.5
        publisher.close("test")


@needs_mosquitto  # amqtt mixes up retained messages
def test_births_and_latest_states_are_sent_again_on_every_connection(broker: Broker) -> None:
    """A broker that forgot its retained messages has them again, and old values are not repeated."""
    publisher = make_publisher(broker.port)
    publisher.set_state("state/health", b'{"n":1}')
    connect(publisher)
    broker.restart()
    step_until(publisher, lambda: not publisher.status().connected, "it noticed")
    publisher.set_state("state/health", b'{"n":2}')
    publisher.set_state("state/last_strip/top", b'{"strip":9}', order=9)
    publisher.set_state("state/last_strip/top", b'{"strip":8}', order=8)
    publisher.set_state("state/health", b'{"n":3}')
    with Subscriber(broker.port) as subscriber:
        step_until(publisher, lambda: len(subscriber.messages(STATE)) >= 3, "three states")
        assert [(message.topic, message.payload) for message in subscriber.messages(STATE)[1:]] == [
            (STATE + "health", b'{"n":3}'),
            (STATE + "last_strip/top", b'{"strip":9}'),
        ]
        assert [state["online"] for state in states(subscriber, "agent")] == [True]
        with Subscriber(broker.port) as late:
            wait_for(lambda: len(late.messages(STATE)) == 3, "a late subscriber gets all three")
            assert all(message.retain for message in late.messages())
    publisher.close("test")


def test_a_burst_of_state_changes_is_coalesced(broker: Broker) -> None:
    """An HMI is not flooded by a backlog; the last value always arrives."""
    with Subscriber(broker.port) as subscriber:
        publisher = make_publisher(broker.port)
        connect(publisher)
        for number in range(2000):
            publisher.set_state("state/last_strip/top", b'{"n":%d}' % number, order=number)
            if number % 20 == 0:
                publisher.step(0.0)
        step_until(publisher, lambda: b'{"n":1999}' in subscriber.payloads("last_strip"), "the last one")
        assert len(subscriber.messages("last_strip")) < 50
        publisher.close("test")


# How it ends


def test_a_clean_stop_flushes_and_says_offline_with_the_reason(broker: Broker, outbox: ListOutbox) -> None:
    """SCADA sees that the box was stopped, and why, and the broker does not send the will on top."""
    with Subscriber(broker.port) as subscriber:
        publisher = make_publisher(broker.port, outbox)
        connect(publisher)
        payloads = fill(outbox, 300)  # the publisher has not heard of any of them
        publisher.close("stopped by SIGTERM")
        assert not outbox.pending
        wait_for(lambda: len(subscriber.payloads(EVENT)) == 300, "all results")
        assert subscriber.payloads(EVENT) == payloads
        wait_for(lambda: not states(subscriber, "agent")[-1]["online"], "offline")
        assert [(s["online"], s["reason"]) for s in states(subscriber, "agent")] == [
            (True, "connected"),
            (False, "stopped by SIGTERM"),
        ]
        assert publisher.status().connected is False


def test_a_stop_is_bounded_when_the_broker_does_not_answer(broker: Broker, outbox: ListOutbox) -> None:
    """A dead link does not keep the service from stopping."""
    with TcpProxy(broker.port) as proxy:
        publisher = Publisher(make_config(proxy.port), outbox, stall_seconds=60.0)
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the link works")
        fill(outbox, 100)
        proxy.frozen = True
        started = time.monotonic()
        publisher.close("stop", flush_seconds=0.3)
        assert time.monotonic() - started < 6.0
        assert outbox.pending


def test_a_stop_without_a_broker_is_immediate(outbox: ListOutbox) -> None:
    """Nothing to say goodbye to."""
    fill(outbox, 1)
    publisher = make_publisher(free_port(), outbox)
    publisher.step(0.0)
    started = time.monotonic()
    publisher.close("stop")
    assert time.monotonic() - started < 1.0


def test_a_killed_agent_is_reported_offline_by_the_broker(broker: Broker) -> None:
    """The will: nobody has to guess from silence."""
    code = (
        "import sys; from tests.helpers.publishing import make_publisher\n"
        "publisher = make_publisher(int(sys.argv[1]))\n"
        "while True: publisher.step(1.0)\n"
    )
    with Subscriber(broker.port) as subscriber:
        process = subprocess.Popen([sys.executable, "-c", code, str(broker.port)], cwd=ROOT)
        try:
            wait_for(lambda: states(subscriber, "agent"), "online")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        wait_for(lambda: len(states(subscriber, "agent")) == 2, "the will")
        assert [(s["online"], s["reason"]) for s in states(subscriber, "agent")] == [
            (True, "connected"),
            (False, "connection_lost"),
        ]


# Bad links


def test_a_half_open_link_is_noticed_and_replaced(broker: Broker, outbox: ListOutbox) -> None:
    """No acknowledgement for a while means a new connection, not waiting for TCP's patience."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        publisher = make_publisher(proxy.port, outbox)
        payloads = fill(outbox, 40)
        drain(publisher, outbox)
        proxy.frozen = True
        payloads += fill(outbox, 40)
        started = time.monotonic()
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        assert time.monotonic() - started < 3 * STALL_SECONDS
        assert "no acknowledgement" in publisher.status().last_error
        proxy.frozen = False
        drain(publisher, outbox)
        wait_for(lambda: set(subscriber.payloads(EVENT)) == set(payloads), "all results")
        assert in_first_seen_order(subscriber.payloads(EVENT)) == payloads
        wait_for(lambda: states(subscriber, "agent")[-1]["online"], "online is the last word, not the old will")
        publisher.close("test")


def test_a_half_open_link_is_noticed_also_by_a_loop_that_polls_rarely(broker: Broker, outbox: ListOutbox) -> None:
    """A step that waits for answers ends in time to miss them."""
    with TcpProxy(broker.port) as proxy:
        publisher = make_publisher(proxy.port, outbox)
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the link works")
        proxy.frozen = True
        fill(outbox, 1)
        started = time.monotonic()
        publisher.wake()
        while publisher.status().connected and time.monotonic() < started + 10.0:
            publisher.step(30.0)
        assert time.monotonic() - started < 4 * STALL_SECONDS
        publisher.close("test")


def test_a_step_never_waits_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service that hangs does not stop the heart of the publisher."""
    answer = threading.Event()

    def hang(*_: object, **__: object) -> socket.socket:
        answer.wait(20.0)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", hang)
    publisher = make_publisher(1883)
    started = time.monotonic()
    for _ in range(10):
        publisher.step(0.01)
    assert time.monotonic() - started < 2.0
    assert publisher.last_step_monotonic > started
    answer.set()
    step_until(publisher, lambda: "name resolution" in publisher.status().last_error, "the real error is told")
    publisher.close("test")


def test_what_others_publish_is_handed_on_and_our_own_echo_is_not(broker: Broker, outbox: ListOutbox) -> None:
    """The hook for commands sees no results of this agent."""
    seen: list[str] = []
    publisher = Publisher(
        make_config(broker.port, protocol="3.1.1"),
        outbox,
        on_message=lambda topic, _payload, _retain: seen.append(topic),
    )
    fill(outbox, 5)
    drain(publisher, outbox)
    step_until(publisher, lambda: publisher.status().delivery == "verified", "the echo is here")
    connection = publisher._link.connection
    assert connection is not None
    connection.subscribe("strip-agent/insp1/cmd/rescan")
    with Subscriber(broker.port) as other:
        other.publish("strip-agent/insp1/cmd/rescan", b"{}", retain=True)  # the subscription may come later
        step_until(publisher, lambda: seen, "the command")
    assert seen == ["strip-agent/insp1/cmd/rescan"]
    publisher.close("test")


def test_lost_acknowledgements_make_repeats_with_the_same_bytes(broker: Broker, outbox: ListOutbox) -> None:
    """At least once: a repeat can be recognised by its id because nothing in it has changed."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        publisher = make_publisher(proxy.port, outbox)
        connect(publisher)
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the birth is acknowledged")
        proxy.answers_dropped = True
        payloads = fill(outbox, 30)
        step_until(publisher, lambda: len(subscriber.payloads(EVENT)) >= 16, "a window is sent")
        assert len(subscriber.payloads(EVENT)) == 16, "and no more than a window"
        assert len(outbox.pending) == 30, "nothing is done that was not acknowledged"
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        proxy.answers_dropped = False
        drain(publisher, outbox)
        wait_for(lambda: len(subscriber.payloads(EVENT)) >= 46, "the window was sent twice")
        received = subscriber.payloads(EVENT)
        assert in_first_seen_order(received) == payloads
        assert len(received) == 46
        publisher.close("test")


@needs_mosquitto  # amqtt loses what it has acknowledged
def test_cuts_at_any_moment_lose_nothing_and_keep_the_order(broker: Broker, outbox: ListOutbox) -> None:
    """Twelve cuts in the middle of a stream."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        publisher = Publisher(make_config(proxy.port), outbox, jitter=lambda: 0.0, clock=FastClock(), stall_seconds=60)
        payloads = fill(outbox, 600)
        for cut in range(12):
            done = 40 * (cut + 1)
            step_until(publisher, lambda done=done: len(outbox.acknowledged) >= done, "some more")  # type: ignore[misc]
            proxy.cut()
        drain(publisher, outbox)
        wait_for(lambda: set(subscriber.payloads(EVENT)) == set(payloads), "all results")
        assert in_first_seen_order(subscriber.payloads(EVENT)) == payloads
        assert outbox.acknowledged == sorted(set(outbox.acknowledged))
        assert "unstable_connection" in publisher.status().alarms
        publisher.close("test")


def test_a_link_that_carries_one_byte_at_a_time_works(broker: Broker, outbox: ListOutbox) -> None:
    """Packets are put together however they arrive."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        proxy.chunk_bytes = 1
        publisher = make_publisher(proxy.port, outbox)
        payloads = fill(outbox, 20, size_bytes=200)
        drain(publisher, outbox)
        wait_for(lambda: subscriber.payloads(EVENT) == payloads, "all results, once, in order")
        publisher.close("test")


def test_a_link_that_is_too_slow_for_a_window_gets_through_with_less(broker: Broker, outbox: ListOutbox) -> None:
    """A window that does not fit into the time-out is halved until it does."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        proxy.chunk_bytes, proxy.chunk_seconds = 512, 0.05  # about 8 kB/s: a window of 16 takes over 3 seconds
        publisher = make_publisher(proxy.port, outbox)
        connect(publisher)
        proxy.answers_held = True
        payloads = fill(outbox, 16, size_bytes=2000)
        step_until(publisher, lambda: not publisher.status().connected, "given up once")
        proxy.answers_held = False
        drain(publisher, outbox, seconds=40)
        wait_for(lambda: set(subscriber.payloads(EVENT)) == set(payloads), "all results")
        publisher.close("test")


def test_a_broker_that_takes_connections_and_says_nothing_is_given_up(outbox: ListOutbox) -> None:
    """A listener whose program hangs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publisher = make_publisher(silent.getsockname()[1], outbox)
        step_until(publisher, lambda: publisher.status().last_error, "given up", seconds=3 * STALL_SECONDS)
        assert publisher.status().last_error.startswith("no answer to CONNECT")
        publisher.close("test")


def test_a_dead_network_thread_is_replaced(broker: Broker, outbox: ListOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kills it, the connection is built again and nothing is lost."""
    with Subscriber(broker.port) as subscriber:
        publisher = make_publisher(broker.port, outbox)
        connect(publisher)
        connection = publisher._link.connection
        assert connection is not None
        monkeypatch.setattr(connection._client, "loop_misc", _raise_memory_error)
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        assert "MemoryError" in publisher.status().last_error
        payloads = fill(outbox, 5)
        drain(publisher, outbox)
        wait_for(lambda: subscriber.payloads(EVENT) == payloads, "all results")
        publisher.close("test")


def _raise_memory_error(*_: object) -> None:
    raise MemoryError


def test_an_acknowledgement_that_is_faster_than_publish_counts(
    broker: Broker, outbox: ListOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may answer before the call that sent the message has returned."""
    publisher = make_publisher(broker.port, outbox)
    connect(publisher)
    publish = mqtt.Connection.publish

    def slow_publish(connection: mqtt.Connection, *arguments: Any, **options: Any) -> int:
        before = len(connection._listener.events)
        packet_id = publish(connection, *arguments, **options)
        wait_for(lambda: len(connection._listener.events) > before, "the answer is here already")
        return packet_id

    monkeypatch.setattr(mqtt.Connection, "publish", slow_publish)
    fill(outbox, 5)
    drain(publisher, outbox)
    assert outbox.acknowledged == [1, 2, 3, 4, 5]
    publisher.close("test")


# What a broker refuses


def _acl(folder: Path, *lines: str) -> str:
    file = folder / "acl"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return f"allow_anonymous true\nacl_file {file}"


@needs_mosquitto
def test_a_topic_that_is_denied_over_mqtt_5_stays_pending_and_the_others_go_on(
    tmp_path: Path, outbox: ListOutbox
) -> None:
    """Not authorised: alarm, try again later, and all of it arrives in order once the access list is corrected."""
    allowed = ["topic readwrite strip-agent/insp1/state/#", "topic readwrite strip-agent/insp1/event/model/#"]
    with Broker(tmp_path, _acl(tmp_path, *allowed, "topic read strip-agent/#")) as broker:
        publisher = make_publisher(broker.port, outbox)
        denied = fill(outbox, 40)
        fill(outbox, 3, topic="event/model/default")
        step_until(publisher, lambda: outbox.acknowledged == [41, 42, 43], "the allowed topic went through")
        assert publisher.status().alarms == ("not_authorized",)
        assert publisher.status().delivery == "refused"
        assert len(outbox.pending) == 40
        broker.reload(_acl(tmp_path, "topic readwrite strip-agent/#"))
        with Subscriber(broker.port) as subscriber:
            drain(publisher, outbox)
            wait_for(lambda: subscriber.payloads(EVENT) == denied, "all results, in order")
        assert publisher.status().alarms == ()
        assert publisher.status().delivery == "verified"
        publisher.close("test")


# With it mosquitto 2.0 ends the connection when it has answered a message that it denies.
HANGS_UP = "\nmax_queued_messages 0"


@needs_mosquitto
def test_a_broker_that_hangs_up_on_what_it_denies_gets_the_rest(tmp_path: Path, outbox: ListOutbox) -> None:
    """A denied topic is not tried again at once on each new connection, or nothing else would ever get through."""
    allowed = "topic readwrite strip-agent/insp1/event/strip/side"  # no state at all
    with Broker(tmp_path, _acl(tmp_path, allowed, "topic read strip-agent/#") + HANGS_UP) as broker:
        publisher = Publisher(
            make_config(broker.port), outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=STALL_SECONDS * 20
        )
        publisher.set_state("state/health", b"{}")
        for _ in range(20):
            fill(outbox, 1)
            fill(outbox, 1, topic="event/strip/side")
        step_until(publisher, lambda: len(outbox.acknowledged) == 20, "the allowed topic went through", 30)
        assert {message.topic for message in outbox.pending.values()} == {"event/strip/top"}
        assert "not_authorized" in publisher.status().alarms
        broker.reload(_acl(tmp_path, "topic readwrite strip-agent/#") + HANGS_UP)
        drain(publisher, outbox)
        publisher.close("test")


@needs_mosquitto
def test_a_broker_that_hangs_up_on_what_it_denies_over_mqtt_3_is_not_called_verified(
    tmp_path: Path, outbox: ListOutbox
) -> None:
    """What did not come back on two connections in a row stays in doubt, until something on its topic does."""
    acl = _acl(tmp_path, "topic readwrite strip-agent/insp1/state/#", "topic read strip-agent/#")
    with Broker(tmp_path, acl + HANGS_UP) as broker:
        clock = FastClock()
        publisher = Publisher(
            make_config(broker.port, protocol="3.1.1"), outbox, clock=clock, jitter=lambda: 0.0, stall_seconds=60
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
        broker.reload(_acl(tmp_path, "topic readwrite strip-agent/#") + HANGS_UP)
        wait_for(lambda: "Reloading config" in broker.log, "mosquitto read the new access list")
        fill(outbox, 1)
        step_until(publisher, lambda: publisher.status().delivery == "verified", "a result came back")
        assert publisher.status().alarms == ()
        publisher.close("test")


@needs_mosquitto
def test_the_time_without_proof_begins_anew_after_an_absence_of_the_broker(tmp_path: Path, outbox: ListOutbox) -> None:
    """A long outage is no doubt about what is delivered after it."""
    acl = _acl(tmp_path, "topic readwrite strip-agent/insp1/state/#", "topic read strip-agent/#")
    with Broker(tmp_path, acl) as broker, TcpProxy(broker.port) as proxy:
        clock = FastClock(speed=1.0)
        publisher = Publisher(
            make_config(proxy.port, protocol="3.1.1"), outbox, clock=clock, jitter=lambda: 0.0, stall_seconds=60
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
        publisher = Publisher(
            make_config(proxy.port, protocol=protocol), outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=60
        )
        proxy.forbidden = b"/event/strip/side"
        allowed = []
        for _ in range(200):
            allowed += fill(outbox, 1)
            fill(outbox, 1, topic="event/strip/side")
        step_until(publisher, lambda: len(outbox.acknowledged) == 200, "the allowed topic went through", 40)
        assert "publish_refused" in publisher.status().alarms
        assert len(outbox.parked) <= 3
        assert not any(row % 2 for row in outbox.parked)
        assert len(outbox.pending) + len(outbox.parked) == 200
        proxy.forbidden = b""
        drain(publisher, outbox)
        wait_for(lambda: len(set(subscriber.payloads("event/strip/side"))) == 200 - len(outbox.parked), "the others")
        late = subscriber.payloads("event/strip/side")
        assert in_first_seen_order(late) == sorted(late, key=lambda payload: int(json.loads(payload)["seq"]))
        assert in_first_seen_order(subscriber.payloads(EVENT)) == allowed
        step_until(publisher, lambda: "publish_refused" not in publisher.status().alarms, "the alarm is over")
        publisher.close("test")


@needs_mosquitto
def test_a_broker_that_hangs_up_on_a_state_without_an_answer_gets_all_results(
    broker: Broker, outbox: ListOutbox
) -> None:
    """Results matter more than the tidy display of a state."""
    with TcpProxy(broker.port) as proxy:
        publisher = Publisher(make_config(proxy.port), outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=60)
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
        publisher = Publisher(make_config(proxy.port), outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=60)
        proxy.forbidden = b'"connected"'  # in the birth and not in the will
        fill(outbox, 20)
        connections = proxy.accepted
        step_until(publisher, lambda: proxy.accepted - connections >= 12, "it tries again", 60)
        assert "unstable_connection" in publisher.status().alarms
        assert "publish_refused" not in publisher.status().alarms
        proxy.forbidden = b""
        drain(publisher, outbox)
        assert not outbox.parked
        publisher.close("test")


@needs_mosquitto  # amqtt mixes up retained messages, which is another alarm
def test_a_connection_that_holds_ends_the_alarm_about_those_before(broker: Broker) -> None:
    """`unstable_connection` is about now, not about last month."""
    with TcpProxy(broker.port) as proxy:
        clock = FastClock()
        publisher = Publisher(make_config(proxy.port), ListOutbox(), clock=clock, jitter=lambda: 0.0, stall_seconds=60)
        for _ in range(3):
            connect(publisher)
            proxy.cut()
            step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        connect(publisher)
        assert publisher.status().alarms == ("unstable_connection",)
        clock.forward_seconds = 31.0
        publisher.step(0.0)
        assert publisher.status().connected
        assert publisher.status().alarms == ()
        publisher.close("test")


@needs_mosquitto
def test_a_denied_state_is_an_alarm_and_does_not_stop_results(tmp_path: Path, outbox: ListOutbox) -> None:
    """Results matter more than the tidy display of a state."""
    acl = _acl(tmp_path, "topic readwrite strip-agent/insp1/event/#", "topic readwrite strip-agent/insp1/state/agent")
    with Broker(tmp_path, acl) as broker:
        publisher = make_publisher(broker.port, outbox)
        publisher.set_state("state/health", b"{}")
        fill(outbox, 5)
        drain(publisher, outbox)
        step_until(publisher, lambda: publisher.status().alarms == ("not_authorized",), "alarm")
        publisher.close("test")


@needs_mosquitto
def test_a_denied_topic_over_mqtt_3_is_said_to_be_unverified(tmp_path: Path, outbox: ListOutbox) -> None:
    """The broker acknowledges what it throws away; the agent does not pretend to know better."""
    acl = _acl(tmp_path, "topic readwrite strip-agent/insp1/state/#", "topic read strip-agent/#")
    with Broker(tmp_path, acl) as broker:
        clock = FastClock()
        publisher = Publisher(
            make_config(broker.port, protocol="3.1.1"), outbox, clock=clock, jitter=lambda: 0.0, stall_seconds=60
        )
        step_until(publisher, lambda: publisher.status().delivery == "verified", "the birth came back")
        fill(outbox, 1)
        drain(publisher, outbox)
        clock.forward_seconds = 11.0
        publisher.step(0.1)
        assert publisher.status().delivery == "unverified"
        assert publisher.status().alarms == ("delivery_unverified",)
        broker.reload(_acl(tmp_path, "topic readwrite strip-agent/#"))
        wait_for(lambda: "Reloading config" in broker.log, "mosquitto read the new access list")
        fill(outbox, 1)
        step_until(publisher, lambda: publisher.status().delivery == "verified", "a result came back")
        assert publisher.status().alarms == ()
        publisher.close("test")


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
        step_until(publisher, lambda: publisher.status().alarms == ("login_refused",), "alarm")
        assert "Not authorized" in publisher.status().last_error
        password.write_text("right\n")
        drain(publisher, outbox)
        assert publisher.status().alarms == ()
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
            make_config(broker.port, protocol=protocol), outbox, jitter=lambda: 0.0, clock=FastClock(), stall_seconds=60
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


@needs_mosquitto
def test_a_result_that_nobody_listens_to_is_acknowledged_and_that_is_said(broker: Broker, outbox: ListOutbox) -> None:
    """The broker has it; that no one subscribes is a hint for the person who sets it up."""
    publisher = make_publisher(broker.port, outbox)
    fill(outbox, 1)
    drain(publisher, outbox)
    assert publisher.status().nobody_listening
    with Subscriber(broker.port):
        fill(outbox, 1)
        drain(publisher, outbox)
    assert not publisher.status().nobody_listening
    publisher.close("test")


@needs_mosquitto
def test_the_brokers_limit_of_unanswered_messages_is_kept(tmp_path: Path, outbox: ListOutbox) -> None:
    """A broker that allows two gets two, states included."""
    with Broker(tmp_path, ANYBODY + "\nmax_inflight_messages 2") as broker, TcpProxy(broker.port) as proxy:
        publisher = make_publisher(proxy.port, outbox)
        connect(publisher)
        fill(outbox, 10)
        proxy.answers_held = True
        for number in range(20):
            publisher.set_state("state/health", b"%d" % number)
            publisher.step(0.01)
            assert publisher.status().unacked <= 2
            assert publisher._room() >= 0
        proxy.answers_held = False
        drain(publisher, outbox)
        publisher.close("test")


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
    publisher = make_publisher(strict.port, protocol="5")
    step_until(publisher, lambda: publisher.status().alarms == ("session_taken_over",), "alarm")
    assert "Session taken over" in publisher.status().last_error
    assert (publisher._link.next_due() or 0.0) - time.monotonic() > 4.0
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


# Older brokers


class OldBroker:
    """Answers every CONNECT of MQTT 5 as old brokers do, and passes 3.1.1 on to a real one."""

    def __init__(self, target_port: int, answer: bytes) -> None:
        self.versions: list[int] = []
        self._answer = answer
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connect_packet = connection.recv(4096)
            version = connect_packet[connect_packet.index(b"MQTT") + 4]
            self.versions.append(version)
            if version == 5:
                connection.sendall(self._answer)
                connection.close()
            else:
                threading.Thread(target=self._pass_on, args=(connection, connect_packet), daemon=True).start()

    def _pass_on(self, connection: socket.socket, first: bytes) -> None:
        with connection, socket.create_connection(("127.0.0.1", self._target_port)) as broker:
            broker.sendall(first)
            back = threading.Thread(target=_copy, args=(broker, connection), daemon=True)
            back.start()
            _copy(connection, broker)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        pytest.param(struct.pack("BBBB", 0x20, 2, 0, 1), 1, id="unacceptable protocol version, as 3.1.1 says it"),
        pytest.param(struct.pack("BBBBB", 0x20, 3, 0, 0x84, 0), 1, id="unsupported protocol version, as 5 says it"),
        pytest.param(b"", 3, id="closed without an answer"),
    ],
)
def test_a_broker_that_does_not_know_mqtt_5_is_spoken_to_in_3_1_1(
    broker: Broker, outbox: ListOutbox, answer: bytes, attempts: int
) -> None:
    """`protocol: auto` finds out by itself; one lost connection alone is no reason."""
    old = OldBroker(broker.port, answer)
    config = make_config(old.port, protocol="auto")
    publisher = Publisher(config, outbox, jitter=lambda: 0.0, clock=FastClock(), stall_seconds=60)
    payloads = fill(outbox, 10)
    with Subscriber(broker.port, protocol="3.1.1") as subscriber:
        drain(publisher, outbox)
        wait_for(lambda: subscriber.payloads(EVENT) == payloads, "all results")
    assert old.versions == [5] * attempts + [4]
    assert publisher.status().protocol == "3.1.1"
    step_until(publisher, lambda: publisher.status().delivery == "verified", "messages come back")
    publisher.close("test")
    old.close()


def test_a_refused_mqtt_5_stays_refused_when_it_is_demanded(broker: Broker) -> None:
    """`protocol: 5` means 5."""
    old = OldBroker(broker.port, struct.pack("BBBB", 0x20, 2, 0, 1))
    publisher = Publisher(make_config(old.port, protocol="5"), ListOutbox(), jitter=lambda: 0.0, clock=FastClock())
    step_until(publisher, lambda: len(old.versions) >= 5, "some attempts")
    assert set(old.versions) == {5}
    assert "Unsupported protocol version" in publisher.status().last_error
    publisher.close("test")
    old.close()


def test_amqtt_gets_and_passes_on_everything(tmp_path: Path, outbox: ListOutbox) -> None:
    """The broker of the demo where mosquitto is not installed; it answers MQTT 5 with silence."""
    pytest.importorskip("amqtt")
    with Broker(tmp_path, kind="amqtt") as broker, Subscriber(broker.port, protocol="3.1.1") as subscriber:
        publisher = make_publisher(broker.port, outbox, protocol="auto")
        payloads = fill(outbox, 100)
        drain(publisher, outbox)
        wait_for(lambda: subscriber.payloads(EVENT) == payloads, "all results")
        assert publisher.status().protocol == "3.1.1"
        step_until(publisher, lambda: publisher.status().delivery == "verified", "messages come back")
        publisher.close("test")
        wait_for(lambda: not states(subscriber, "agent")[-1]["online"], "offline")


# The box's own trouble


def test_an_outbox_that_fails_does_not_stop_the_publisher(broker: Broker, outbox: ListOutbox) -> None:
    """A full disk: alarm, states go on, and nothing is lost or repeated once there is space."""
    with Subscriber(broker.port) as subscriber:
        publisher = make_publisher(broker.port, outbox)
        connect(publisher)
        payloads = fill(outbox, 50)
        step_until(publisher, lambda: publisher.status().unacked > 0, "some are under way")
        outbox.broken = True
        step_until(publisher, lambda: "outbox_error" in publisher.status().alarms, "alarm")
        publisher.set_state("state/health", b"still here")
        step_until(publisher, lambda: b"still here" in subscriber.payloads("health"), "states go on")
        assert len(outbox.pending) == 50
        outbox.broken = False
        drain(publisher, outbox)
        assert publisher.status().alarms == ()
        wait_for(lambda: len(subscriber.payloads(EVENT)) >= 50, "all results")
        assert subscriber.payloads(EVENT) == payloads, "in order, and none twice: it knew what was acknowledged"
        publisher.close("test")


def test_a_row_that_becomes_pending_again_is_found(broker: Broker, outbox: ListOutbox) -> None:
    """Disk is the queue: nothing depends on the publisher's memory of where it was."""
    clock = FastClock()
    publisher = Publisher(make_config(broker.port), outbox, clock=clock, stall_seconds=60)
    fill(outbox, 3)
    message = outbox.pending[2]
    drain(publisher, outbox)
    outbox.acknowledged.remove(2)
    outbox.pending[2] = message
    clock.forward_seconds = 70.0
    drain(publisher, outbox)
    publisher.close("test")


def test_acknowledgements_are_recorded_in_batches(broker: Broker, outbox: ListOutbox) -> None:
    """A backlog of a day is drained without a transaction for each message."""
    publisher = make_publisher(broker.port, outbox)
    fill(outbox, 5000)
    drain(publisher, outbox, seconds=60)
    assert outbox.transactions < 5000
    assert publisher.status().acknowledged == 5000
    publisher.close("test")


def test_wake_ends_the_wait(broker: Broker, outbox: ListOutbox) -> None:
    """A new result is sent at once, not at the next poll."""
    publisher = make_publisher(broker.port, outbox)
    connect(publisher)
    done = threading.Event()

    def step_rarely() -> None:
        while not done.is_set():
            publisher.step(30.0)

    thread = threading.Thread(target=step_rarely)
    thread.start()
    started = time.monotonic()
    fill(outbox, 1)
    publisher.wake()
    wait_for(lambda: outbox.acknowledged, "acknowledged")
    assert time.monotonic() - started < 5.0
    done.set()
    publisher.wake()
    thread.join(5.0)
    assert not thread.is_alive()
    publisher.close("test")


def test_a_process_that_was_stopped_for_a_while_keeps_its_connection(broker: Broker, outbox: ListOutbox) -> None:
    """Time in which the agent itself did not run is not held against the broker."""
    clock = FastClock()
    publisher = Publisher(make_config(broker.port), outbox, clock=clock, stall_seconds=STALL_SECONDS)
    connect(publisher)
    fill(outbox, 16)
    publisher.step(0.0)
    clock.forward_seconds = 3600.0
    drain(publisher, outbox)
    assert publisher.status().last_error == ""
    publisher.close("test")


def busy_share(publisher: Publisher, seconds: float = 0.6) -> float:
    """Step as `run` does and return the share of the time that this thread was computing."""
    started, computed = time.monotonic(), time.thread_time()
    while time.monotonic() < started + seconds:
        publisher.step(0.1)
    return (time.thread_time() - computed) / (time.monotonic() - started)


def test_waiting_costs_nothing_while_the_broker_is_away(outbox: ListOutbox) -> None:
    """A night without a broker, with results pending, is not a night at full speed."""
    fill(outbox, 100)
    publisher = make_publisher(free_port(), outbox)
    step_until(publisher, lambda: publisher.status().last_error, "an attempt")
    assert busy_share(publisher) < 0.3
    publisher.close("test")


def test_waiting_costs_nothing_after_a_lost_connection(broker: Broker, outbox: ListOutbox) -> None:
    """The same in the middle of a backlog, when the outbox fails on top."""
    publisher = make_publisher(broker.port, outbox)
    fill(outbox, 3000)
    step_until(publisher, lambda: outbox.acknowledged, "some are acknowledged")
    broker.kill()
    step_until(publisher, lambda: not publisher.status().connected, "it noticed")
    assert busy_share(publisher) < 0.3
    outbox.broken = True
    assert busy_share(publisher) < 0.3
    publisher.close("test")


@needs_mosquitto
def test_waiting_costs_nothing_while_everything_is_refused(tmp_path: Path, outbox: ListOutbox) -> None:
    """Also states that changed and must not be sent now."""
    with Broker(tmp_path, _acl(tmp_path, "topic read strip-agent/#")) as broker:
        publisher = make_publisher(broker.port, outbox)
        publisher.set_state("state/health", b"1")
        fill(outbox, 3000)
        step_until(publisher, lambda: publisher.status().delivery == "refused", "refused")
        publisher.set_state("state/health", b"2")
        assert busy_share(publisher) < 0.3
        publisher.close("test", flush_seconds=0.1)


def test_waiting_costs_nothing_while_a_full_window_waits_for_answers(broker: Broker, outbox: ListOutbox) -> None:
    """More to send, more states, and no room."""
    with TcpProxy(broker.port) as proxy:
        publisher = Publisher(make_config(proxy.port), outbox, stall_seconds=60.0)
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the link works")
        proxy.frozen = True
        fill(outbox, 100)
        step_until(publisher, lambda: publisher._room() == 0, "the window is full")
        publisher.set_state("state/health", b"1")
        assert busy_share(publisher) < 0.3
        publisher.close("test", flush_seconds=0.1)


def test_connections_leave_no_threads_or_descriptors_behind(broker: Broker, outbox: ListOutbox) -> None:
    """Months of lost connections cost nothing."""
    with TcpProxy(broker.port) as proxy:
        publisher = Publisher(make_config(proxy.port), outbox, jitter=lambda: 0.0, clock=FastClock(), stall_seconds=60)
        connect(publisher)
        open_before = _descriptors_and_threads()
        for _ in range(10):
            proxy.cut()
            step_until(publisher, lambda: not publisher.status().connected, "cut")
            connect(publisher)
        wait_for(lambda: _descriptors_and_threads() <= open_before, "everything is closed")
        publisher.close("test")


def _descriptors_and_threads() -> tuple[int, int]:
    network_threads = [thread for thread in threading.enumerate() if thread.name == "mqtt"]
    return len(os.listdir("/proc/self/fd")), len(network_threads)  # noqa: PTH208 - only their number


class FastClock:
    """Monotonic time that runs twenty times as fast, so that back-offs are short; `forward_seconds` are added."""

    def __init__(self, speed: float = 20.0) -> None:
        self._speed = speed
        self.forward_seconds = 0.0
        self._start = time.monotonic()

    def __call__(self) -> float:
        """Return seconds."""
        return self._speed * (time.monotonic() - self._start) + self.forward_seconds
