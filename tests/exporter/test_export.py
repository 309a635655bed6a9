"""Exporting: whatever checkpoint comes, the file scores as torch does, or is refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from agent.contract.golden import decode_golden
from tools.export import main
from tools.exporter.checkpoint import load_checkpoint
from tools.exporter.errors import ExportError
from tools.exporter.graph import newest_opset
from tools.exporter.keys import read_facts
from tools.exporter.layout import make_layout
from tools.exporter.reference import Seen, reference_heatmap
from tools.exporter.session import open_session, run_strip
from tools.exporter.source import make_source
from tools.exporter.strips import feed, made_up_strips
from tools.exporter.variants import random_network

if TYPE_CHECKING:
    from tests.exporter.conftest import Export

IMAGE = (150, 96)
WIDE = {"max_score_change": 1, "max_heat_change": 1, "threshold": 1.0}
OWN_NETWORK = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, channels=4, pool=False):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.last = nn.Conv2d(channels, 2, 3, padding=1)
        self.pool = pool

    def forward(self, patches):
        features = torch.relu(self.norm(self.first(patches)))
        if self.pool:
            features = features * features.mean((2, 3), keepdim=True)
        return self.last(features)

class TooFew(Own):
    def forward(self, patches):
        return super().forward(patches)[:, :1]
"""


@pytest.mark.parametrize("family", ["first", "second"])
@pytest.mark.parametrize("opset", [11, 17, newest_opset()])
def test_file_scores_as_torch_at_every_opset(
    export: Export, checkpoints: dict[str, Path], family: str, opset: int
) -> None:
    """Both families, oldest to newest opset: every pixel within 5e-5 of torch in double precision, at this opset."""
    exported = export(family, opset=opset)
    model = onnx.load(exported.path)
    assert [(imported.domain, imported.version) for imported in model.opset_import] == [("", opset)]
    network = make_source(load_checkpoint(checkpoints[family]), None, None).module
    strip = made_up_strips(IMAGE)[0]
    expected = reference_heatmap(network, make_layout(IMAGE, (64, 64)), feed(strip, "unit"), double=True)
    assert expected.std() > 0.01, "a flat heatmap would prove nothing"
    found = run_strip(open_session(exported.path.read_bytes()), feed(strip, "unit"))
    assert np.abs(found - expected).max() <= 5e-5


def test_gray8_takes_grey_levels(export: Export) -> None:
    """The graph divides: grey levels in, the same heatmap out, and the metadata says so."""
    strip = made_up_strips(IMAGE)[0]
    unit = run_strip(open_session(export().path.read_bytes()), feed(strip, "unit"))
    exported = export(input_scale="gray8")
    assert exported.facts.input_scale == "gray8"
    found = run_strip(open_session(exported.path.read_bytes()), strip.pixels)
    assert float(np.abs(found - unit).max()) <= 5e-5  # the divided grey levels round differently


@pytest.mark.parametrize("image_size", [(192, 192), (64, 64), (64, 100)])
def test_other_layouts_score_as_torch(export: Export, image_size: tuple[int, int]) -> None:
    """Square strips, a single patch, one row of patches: the export itself compares them with torch."""
    exported = export(image_size=image_size)
    assert exported.facts.golden
    assert exported.worst.heat_change <= exported.limits.heat_change <= 1e-4


