"""verify and inspect say of a model what a box says of it: they run the box's own trial."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.cli.oneshot import verify_model as try_on_a_box
from agent.errors import Reason
from tests.helpers import bad_models
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tools.exporter.errors import ExportError
from tools.exporter.inspecting import inspect_model
from tools.exporter.keys import verify_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BROKEN: dict[str, Callable[[Path], object]] = {
    f"{name}, {'with' if golden else 'without'} golden strip": partial(write, golden=golden)
    for name, write in (
        ("NaN", bad_models.gives_nan),
        ("1..2", bad_models.gives_too_much),
        ("other channels filled", bad_models.fills_other_channels),
    )
    for golden in (True, False)
}
REFUSED = (
    BROKEN
    | bad_models.BLIND
    | {
        "its own tolerance": bad_models.states_its_own_tolerance,
        "any input scale": bad_models.sees_in_any_scale,
        "no input scale": bad_models.sees_in_no_scale,
        "input name": lambda path: difference_model(path, names=("image", "output")),
        "golden strip": lambda path: difference_model(path, golden_shift=0.01),
        "external data": bad_models.external_data("weights.bin"),
        "cut off": bad_models.truncated,
    }
)


# One of each kind with every change: each starts a worker.
OTHERS = {"constant", "everything is a defect", "weak grey levels as heat", "dark levels as heat"} | {
    name for name in BROKEN if "without" in name
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.soak) if kind in OTHERS else kind for kind in REFUSED]
)
def test_verify_and_inspect_refuse_what_a_box_refuses_and_for_the_same_reason(tmp_path: Path, kind: str) -> None:
    """Reason and sentence are the box's own."""
    path = tmp_path / "m.onnx"
    REFUSED[kind](path)
    on_the_box = try_on_a_box(path, None)
    assert not on_the_box["good"]
    said = f"({on_the_box['reason']}): {on_the_box['detail']}"
    with pytest.raises(ExportError) as caught:
        verify_model(path, [])
    assert said in str(caught.value)
    if kind == "cut off":
        with pytest.raises(ExportError, match="it is cut off"):
            list(inspect_model(path.read_bytes()))
    else:
        assert any(said in line for line in inspect_model(path.read_bytes()))


@pytest.mark.parametrize("scale", ["unit", "gray8"])
def test_verify_and_inspect_find_the_input_scale_that_a_box_finds(tmp_path: Path, scale: str) -> None:
    """Of a file that does not state it."""
    path = tmp_path / "m.onnx"
    difference_model(path, version=None, scale=scale)
    assert f"it takes {scale} input" in try_on_a_box(path, None)["detail"]
    assert any(line.endswith(f"input scale {scale}") for line in verify_model(path, []))
    lines = list(inspect_model(path.read_bytes()))
    assert any(f"a box takes it, and feeds it {scale}" in line for line in lines)
    assert any(line.startswith(f"scale     {scale}: ") and line.endswith(": tells them apart") for line in lines)


@pytest.mark.parametrize("command", ["push", "verify", "inspect"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"PK\x03\x04" + b"pcb/data.pkl" * 20, "a torch checkpoint (.pth); export it first"),
        (b"", "it is empty"),
    ],
)
def test_what_is_no_model_is_named_by_every_command(tmp_path: Path, command: str, content: bytes, said: str) -> None:
    """Before anything is sent anywhere."""
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    (tmp_path / "inbox").mkdir()
    target = [str(tmp_path / "inbox")] if command == "push" else []
    line = [sys.executable, str(ROOT / "tools" / "export.py"), command, str(path), *target]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "inbox").iterdir())
    assert said in try_on_a_box(path, None)["detail"] if content else True


def test_push_says_before_it_sends_that_a_box_could_not_use_the_file(tmp_path: Path) -> None:
    """Wrong names, axes, dtypes: the contract is checked where the file is."""
    path = tmp_path / "m.onnx"
    difference_model(path, names=("image", "heat"))
    (tmp_path / "inbox").mkdir()
    line = [sys.executable, str(ROOT / "tools" / "export.py"), "push", str(path), str(tmp_path / "inbox")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"({Reason.MODEL_NAMES})" in done.stderr
    assert not list((tmp_path / "inbox").iterdir())
