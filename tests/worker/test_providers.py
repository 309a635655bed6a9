"""What else than the cpu may compute a model, and that the cpu does where the other cannot or does it wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from agent.errors import Reason, Reject
from agent.worker import attempt, openvino_runtime, providers
from agent.worker.model import CPU, Model, load_model
from agent.worker.providers import choose, prove_with
from agent.worker.trial import made_strip
from agent.worker.unusable import Unusable
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="OpenVINO is not installed: pip install 'strip-agent[openvino]'",
)
DEMO_MODEL = ROOT / "agent" / "demo" / "model.onnx"
SMALL: dict[str, Any] = {"height": 160, "width": 96}
CRASHES = "import os\nos.abort()\n"
HANGS = "import time\ntime.sleep(600)\n"
HAS_NONE = "raise ImportError('libopenvino.so.1: cannot open shared object file')\n"


def small(tmp_path: Path, **changes: Any) -> bytes:
    """Make a model that judges small strips."""
    difference_model(tmp_path / "m.onnx", **SMALL | changes)
    return (tmp_path / "m.onnx").read_bytes()


def prove_on(wanted: str, content: bytes, *, is_accepted: bool = False) -> tuple[Model, str]:
    """Do with a model what a worker does; return what runs it, and why that is not what was wanted."""
    model = load_model(content, threads=1, unlabelled_input_scale="auto")
    proved, proof, refused = prove_with(wanted, model, content, threads=1, is_accepted=is_accepted)
    assert proof.run_ms > 0
    return proved, refused


def off_by(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a provider whose heatmaps are too hot by `shift`, and that nothing else is wrong with."""

    def open_on(_provider: str, content: bytes, _size: tuple[int, int], threads: int | None) -> Any:
        compute = load_model(content, threads=threads, unlabelled_input_scale="unit").compute

        def shifted(strip: Any) -> Any:
            output = compute(strip).copy()
            output[:, 0] = np.clip(output[:, 0] + shift, 0, 1)
            return output

        return shifted

    monkeypatch.setattr(providers, "open_on", open_on)
    monkeypatch.setattr(providers, "_attempt", lambda *_: None)


@needs_openvino
def test_openvino_computes_a_model_of_the_exporter_as_the_cpu_does() -> None:
    """The demo's model, its golden strip reproduced; its `tf_crop_and_resize` is nothing that OpenVINO itself knows."""
    content = DEMO_MODEL.read_bytes()
    model, refused = prove_on("openvino", content)
    assert (model.provider, refused) == ("openvino", "")
    strip = made_strip(model.facts)
    on_cpu = load_model(content, threads=1, unlabelled_input_scale="auto")
    assert np.abs(model.compute(strip) - on_cpu.compute(strip)).max() < 1e-4
    first = model.compute(strip)
    model.compute(np.zeros_like(strip))
    assert (first == model.compute(strip)).all(), "a result is overwritten by the next one"


@needs_openvino
def test_openvino_computes_foreign_files_too(tmp_path: Path) -> None:
    """Without metadata there is no golden strip: the cpu's heatmap of a made strip is what it is held to."""
    model, refused = prove_on("openvino", small(tmp_path, version=None))
    assert (model.provider, refused, model.facts.labelled) == ("openvino", "", False)


@needs_openvino
def test_what_openvino_cannot_read_the_cpu_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is OpenVINO's own."""
    monkeypatch.setattr(openvino_runtime, "_with_own_resize", lambda openvino: openvino.Core())
    with pytest.raises(Unusable, match=r"OpenVINO .* cannot open the model"):
        openvino_runtime.open_with_openvino(b"no model", (160, 96), 1)
    with pytest.raises(Unusable, match="cannot open the model"):
        openvino_runtime.open_with_openvino(DEMO_MODEL.read_bytes(), (976, 176), 1)
    assert small(tmp_path)


@pytest.mark.parametrize("is_accepted", [True, False])
def test_a_provider_that_misses_the_golden_strip_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_accepted: bool
) -> None:
    """At a start as in a trial; the cpu reproduces it."""
    off_by(0.01, monkeypatch)
    model, refused = prove_on("cuda", small(tmp_path), is_accepted=is_accepted)
    assert model.provider == CPU
    assert refused.startswith("cuda: golden_mismatch: its golden strip differs by up to 0.01")


