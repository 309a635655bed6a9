"""A broker that is away and comes back, and what it gets then: results in order, births and latest states."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from agent.publisher import Publisher
from agent.publisher.states import SPACING_SECONDS
from tests.helpers.broker import ANYBODY, PERSISTENT, Broker, Subscriber, wait_for
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    STATE,
    FastClock,
    connect,
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
    from pathlib import Path

    from tests.helpers.outbox import ListOutbox


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
            make_config(proxy.port, protocol="3.1.1"),
            outbox,
            clock=clock,
            jitter=lambda: 1.0,
            stall_seconds=PATIENT_SECONDS,
        )
        step_until(publisher, lambda: proxy.accepted >= 8, "many attempts failed")
        broker.start()
        proxy.refuse = False
        step_until(publisher, lambda: publisher.status().connected, "connected")
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
    publisher.set_state("state/last_strip/top", b'{"strip":8}')
    publisher.set_state("state/last_strip/top", b'{"strip":9}')
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
        began = time.monotonic()
        for number in range(2000):
            publisher.set_state("state/last_strip/top", b'{"n":%d}' % number)
            if number % 20 == 0:
                publisher.step(0.0)
        step_until(publisher, lambda: b'{"n":1999}' in subscriber.payloads("last_strip"), "the last one")
        most = (time.monotonic() - began) / SPACING_SECONDS + 2
        assert len(subscriber.messages("last_strip")) <= most
        publisher.close("test")
