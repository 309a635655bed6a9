"""The whole service as an edge node: a camera's folder that goes, kills and cuts at random moments."""

from __future__ import annotations

import os
import random
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.soak import share_of
from tests.helpers.sparkplug import GROUP, NODE, SparkplugHost, broken_rules
from tests.helpers.strips import write_strip
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

CUTS = share_of(300, at_least=15)
KILL_EVERY = 10  # cuts
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


def make_box(folder: Path, port: int, payload: str, cameras: tuple[str, ...] = ("top",)) -> Box:
    """Make a box that speaks Sparkplug, with a model."""
    mqtt = {"payload": payload, "sparkplug": {"group": GROUP, "node": NODE}}
    box = Box(folder, port, cameras=cameras, mqtt=mqtt)
    difference_model(box.inbox / "model.onnx")
    return box


def seqs(host: SparkplugHost) -> set[int]:
    """Return the number of every strip that has reached the host."""
    return {seq for camera in ("top", "side") for seq, _ in host.strips(camera)}


def test_a_box_is_an_edge_node_and_nothing_else(tmp_path: Path, broker: Broker) -> None:
    """Its model, its cameras and their strips are there; a folder that goes is a death, a kill another; no JSON."""
    strip = tmp_path / "strip.tif"
    write_strip(strip)
    with (
        SparkplugHost(broker.port) as host,
        Subscriber(broker.port, "strip-agent/#") as json_subscriber,
        make_box(tmp_path / "box", broker.port, "sparkplug", ("top", "side")) as box,
    ):
        box.start()
        drop_file(strip, box.camera("top") / "1.tif")
        drop_file(strip, box.camera("side") / "2.tif")
        wait_for(lambda: seqs(host) == {1, 2}, "both strips arrive")
        model = "Model/default/Id"
        wait_for(lambda: any(h.values.get(model) for h in host.heard("NBIRTH", "NDATA")), "the model is told")
        files = [h.values["Strip/File"] for h in host.heard("DDATA", device="top") if "Strip/File" in h.values]
        assert files == ["1.tif"]
        away = box.camera("side").rename(tmp_path / "away")
        wait_for(lambda: host.heard("DDEATH", device="side"), "side dies")
        away.rename(box.camera("side"))
        wait_for(lambda: len(host.heard("DBIRTH", device="side")) == 2, "side is born again")
        box.kill()
        host.wait_for("NDEATH")
        drop_file(strip, box.camera("top") / "3.tif")
        box.start()
        wait_for(lambda: seqs(host) == {1, 2, 3}, "the third arrives")
        assert [h.values["bdSeq"] for h in host.heard("NBIRTH")] == [0, 1]
        wait_for(lambda: box.ask("status")["strips"]["pending"] == 0, "all are acknowledged")
        assert box.stop() == 0
        host.wait_for("NDEATH", 2)
        assert broken_rules(host.heard()) == []
        assert box.audit()["balanced"]
        assert json_subscriber.messages() == []


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_strip_reaches_the_host_through_cuts_and_kills(tmp_path: Path, broker: Broker) -> None:
    """Live or as history, at random moments; `seq` and `bdSeq` never break the rules, and JSON has them all as well."""
    sys.stdout.write(f"SOAK_SEED={SEED}\n")
    chance = random.Random(SEED)  # noqa: S311 - to be repeated, not to be secret
    strip = tmp_path / "strip.tif"
    write_strip(strip)
    strips = 0
    with (
        TcpProxy(broker.port) as proxy,
        SparkplugHost(broker.port) as host,
        Subscriber(broker.port, "strip-agent/#", keep_session=True) as subscriber,
        make_box(tmp_path / "box", proxy.port, "both") as box,
    ):
        box.start()
        born = 0
        for cut in range(1, CUTS + 1):
            if chance.random() < 0.6:  # else while it is still away
                wait_for(lambda before=born: len(host.heard("NBIRTH")) > before, "it is born again")  # type: ignore[misc]
            for _ in range(chance.randint(0, 3)):
                strips += 1
                drop_file(strip, box.camera() / f"{strips}.tif")
            time.sleep(chance.uniform(0.0, 0.8))
            born = len(host.heard("NBIRTH"))
            if chance.random() < 0.2:
                proxy.answers_dropped = True
                time.sleep(chance.uniform(0.0, 0.5))
            proxy.cut()
            proxy.answers_dropped = False
            if cut % KILL_EVERY == 0:
                box.kill()
                box.start(wait=False)
            if chance.random() < 0.1:
                host.ask_for_rebirth()
        wait_for(box.answers, "the service answers")
        box.wait_until_published(strips, 600)
        wait_for(lambda: seqs(host) == set(range(1, strips + 1)), f"all {strips} strips reach the host")
        wait_for(lambda: len(unique_results(subscriber)) == strips, "and the subscriber")
        assert broken_rules(host.heard()) == []
        births = [int(str(h.values["bdSeq"])) for h in host.heard("NBIRTH")]
        deaths = [h.values["bdSeq"] for h in host.heard("NDEATH")]
        assert set(births) - set(deaths) <= {births[-1]}, "the broker told the end of every connection"
        assert box.audit()["balanced"]
        assert box.stop() == 0
        sys.stdout.write(f"{CUTS} cuts, {CUTS // KILL_EVERY} kills, {strips} strips, {len(births)} births, "
                         f"{sum(historical for _, historical in host.strips())} as history\n")  # fmt: skip
