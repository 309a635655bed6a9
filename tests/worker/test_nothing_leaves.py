"""Nothing leaves the box but MQTT: what loads onnxruntime neither calls home nor leaves anything to call home with."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STRACE = shutil.which("strace")
FACES = {  # packages whose face imports `agent` before anything inside can load onnxruntime
    "agent": ROOT / "agent" / "__init__.py",
    "tools/exporter": ROOT / "tools" / "exporter" / "__init__.py",
    "tools/benching": ROOT / "tools" / "benching" / "__init__.py",
    "tests": ROOT / "tests" / "conftest.py",
}
RUNTIME = re.compile(r"^\s*(?:import|from)\b.*\bonnxruntime\b", re.MULTILINE)
MISBEHAVE = """
import os, socket
os.mkdir(os.path.expanduser("~/.cache"))
socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
"""
MEASURE = """
import sys
from tools.exporter.measure import peak_mib
from pathlib import Path
print(peak_mib(Path(sys.argv[1]), 1))
"""
OPENVINO = """
import sys
from agent.worker.openvino_runtime import open_with_openvino
open_with_openvino(open(sys.argv[1], "rb").read(), (488, 88), 1)
"""
SESSION = """
import sys
from tools.exporter.session import open_session
open_session(open(sys.argv[1], "rb").read())
"""


def _trace(folder: Path, *command: str) -> list[str]:
    """Run a program with a home of its own and without our variable; return what it did that tells, or could tell."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    environ |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    traced = [
        STRACE,
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=network,openat,mkdir,mkdirat,execve",
        "-o",
        str(trace),
        *command,
    ]
    done = subprocess.run(traced, env=environ, cwd=folder, capture_output=True, text=True, check=False, timeout=400)
    if "Operation not permitted" in done.stderr and not trace.read_text():
        pytest.skip("the system allows no tracing")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = trace.read_text(errors="replace").splitlines()
    assert any("execve(" in line for line in lines)
    return [line for line in lines if "AF_INET" in line] + [str(path) for path in home.rglob("*")]


def _commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    model, strip = folder / "model.onnx", folder / "strip.tif"
    agent = [sys.executable, "-m", "agent.cli"]
    yield "score", [*agent, "score", str(strip), "--model", str(model), "--heatmaps", str(folder / "heatmaps")]
    yield "models verify", [*agent, "models", "verify", str(model)]
    yield "export inspect", [sys.executable, str(ROOT / "tools/export.py"), "inspect", str(model)]
    yield "the bench's child", [sys.executable, "-c", MEASURE, str(model)]
    yield "a session of the exporter", [sys.executable, "-c", SESSION, str(model)]
    if importlib.util.find_spec("openvino") is not None:  # it comes with a package that tells its makers of each import
        yield "OpenVINO", [sys.executable, "-c", OPENVINO, str(model)]


@pytest.mark.parametrize("name", [name for name, _ in _commands(ROOT)])
def test_nothing_calls_home_or_keeps_a_diary_for_it(tmp_path: Path, name: str) -> None:
    """Each way that loads a model, seen by the kernel: no address of the internet, no file in the user's home."""
    difference_model(tmp_path / "model.onnx")
    write_strip(tmp_path / "strip.tif")
    assert _trace(tmp_path, *dict(_commands(tmp_path))[name]) == []


def test_a_program_that_calls_home_would_be_seen(tmp_path: Path) -> None:
    """The test above can fail: both signs are found in a program that shows them."""
    found = _trace(tmp_path, sys.executable, "-c", MISBEHAVE)
    assert any("AF_INET6" in sign for sign in found)
    assert str(tmp_path / "home" / ".cache") in found


def _is_early(text: str) -> bool:
    loads = RUNTIME.search(text)
    sets = re.search(
        r"^\s*(?:import|from) agent\b|^\s*(?:import|from) tools\.exporter\b|ORT_DISABLE_TELEMETRY", text, re.MULTILINE
    )
    return loads is not None and (sets is None or sets.start() > loads.start())


def test_nothing_loads_onnxruntime_before_agent() -> None:
    """`agent/__init__.py` switches the telemetry off; every file that loads onnxruntime comes by it first."""
    for face in FACES.values():
        assert re.search(r"^import agent\b|ORT_DISABLE_TELEMETRY", face.read_text(), re.MULTILINE), face
    files = sorted(path for room in ("agent", "tools", "tests") for path in (ROOT / room).rglob("*.py"))
    early = []
    for path in files:
        place, source = str(path.relative_to(ROOT)), path.read_text()
        behind_a_face = any(place.startswith(f"{room}/") for room in FACES)
        texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
        programs = [text for text in texts if isinstance(text, str)]
        if any(map(_is_early, programs if behind_a_face else [source, *programs])):
            early.append(place)
    assert early == []
