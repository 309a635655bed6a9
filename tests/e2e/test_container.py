"""The agent as process 1 of a container without an init: everything that starts a worker works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.programs import needs
from tests.helpers.repository import ROOT
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.broker import Broker

pytestmark = [
    needs("unshare"),
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a namespace"),
]
AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def test_score_and_models_verify_work_as_process_1(tmp_path: Path) -> None:
    """`docker run strip-agent score ...`: the worker is not taken for an orphan."""
    model, strip = tmp_path / "model.onnx", tmp_path / "strip.tif"
    difference_model(model)
    write_strip(strip)
    agent = [*AS_PROCESS_1, sys.executable, "-m", "agent.cli"]
    for command, key, good in (
        (["score", str(strip), "--model", str(model), "--json"], "verdict", "ok"),
        (["models", "verify", str(model), "--json"], "good", True),
    ):
        done = subprocess.run([*agent, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        facts = json.loads(done.stdout)
        assert (facts[0] if isinstance(facts, list) else facts)[key] == good


def test_the_service_works_as_process_1(tmp_path: Path, broker: Broker) -> None:
    """`docker run strip-agent run`: the model is accepted, a strip is judged, nothing was refused."""
    strip = tmp_path / "strip.tif"
    write_strip(strip)
    with Subscriber(broker.port) as subscriber, Box(tmp_path / "box", broker.port) as box:
        difference_model(box.inbox / "model.onnx")
        box.program = [*AS_PROCESS_1, *box.program]
        box.start()
        drop_file(strip, box.camera() / "1.tif")
        wait_for(lambda: unique_results(subscriber), "the strip is judged")
        assert [result["verdict"] for result in unique_results(subscriber).values()] == ["ok"]
        assert [model["state"] for model in box.ask("models_list")["models"]] == ["active"]
