"""The page beside a whole box: a strip that is judged shows up in it, and the page's death costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.helpers.box import Box, wait_for_results
from tests.helpers.broker import Broker, Subscriber, free_port, wait_for
from tests.helpers.metrics import can_connect
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PAGE = """
from agent.cli.__main__ import main
from agent.web import asking, painter
asking.ANSWER_SECONDS, painter.JOB_SECONDS = 100.0, 150.0  # a machine that has something else to do is not silent
main()
"""


@contextmanager
def page_of(box: Box, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a box's page as its unit does."""
    with (box.folder / "web.log").open("ab") as log:
        command = [sys.executable, "-c", PAGE, "web", "--config", str(box.config_file)]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        wait_for(lambda: can_connect(port), "the page is served")
        yield process
    finally:
        process.kill()
        process.wait(120)


def get(port: int, path: str) -> bytes:
    """Ask the page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=120) as answer:
        body: bytes = answer.read()
        return body


def test_a_strip_that_is_judged_shows_up_in_an_open_page(tmp_path: Path) -> None:
    """The stream tells of it, the line shows it, its pictures are its files'; to kill the page costs nothing."""
    port = free_port()
    web = {"enabled": True, "listen": f"127.0.0.1:{port}", "language": "en"}
    with (
        Broker(tmp_path) as broker,
        Subscriber(broker.port) as subscriber,
        Box(tmp_path / "b", broker.port, web=web) as box,
    ):
        difference_model(box.inbox / "model.onnx")
        box.start()
        with page_of(box, port) as page:
            assert b"No strip has been judged yet" in get(port, "/line")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/events", timeout=180) as stream:
                lines = iter(stream.readline, b"")
                assert next(line for line in lines if line.startswith(b"event: beat"))
                write_strip(box.camera() / "part_1.tif", defect=True)
                assert next(line for line in lines if line.startswith(b"event: news"))
            (result,) = wait_for_results(subscriber, 1)
            assert result["verdict"] == "anomalous"
            assert b"ANOMALY" in get(port, "/line")
            strip = f"/strips/{result['strip_id']}"
            for kind in ("target", "reference2", "heat", "thumb", "picture"):
                assert get(port, f"{strip}/1/{kind}.png").startswith(b"\x89PNG"), kind
            value = json.loads(get(port, f"{strip}/1/value?row={result['peak_row']}&col={result['peak_col']}"))
            assert abs(value["heat"] - result["score"]) < 1e-6
            wait_for(lambda: b"delivered" in get(port, strip), "the broker's acknowledgement is written down")
            assert b"golden strip" in get(port, "/models")
            assert b"It balances" in get(port, "/health")
            page.kill()
        write_strip(box.camera() / "part_2.tif", seed=2)
        wait_for_results(subscriber, 2)
        assert box.audit()["balanced"]
        assert box.stop() == 0
