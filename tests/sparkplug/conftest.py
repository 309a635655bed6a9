"""A broker, a ledger and an edge node that is stepped by hand; and one long story that many tests look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agent.ledger import open_ledger
from agent.mqtt import client
from agent.sparkplug import node
from agent.sparkplug.payload import Datatype
from tests.helpers.broker import ANYBODY, KIND, Broker
from tests.helpers.edge_node import Bench, make_config
from tests.helpers.packets import Packets
from tests.helpers.sparkplug import SparkplugHost
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.packets import Packet
    from tests.helpers.sparkplug import Heard


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Run a broker that takes everything from everybody."""
    with Broker(tmp_path, ANYBODY) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Story:
    """What was heard, and what the node said to the broker on each connection."""

    heard: list[Heard]
    packets: list[list[Packet]]
    history: list[int]  # `seq` of what waited before the node connected
    live: list[int]
    after_cut: list[int]
    rebirth_at: int  # number of the first message after the rebirth was asked for
    cut_at: int  # the same after the cut

    def of(self, *kinds: str, device: str | None = None) -> list[Heard]:
        """List what was heard of these kinds."""
        return [h for h in self.heard if h.kind in kinds and device in (None, h.device)]


def tell(folder: Path, **mqtt: object) -> Story:
    """Let a node live: history, data, an invalid strip, a rebirth, a device that goes and comes, a cut, the end."""
    packets = Packets()
    with (
        pytest.MonkeyPatch.context() as patch,
        Broker(folder, ANYBODY) as running,
        TcpProxy(running.port) as proxy,
        SparkplugHost(running.port) as host,
    ):
        patch.setattr(node, "REBIRTH_SECONDS", 600.0)  # the second request may be slow to arrive
        patch.setattr(node, "_OFFLINE_SECONDS", 60.0)  # and so may the end of the connection
        patch.setattr(client, "_GOODBYE_SECONDS", 60.0)
        proxy.watch = packets
        host.command("Node Control/Rebirth", value=True, datatype=Datatype.BOOLEAN, retain=True)
        ledger = open_ledger(folder / "ledger.db")
        bench = Bench(ledger, make_config(proxy.port, ("top", "side"), **mqtt), folder / "sparkplug.json")
        history = bench.commit(3)
        bench.set_health(cameras="top=events side=missing")
        bench.drain()
        live = bench.commit(2) + bench.commit(1, verdict="invalid") + bench.commit(270)
        bench.drain()
        bench.set_health(cameras="top=events side=events", strips_pending=7, status="degraded")
        bench.step_until(lambda: host.heard("DBIRTH", device="side"), "side is born")
        live += bench.commit(1, camera="side")
        bench.drain()
        host.wait_for_strips(1, "side")
        rebirth_at = len(host.heard())
        host.ask_for_rebirth()
        host.ask_for_rebirth()
        bench.step_until(lambda: len(host.heard("NBIRTH")) == 2, "the births come again")
        bench.set_health(cameras="top=missing side=events")
        bench.step_until(lambda: host.heard("DDEATH"), "top dies")
        bench.set_health(cameras="top=events side=events")
        bench.step_until(lambda: len(host.heard("DBIRTH", device="top")) == 3, "top is born again")
        cut_at = len(host.heard())
        proxy.cut()
        host.wait_for("NDEATH")
        after_cut = bench.commit(2)
        bench.step_until(lambda: len(host.heard("NBIRTH")) == 3, "the node is back")
        bench.drain()
        bench.node.close("shutdown")
        host.wait_for("NDEATH", 3 if mqtt["protocol"] == "5" else 2)  # its own, and over MQTT 5 the will as well
        ledger.database.close()
        return Story(host.heard(), packets.connections, history, live, after_cut, rebirth_at, cut_at)


@pytest.fixture(scope="session", params=["5", "3.1.1"] if KIND == "mosquitto" else ["3.1.1"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Tell the story once for each protocol, to all tests that look at it."""
    return tell(tmp_path_factory.mktemp("story"), protocol=request.param)
