"""Brokers that are not mosquitto: rumqttd over both protocols, and aedes, which knows MQTT 3.1.1 only."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.helpers.box import Box, drop_file, unique_results, wait_for_results
from tests.helpers.broker import Subscriber, free_port, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip
from tests.peers.installed import HERE, INSTALLED, needs_peer, node, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peers

STRIPS = 4


@pytest.mark.parametrize(
    ("broker", "protocol"),
    [
        pytest.param("rumqttd", "5", marks=needs_peer("rumqttd")),
        pytest.param("rumqttd", "3.1.1", marks=needs_peer("rumqttd")),
        pytest.param("aedes", "3.1.1", marks=needs_peer("npm")),
    ],
)
def test_every_strip_arrives_through_another_broker(
    tmp_path: Path, broker: str, protocol: Literal["5", "3.1.1"]
) -> None:
    """Delivery is verified, the states are there for who comes late."""
    old_port, new_port = free_port(), free_port()
    port = new_port if protocol == "5" else old_port
    commands = {
        "rumqttd": [str(INSTALLED / "rumqttd" / "bin" / "python"), str(HERE / "rumqttd.py"), str(tmp_path)],
        "aedes": node("aedes_broker.js"),
    }
    ports = [str(old_port), str(new_port)] if broker == "rumqttd" else [str(old_port)]
    # aedes is met with `auto`: that it does not know MQTT 5 has to be found out.
    settings: dict[str, Any] = {"mqtt": {"protocol": "auto" if broker == "aedes" else protocol}}
    with running(commands[broker] + ports, tmp_path / "broker.log"):
        wait_for(lambda: accepts(port), f"{broker} accepts connections")
        with (
            Box(tmp_path / "box", port, **settings) as box,
            Subscriber(port, "strip-agent/box1/#", protocol=protocol) as subscriber,
        ):
            difference_model(box.inbox / "model.onnx")
            box.start()
            for number in range(STRIPS):
                write_strip(tmp_path / "strip.tif", seed=number)
                drop_file(tmp_path / "strip.tif", box.camera() / f"{number}.tif")
            wait_for_results(subscriber, STRIPS)
            box.wait_until_published(STRIPS)
            health = box.ask("status")["health"]
            wait_for(lambda: box.ask("status")["health"]["delivery"] == "verified", "messages are proven to arrive")
            assert health["broker_protocol"] == protocol
            assert sorted(result["seq"] for result in unique_results(subscriber).values()) == [1, 2, 3, 4]
            with Subscriber(port, "strip-agent/box1/state/#", protocol=protocol) as late:
                wait_for(lambda: len({m.topic for m in late.messages()}) == 4, "last_strip, model, agent, health")
            assert box.stop() == 0
            assert box.audit()["balanced"]


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
