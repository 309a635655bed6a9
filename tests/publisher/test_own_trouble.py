"""The box's own trouble: an outbox that fails, and what waiting costs."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from agent.publisher import Publisher
from tests.helpers.broker import Broker, Subscriber, free_port, wait_for
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    FastClock,
    acl,
    connect,
    drain,
    fill,
    make_config,
    make_publisher,
    needs_mosquitto,
    step_until,
)
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.outbox import ListOutbox


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
    publisher = Publisher(make_config(broker.port), outbox, clock=clock, stall_seconds=PATIENT_SECONDS)
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
    drain(publisher, outbox)
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
            publisher.step(600.0)

    thread = threading.Thread(target=step_rarely)
    thread.start()
    started = time.monotonic()
    fill(outbox, 1)
    publisher.wake()
    wait_for(lambda: outbox.acknowledged, "acknowledged")
    assert time.monotonic() - started < 200.0
    done.set()
    publisher.wake()
    thread.join(120.0)
    assert not thread.is_alive()
    publisher.close("test")


def test_a_process_that_was_stopped_for_a_while_keeps_its_connection(broker: Broker, outbox: ListOutbox) -> None:
    """Time in which the agent itself did not run is not held against the broker."""
    clock = FastClock(speed=1.0)
    publisher = Publisher(make_config(broker.port), outbox, clock=clock, stall_seconds=PATIENT_SECONDS)
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
    with Broker(tmp_path, acl(tmp_path, "topic read strip-agent/#")) as broker:
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
        publisher = Publisher(make_config(proxy.port), outbox, stall_seconds=PATIENT_SECONDS)
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
        publisher = Publisher(
            make_config(proxy.port), outbox, jitter=lambda: 0.0, clock=FastClock(), stall_seconds=PATIENT_SECONDS
        )
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
