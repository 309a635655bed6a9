"""push --wait: what the box reports over a real broker decides the exit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from paho.mqtt import publish

from tests.broker import Broker as RealBroker
from tools.exporter.errors import ExportError
from tools.exporter.waiting import Broker, make_broker, wait_for_decision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE, DIGEST = "strip-agent/insp1", "ab" * 32


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Start a real broker."""
    with RealBroker(tmp_path) as running:
        yield Broker("127.0.0.1", running.port)


def _report(broker: Broker, **state: str) -> None:
    publish.single(
        f"{BASE}/state/model/default", json.dumps(state), qos=1, retain=True, hostname=broker.host, port=broker.port
    )


def test_active_is_success(broker: Broker) -> None:
    """The box runs the model: the sentence says which."""
    _report(broker, active_sha256=DIGEST, active_model_id="m", active_version="3")
    assert "active: m version 3" in wait_for_decision(broker, BASE, "default", DIGEST, 10)


def test_refused_is_failure_with_the_reason(broker: Broker) -> None:
    """The box refused it: the reason is shown."""
    _report(broker, active_sha256="other", last_refused_sha256=DIGEST, last_refused_reason="model_shapes")
    with pytest.raises(ExportError, match="model_shapes"):
        wait_for_decision(broker, BASE, "default", DIGEST, 10)


def test_no_decision_ends_with_the_time(broker: Broker) -> None:
    """What the box says about other models does not count."""
    _report(broker, active_sha256="other", last_refused_sha256="another")
    with pytest.raises(ExportError, match="did not decide"):
        wait_for_decision(broker, BASE, "default", DIGEST, 0.3)


def test_no_broker_is_refused() -> None:
    """Nothing listens there, or the address is none."""
    with pytest.raises(ExportError, match="--broker"):
        wait_for_decision(Broker("127.0.0.1", 1), BASE, "default", DIGEST, 1)
    with pytest.raises(ExportError, match="HOST:PORT"):
        make_broker("somewhere", None, None, None)
