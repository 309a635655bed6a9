"""How it ends: a clean stop, a bounded one, and the will."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from agent.publisher import Publisher
from tests.helpers.broker import Subscriber, free_port, wait_for
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    connect,
    fill,
    make_config,
    make_publisher,
    needs_mosquitto,
    states,
    step_until,
)
from tests.helpers.repository import ROOT
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from tests.helpers.broker import Broker
    from tests.helpers.outbox import ListOutbox


def test_a_clean_stop_flushes_and_says_offline_with_the_reason(broker: Broker, outbox: ListOutbox) -> None:
    """SCADA sees that the box was stopped, and why, and the broker does not send the will on top."""
    with Subscriber(broker.port) as subscriber:
        publisher = make_publisher(broker.port, outbox)
        connect(publisher)
        payloads = fill(outbox, 300)  # the publisher has not heard of any of them
        publisher.close("stopped by SIGTERM", flush_seconds=120.0)
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
        publisher = Publisher(make_config(proxy.port), outbox, stall_seconds=PATIENT_SECONDS)
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the link works")
        fill(outbox, 100)
        proxy.frozen = True
        started = time.monotonic()
        publisher.close("stop", flush_seconds=0.3)
        assert time.monotonic() - started < 60.0
        assert outbox.pending


@pytest.mark.parametrize("protocol", [pytest.param("5", marks=needs_mosquitto), "3.1.1"])
def test_a_goodbye_that_finds_no_room_is_left_to_the_will(broker: Broker, outbox: ListOutbox, protocol: str) -> None:
    """A broker that owes a window of answers is sent no more; it must not keep the box online for ever."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        config = make_config(proxy.port, protocol=protocol)
        publisher = Publisher(config, outbox, jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS)
        step_until(publisher, lambda: publisher._presence.birth_arrived, "the link works")
        proxy.answers_held = True
        fill(outbox, 100)
        step_until(publisher, lambda: publisher._room() == 0, "the window is full")
        publisher.close("stop", flush_seconds=0.1)
        wait_for(lambda: not states(subscriber, "agent")[-1]["online"], "it is called offline")


def test_a_stop_without_a_broker_is_immediate(outbox: ListOutbox) -> None:
    """Nothing to say goodbye to."""
    fill(outbox, 1)
    publisher = make_publisher(free_port(), outbox)
    publisher.step(0.0)
    started = time.monotonic()
    publisher.close("stop")
    assert time.monotonic() - started < 60.0


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
