"""The flow that docs/scada/ offers for import, in a real Node-RED with its dashboard, seen through a real browser."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agent.demo.camera import encode
from agent.demo.strips import make_strip
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import PERSISTENT, Broker, Subscriber, free_port, wait_for
from tests.helpers.publishing import needs_mosquitto
from tests.helpers.repository import ROOT
from tests.peers.installed import CHROMIUM, INSTALLED, facts_of, needs_peer, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.peers,
    needs_mosquitto,
    needs_peer("npm"),
    needs_peer("node_red"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

FLOW = ROOT / "docs" / "scada" / "node-red-flow.json"
SCREENSHOT = INSTALLED / "node-red.png"  # docs/scada/node-red.png is one of these
NODE_RED = INSTALLED / "node_red" / "node_modules" / ".bin" / "node-red"
FIRST_CURVE = (0x0B, 0x6E, 0x99)  # red, green and blue of the chart's first line in the flow
DEFECTS = (0, 0, 1, 0, 0, 3, 0, 2)  # of the strips, in the order in which they come


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and does not tell."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def pictures(folder: Path) -> Iterator[str]:
    """Serve a folder to browsers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def import_flow(folder: Path, broker_port: int, ui_port: int) -> None:
    """Do what a person does: import the file, set the broker's port, deploy."""
    nodes = json.loads(FLOW.read_text())
    (broker,) = (node for node in nodes if node["type"] == "mqtt-broker")
    broker["port"] = str(broker_port)
    (folder / "flows.json").write_text(json.dumps(nodes))
    settings = {
        "uiHost": "127.0.0.1",
        "uiPort": ui_port,
        "flowFile": "flows.json",
        "credentialSecret": False,
        "telemetry": {"enabled": False, "updateNotification": False},
        "diagnostics": {"enabled": False},
    }
    (folder / "settings.js").write_text(f"module.exports = {json.dumps(settings)};")


def look(page: str, screenshot: Path, *wanted: str) -> dict[str, Any]:
    """Open a page in the browser and wait for these texts; give what it shows."""
    return facts_of("look.js", str(CHROMIUM), page, str(screenshot), json.dumps(FIRST_CURVE), *wanted)


def test_the_flow_of_the_docs_shows_strips_pictures_trend_and_health(tmp_path: Path) -> None:
    """Verdict, score and picture of the last strip, a point for each judged one, and how the box is."""
    ui_port = free_port()
    heatmaps = tmp_path / "box" / "state" / "heatmaps"
    heatmaps.mkdir(parents=True)
    user_folder = tmp_path / "node-red"
    user_folder.mkdir()
    with Broker(tmp_path, PERSISTENT) as broker, pictures(heatmaps) as address:
        import_flow(user_folder, broker.port, ui_port)
        settings: dict[str, Any] = {
            "agent": {"name": "insp1", "state_folder": str(tmp_path / "box" / "state")},
            "heatmaps": {"min_free_gib": 0, "url_template": f"{address}/{{path}}"},
        }
        command = [str(NODE_RED), "--userDir", str(user_folder)]
        with (
            running(command, tmp_path / "node-red.log"),
            Box(tmp_path / "box", broker.port, **settings) as box,
            Subscriber(broker.port, "strip-agent/insp1/#") as subscriber,
        ):
            wait_for(lambda: "as node-red-strips" in broker.log, "Node-RED is connected")
            shutil.copy(ROOT / "agent" / "demo" / "model.onnx", box.inbox / "model.onnx")
            box.start()
            for number, defects in enumerate(DEFECTS):
                strip, _ = make_strip(np.random.default_rng([9, number]), defects=defects)
                (tmp_path / "strip.tif").write_bytes(encode(strip))
                drop_file(tmp_path / "strip.tif", box.camera() / f"strip-{1001 + number}.tif")
                wait_for_results(subscriber, number + 1)
            wait_for(lambda: '"status":"ok"' in subscriber.payloads("state/health")[-1].decode(), "all is well")
            last = json.loads(subscriber.payloads("state/last_strip/top")[-1])
            assert (last["verdict"], last["file"]) == ("anomalous", "strip-1008.tif")
            wanted = [last["file"], "ANOMALOUS", f"{last['score']:.3f} (limit", "online (connected)", "health: ok"]
            page = f"http://127.0.0.1:{ui_port}/dashboard/strips"
            seen = look(page, SCREENSHOT, *wanted)
            assert last["preview_url"] in [picture["src"] for picture in seen["pictures"]]
            assert max(seen["drawn"]) > 0.5, "the scores go from one side of the chart to the other"
            box.kill()
            wait_for(lambda: b"connection_lost" in subscriber.payloads("state/agent")[-1], "the will")
            wanted = ["OFFLINE (connection_lost)", "health: not known"]
            look(page, tmp_path / "offline.png", *wanted)
        log = (tmp_path / "node-red.log").read_text()
        assert "[error]" not in log, log