@pytest.mark.parametrize("kind", ["bare", "parallel", "safetensors", "state_dict"])
def test_weights_are_found_in_every_kind_of_file(
    export: Export, checkpoints: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Bare state dicts, DataParallel's prefix, safetensors, another name of the same thing."""
    content = torch.load(checkpoints["first"], weights_only=True)["model_state_dict"]
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        safetensors.torch.save_file(content, path)
    elif kind == "parallel":
        torch.save({f"module.{key}": value for key, value in content.items()}, path)
    else:
        torch.save(content if kind == "bare" else {"state_dict": content}, path)
    exported = export(path, patch_size=(64, 64))
    assert exported.facts.model_id == "weights"


def test_same_input_gives_the_same_bytes(export: Export, calibration: Path, checkpoints: dict[str, Path]) -> None:
    """With a version and a time: deterministic, quantised files too, whenever the checkpoint was copied."""
    named = {"version": 7, "created": "2026-01-01T00:00:00Z"}
    asked: dict[str, Any] = {"precision": "int8", "calibration": calibration, **named, **WIDE}
    first = export("calm", **asked).path.read_bytes()
    os.utime(checkpoints["calm"], (10**9, 10**9))
    assert export("calm", **asked).path.read_bytes() == first


@pytest.mark.parametrize("opset", [17, 18])
def test_file_is_one_and_tells_nothing_of_its_machine(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opset: int
) -> None:
    """No external data, no paths, host or user names, no stack traces: not with a user's network either."""
    monkeypatch.setenv("USER", "somebody-at-the-desk")
    checkpoint, network = _own_network(tmp_path)
    for exported in (export(), export(checkpoint, network=network, patch_size=(64, 64), opset=opset)):
        content = exported.path.read_bytes()
        for secret in (str(tmp_path), str(Path.cwd()), "somebody-at-the-desk", "Traceback", "site-packages"):
            assert secret.encode() not in content
        model = onnx.load_from_string(content)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def _own_network(folder: Path, **arguments: Any) -> tuple[Path, str]:
    (folder / "own.py").write_text(OWN_NETWORK)
    names: dict[str, Any] = {}
    exec(OWN_NETWORK, names)  # noqa: S102 - the text above
    torch.manual_seed(0)
    network = names["Own"](**arguments)
    torch.nn.init.normal_(network.last.weight, std=1.0)
    torch.save(network.state_dict(), folder / "own.pth")
    return folder / "own.pth", f"{folder / 'own.py'}:Own"


@pytest.mark.parametrize("opset", [11, 17, pytest.param(18, marks=pytest.mark.soak), newest_opset()])
def test_own_network_scores_as_torch(export: Export, tmp_path: Path, opset: int) -> None:
    """--network FILE.py:Class with constructor arguments, at each kind of opset."""
    checkpoint, network = _own_network(tmp_path, channels=6)
    exported = export(checkpoint, network=network, network_args='{"channels": 6}', patch_size=(64, 64), opset=opset)
    assert onnx.load(exported.path).opset_import[0].version == opset
    assert exported.worst.heat_change <= 5e-5


def test_golden_strip_is_the_one_asked_for(export: Export, calibration: Path) -> None:
    """--golden: that strip travels in the file, with the heatmap that the file gives."""
    chosen = calibration / "strip_1.TIFF"
    facts = export(golden=chosen).facts
    golden = decode_golden(facts.golden, *IMAGE)
    assert (golden.strip == made_up_strips(IMAGE)[1].pixels).all()
    assert read_facts(Path(chosen.parents[1] / "out.onnx").read_bytes()) == facts


def test_whole_window_is_refused_where_the_network_pools(export: Export, tmp_path: Path) -> None:
    """Squeeze and excitation, or a mean in a user's network: the whole strip would be another function."""
    with pytest.raises(ExportError, match="--window exact"):
        export("second", window="whole")
    checkpoint, network = _own_network(tmp_path, pool=True)
    asked = {"network": network, "network_args": '{"pool": true}', "patch_size": (64, 64)}
    with pytest.raises(ExportError, match="--window exact"):
        export(checkpoint, window="whole", **asked)


def test_whole_window_runs_once_over_the_strip(export: Export) -> None:
    """Within wide limits it is the same; the graph has no loop."""
    exported = export(window="whole", max_score_change=1, max_heat_change=1, threshold=0.0)
    assert not any(node.op_type == "Loop" for node in onnx.load(exported.path).graph.node)
    assert exported.facts.height == IMAGE[0]


def _refusals(folder: Path, good: Path) -> dict[str, tuple[list[str], str]]:
    content = torch.load(good, weights_only=True)
    state = content["model_state_dict"]

    def save(name: str, value: Any) -> str:
        torch.save(value, folder / name)
        return str(folder / name)

    own, network = _own_network(folder)
    less = {key: value for key, value in state.items() if "up1" not in key}
    four = {**state, "encoder.block1.0.weight": torch.zeros(8, 4, 3, 3)}
    nan = {**state, "decoder.fin_out.0.bias": torch.full((2,), torch.nan)}
    (folder / "empty").mkdir()
    (folder / "text.pth").write_text("no weights here")
    (folder / "broken.py").write_text("import nothing_like_this")
    path = str(folder)
    return {
        "missing file": ([f"{path}/none.pth"], "Cannot read"),
        "text": ([f"{path}/text.pth"], "it is text"),
        "not weights": ([save("list.pth", [1, 2])], "save model.state_dict"),
        "whole module": ([save("module.pth", torch.nn.Linear(2, 2))], "save model.state_dict"),
        "missing keys": ([save("less.pth", less)], "missing keys: decoder.up1"),
        "unexpected keys": ([save("more.pth", {**state, "extra": torch.zeros(1)})], "unexpected keys: extra"),
        "four channels": ([save("four.pth", four)], "takes 4 channels, a strip has 3"),
        "not finite": ([save("nan.pth", nan)], "not finite"),
        "unknown network": ([str(own)], "--network"),
        "wrong class": ([str(own), "--network", f"{path}/own.py:Other"], "it has Own, TooFew"),
        "broken file": ([str(own), "--network", f"{path}/broken.py:Own"], "mend it"),
        "wrong arguments": ([str(own), "--network", network, "--network-args", '{"width": 3}'], "--network-args"),
        "wrong output": ([str(own), "--network", f"{path}/own.py:TooFew"], "it must give (B, 2, h, w)"),
        "old opset": ([str(good), "--opset", "10"], "choose --opset 11"),
        "future opset": ([str(good), "--opset", "999"], "choose --opset 11"),
        "int8 at opset 11": (
            [str(good), "--precision", "int8", "--calibration", path, "--opset", "11"],
            "--opset 13",
        ),
        "no calibration": ([str(good), "--precision", "int8"], "--calibration FOLDER"),
        "no folder for the output": ([str(own), "--out", f"{path}/none/m.onnx"], "choose a folder"),
        "no folder for the report": ([str(own), "--report", f"{path}/none/r.html"], "choose a folder"),
        "seven strips": (
            [str(good), "--precision", "int8", "--calibration", path, "--image-size", "64", "64"],
            "0 strips of 64 x 64, 8 are needed",
        ),
        "empty calibration": ([str(good), "--calibration", f"{path}/empty"], "put strips"),
        "patch too large": ([str(good), "--image-size", "32", "32"], "--image-size"),
        "odd patch": ([str(good), "--image-size", "150", "96", "--patch", "50", "50"], "give --patch"),
        "bad model id": (
            [str(good), "--image-size", "64", "64", "--model-id", "../x", "--allow-blind"],
            "model_id",
        ),
        "blind": ([str(good), "--image-size", "150", "96"], "--allow-blind"),
        "no key": ([str(good), "--image-size", "64", "64", "--sign", f"{path}/none.key"], "keygen"),
    }


def test_every_refusal_is_one_sentence_that_says_what_to_do(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Exit code 1, one line, no traceback, nothing under the final name."""
    out = tmp_path / "refused.onnx"
    for name, (arguments, says) in _refusals(tmp_path, checkpoints["first"]).items():
        result = CliRunner().invoke(main, ["export", "--out", str(out), *arguments])
        assert isinstance(result.exception, ExportError), f"{name}: {result.output} {result.exception!r}"
        message = str(result.exception)
        assert says in message, name
        assert ":" in message, f"{name}: does not say what to do"
        assert "\n" not in message, name
        assert not out.exists(), name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system that is full")
def test_full_disk_leaves_nothing_under_the_final_name(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """No room for the file: refused with what to do, no half file, no temporary file."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {folder}"):  # noqa: S605 - a path of pytest's own
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        arguments = ["export", str(checkpoints["first"]), "--image-size", "64", "64", "--allow-blind"]
        arguments += ["--out", str(folder / "m.onnx")]
        result = CliRunner().invoke(main, arguments)
        assert "choose a folder with room" in str(result.exception)
        assert list(folder.iterdir()) == []
    finally:
        os.system(f"umount {folder}")  # noqa: S605 - the same


def test_a_patch_that_was_seen_before_is_not_computed_again() -> None:
    """A spot in a strip changes few of its patches: the network runs on these alone, the heatmap is the same."""
    network, layout = random_network(8, second_family=False, patch=(64, 64)), make_layout(IMAGE, (64, 64))
    strip = feed(made_up_strips(IMAGE)[0], "unit")
    spotted = strip.copy()
    spotted[0, 2:5, 2:5] = 1 - spotted[0, 2:5, 2:5]
    runs: list[int] = []
    network.register_forward_hook(lambda *_: runs.append(1))
    seen: Seen = {}
    reference_heatmap(network, layout, strip, seen=seen)
    assert len(runs) == len(layout.windows)
    again = reference_heatmap(network, layout, spotted, seen=seen)
    assert len(runs) == len(layout.windows) + 1
    assert np.array_equal(again, reference_heatmap(network, layout, spotted))
