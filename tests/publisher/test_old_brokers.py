"""Brokers that do not know MQTT 5."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from agent.publisher import Publisher
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.old_broker import OldBroker
from tests.helpers.outbox import ListOutbox
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    FastClock,
    drain,
    fill,
    in_first_seen_order,
    make_config,
    states,
    step_until,
)

if TYPE_CHECKING:
    from pathlib import Path


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
    publisher = Publisher(config, outbox, jitter=lambda: 0.0, clock=FastClock(), stall_seconds=PATIENT_SECONDS)
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
        clock = FastClock()
        config = make_config(broker.port, protocol="auto")
        publisher = Publisher(config, outbox, jitter=lambda: 0.0, clock=clock, stall_seconds=40.0)
        step_until(publisher, lambda: publisher.status().protocol == "3.1.1", "silence is understood")
        clock.run(0.5)
        payloads = fill(outbox, 100)
        drain(publisher, outbox)
        wait_for(lambda: in_first_seen_order(subscriber.payloads(EVENT)) == payloads, "all results")
        step_until(publisher, lambda: publisher.status().delivery == "verified", "messages come back")
        publisher.close("test")
        wait_for(lambda: not states(subscriber, "agent")[-1]["online"], "offline")