def test_without_a_golden_strip_a_provider_is_held_to_the_cpus_heatmap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without metadata brings nothing that it could miss."""
    off_by(0.2, monkeypatch)
    model, refused = prove_on("cuda", small(tmp_path, version=None))
    assert model.provider == CPU
    assert refused.startswith("cuda: its heatmap of a made strip differs by up to 0.2")


def test_a_bad_model_is_refused_whatever_computes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cpu has the last word, and says it as it does without any provider."""
    off_by(0.0, monkeypatch)
    with pytest.raises(Reject) as refusal:
        prove_on("tensorrt", small(tmp_path, golden_shift=0.05))
    assert refusal.value.reason is Reason.GOLDEN_MISMATCH


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CRASHES, "openvino: a process that tried it ended with -6"),
        (HANGS, "openvino: it takes longer than 3 s to compute a first strip"),
        (HAS_NONE, "openvino: OpenVINO is not installed (libopenvino.so.1: cannot open shared object file)"),
    ],
)
def test_a_provider_that_crashes_or_hangs_costs_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    """It is tried in a process of its own: the model is not blamed, and the cpu computes it."""
    (tmp_path / "wrong" / "openvino").mkdir(parents=True)
    (tmp_path / "wrong" / "openvino" / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'wrong'}:{ROOT}")
    if text == HANGS:
        monkeypatch.setattr(providers, "ATTEMPT_SECONDS", 3.0)
    model, refused = prove_on("openvino", small(tmp_path))
    assert model.provider == CPU
    assert refused.startswith(says)


def test_an_attempt_ends_with_the_worker_that_made_it(tmp_path: Path) -> None:
    """A supervisor that is killed leaves no process that opens models."""
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text(f"open({str(tmp_path / 'began')!r}, 'w').close()\n" + HANGS)
    script = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-m', {attempt.__name__!r}, 'openvino', '8', '8', '1',"
        " str(os.getpid())], stdin=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        _wait_until((tmp_path / "began").exists)
        parent.kill()
        parent.wait(60)
    _wait_until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_until(condition: Any, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("wanted", "name"), [("cuda", "CUDAExecutionProvider"), ("tensorrt", "Tensorrt")])
def test_an_onnxruntime_without_the_provider_says_so(tmp_path: Path, wanted: str, name: str) -> None:
    """What it has, and what would have to be installed; never the cpu in silence."""
    if any(offered.startswith(name) for offered in onnxruntime.get_available_providers()):
        pytest.skip("this onnxruntime has it")
    model, refused = prove_on(wanted, small(tmp_path))
    assert model.provider == CPU
    assert f"here has no {name}" in refused
    assert "install onnxruntime-gpu in the place of onnxruntime" in refused


def test_an_onnxruntime_that_goes_over_to_the_cpu_by_itself_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so where its provider finds no device, with a line on standard output and a session that works."""
    offered = ["CUDAExecutionProvider", *onnxruntime.get_available_providers()]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    content, usual = small(tmp_path), onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda content, options, **_: usual(content, options)
    )  # as of a session that asked for CUDA and went over
    with pytest.raises(Unusable, match="cannot use CUDAExecutionProvider: no device"):
        providers.open_on("cuda", content, (160, 96), 1)


def test_auto_takes_cuda_where_it_is_there_and_nothing_else() -> None:
    """OpenVINO gains nothing that is worth another way to compute; TensorRT builds for minutes."""
    everything = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPU"]
    assert choose("auto", ["AzureExecutionProvider", "CPUExecutionProvider"]) == CPU
    assert choose("auto", everything) == "cuda"
    assert [choose(wanted, everything) for wanted in ("cpu", "openvino", "tensorrt")] == ["cpu", "openvino", "tensorrt"]


@needs_openvino
def test_the_command_line_says_what_computes(tmp_path: Path) -> None:
    """`models verify` with a configuration, in the sentence and in JSON."""
    small(tmp_path)
    (tmp_path / "agent.yaml").write_text(
        f"agent: {{state_folder: {tmp_path / 'state'}}}\ncameras: [{{name: top, folder: {tmp_path}}}]\n"
        "inference: {provider: openvino}\n"
    )
    command = ["-m", "agent.cli", "models", "verify", str(tmp_path / "m.onnx"), "--json"]
    done = subprocess.run(
        [sys.executable, *command, "--config", str(tmp_path / "agent.yaml")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=300,
    )
    facts = json.loads(done.stdout)
    assert (facts["good"], facts["provider"], facts["provider_refused"]) == (True, "openvino", "")
    assert facts["detail"].endswith(" ms with openvino")
