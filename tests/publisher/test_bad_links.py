"""Links that are half open, slow, cut or silent, and what the network thread may do."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from agent import mqtt
from agent.publisher import Publisher
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    STALL_SECONDS,
    FastClock,
    connect,
    cut,
    drain,
    fill,
    in_first_seen_order,
    make_config,
    make_publisher,
    needs_mosquitto,
    states,
    step_until,
)
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    import pytest

    from tests.helpers.broker import Broker
    from tests.helpers.outbox import ListOutbox


def test_a_half_open_link_is_noticed_and_replaced(broker: Broker, outbox: ListOutbox) -> None:
    """No acknowledgement for a while means a new connection, not waiting for TCP's patience."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        publisher = make_publisher(proxy.port, outbox, stall_seconds=STALL_SECONDS)
        payloads = fill(outbox, 40)
        drain(publisher, outbox)
        proxy.frozen = True
        payloads += fill(outbox, 40)
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
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
        publisher = make_publisher(proxy.port, outbox, stall_seconds=STALL_SECONDS)
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the link works")
        proxy.frozen = True
        fill(outbox, 1)
        publisher.wake()
        while publisher.status().connected:
            publisher.step(300.0)
        assert "no acknowledgement" in publisher.status().last_error
        publisher.close("test")


def test_a_step_never_waits_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service that hangs does not stop the heart of the publisher."""
    answer = threading.Event()

    def hang(*_: object, **__: object) -> socket.socket:
        answer.wait(120.0)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", hang)
    publisher = make_publisher(1883)
    started = time.monotonic()
    for _ in range(10):
        publisher.step(0.01)
    assert time.monotonic() - started < 60.0
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
        on_message=lambda message: seen.append(message.topic) if isinstance(message, mqtt.Received) else None,
        subscribe_to=["cmd/rescan"],
    )
    fill(outbox, 5)
    drain(publisher, outbox)
    step_until(publisher, lambda: publisher.status().delivery == "verified", "the echo is here")
    with Subscriber(broker.port) as other:
        other.publish("strip-agent/insp1/cmd/rescan", b"{}", retain=True)  # the subscription may come later
        step_until(publisher, lambda: seen, "the command")
    assert seen == ["strip-agent/insp1/cmd/rescan"]
    publisher.close("test")


def test_lost_acknowledgements_make_repeats_with_the_same_bytes(broker: Broker, outbox: ListOutbox) -> None:
    """At least once: a repeat can be recognised by its id because nothing in it has changed."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        clock = FastClock(speed=0.001)
        publisher = Publisher(
            make_config(proxy.port), outbox, jitter=lambda: 0.0, clock=clock, stall_seconds=PATIENT_SECONDS
        )
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the birth is acknowledged")
        proxy.answers_dropped = True
        payloads = fill(outbox, 30)
        step_until(publisher, lambda: len(subscriber.payloads(EVENT)) >= 16, "a window is sent")
        assert len(subscriber.payloads(EVENT)) == 16, "and no more than a window"
        assert len(outbox.pending) == 30, "nothing is done that was not acknowledged"
        clock.run(600.0)
        step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        proxy.answers_dropped = False
        clock.run(1.0)
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
        clock = FastClock(speed=1.0)
        publisher = Publisher(
            make_config(proxy.port), outbox, jitter=lambda: 0.0, clock=clock, stall_seconds=PATIENT_SECONDS
        )
        payloads = fill(outbox, 600)
        for number in range(12):
            done = 40 * (number + 1)
            step_until(publisher, lambda done=done: len(outbox.acknowledged) >= done, "some more")  # type: ignore[misc]
            cut(publisher, proxy, clock)
        assert "unstable_connection" in publisher.status().alarms
        drain(publisher, outbox)
        wait_for(lambda: set(subscriber.payloads(EVENT)) == set(payloads), "all results")
        assert in_first_seen_order(subscriber.payloads(EVENT)) == payloads
        assert outbox.acknowledged == sorted(set(outbox.acknowledged))
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
        publisher = make_publisher(proxy.port, outbox, stall_seconds=STALL_SECONDS)
        connect(publisher)
        proxy.answers_held = True
        payloads = fill(outbox, 16, size_bytes=2000)
        step_until(publisher, lambda: not publisher.status().connected, "given up once")
        proxy.answers_held = False
        drain(publisher, outbox)
        wait_for(lambda: set(subscriber.payloads(EVENT)) == set(payloads), "all results")
        publisher.close("test")


def test_a_broker_that_takes_connections_and_says_nothing_is_given_up(outbox: ListOutbox) -> None:
    """A listener whose program hangs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publisher = make_publisher(silent.getsockname()[1], outbox, stall_seconds=STALL_SECONDS)
        step_until(publisher, lambda: publisher.status().last_error, "given up")
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
