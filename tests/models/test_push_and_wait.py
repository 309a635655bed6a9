"""`tools/export.py push --wait` against the running service: who pushed is told what became of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tests.models.line import Plant

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.broker import Broker


def push(box: Plant, port: int, model: Path) -> subprocess.CompletedProcess[str]:
    """Push as a person does, and wait for the box."""
    topic = f"strip-agent/{box.config['agent']['name']}"
    options = ["--wait", "150", "--base-topic", topic, "--broker", f"127.0.0.1:{port}"]
    command = [sys.executable, "tools/export.py", "push", str(model), str(box.inbox), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_who_pushes_is_told_what_became_of_the_model(tmp_path: Path, broker: Broker) -> None:
    """Active with exit code 0; refused with 1 and the reason; the same bytes again get the same answer."""
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    difference_model(good, version=2)
    difference_model(bad, version=3, golden_shift=0.01)
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        for _ in range(2):
            done = push(box, broker.port, good)
            assert (done.returncode, "active: difference version 2" in done.stdout) == (0, True), done.stderr
        for _ in range(2):
            done = push(box, broker.port, bad)
            assert (done.returncode, "golden_mismatch" in done.stderr) == (1, True), done.stdout + done.stderr
