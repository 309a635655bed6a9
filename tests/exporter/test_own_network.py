"""Networks of the user's own: cleaned like any checkpoint, by whichever of torch's exporters takes them."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import tifffile
import torch

from tests.exporter.zoo import saved, under
from tools.exporter.checkpoint import load_checkpoint
from tools.exporter.errors import ExportError
from tools.exporter.session import open_session, run_strip
from tools.exporter.source import make_source
from tools.exporter.strips import feed, made_up_strips

if TYPE_CHECKING:
    from pathlib import Path

    from tests.exporter.conftest import Export

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # people's files go on using it

SIZE = (64, 64)
NETWORKS = """
import sys
import torch
from torch import nn

@torch.jit.script
def branch(features: torch.Tensor, offset: torch.Tensor):
    if bool(features.size(2) > 8):
        return features + offset * features.mean((2, 3), keepdim=True)
    return features * offset

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3, padding=1)
        self.offset = nn.Parameter(torch.full((1, 2, 1, 1), 3.0))

    def forward(self, patches):
        return branch(self.first(patches), self.offset)

class ByTheBatch(Branches):
    def forward(self, patches):
        return self.first(patches) * patches.mean()

class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d((3, 3))
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, patches):
        features = torch.relu(self.first(patches))
        around = nn.functional.interpolate(self.pool(features), size=features.shape[2:], mode="nearest")
        return self.last(features + around)

class WithoutBiases(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.last = nn.Conv2d(4, 2, 1, bias=False)

    def forward(self, patches):
        return self.last(torch.relu(self.first(patches)))

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.Conv2d(3, 2, 1)

    def forward(self, patches):
        return self.module(patches)

class Falls(nn.Module):
    def __init__(self):
        raise KeyError("no such\\nsetting \\x1b[31m")

class Leaves(nn.Module):
    def __init__(self):
        sys.exit(3)

class Stumbles(Branches):
    def forward(self, patches):
        return {}["a\\x1b[31m"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write the networks above."""
    path = tmp_path / "own.py"
    path.write_text(NETWORKS)
    return path


def _network(file: Path, name: str) -> torch.nn.Module:
    specification = importlib.util.spec_from_file_location("own_networks", file)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    torch.manual_seed(0)
    made: torch.nn.Module = getattr(module, name)()
    return made.eval()


def _export(export: Export, file: Path, name: str, **asked: Any) -> float:
    """Export with random weights; returns the largest difference from torch on a strip of one patch."""
    network = _network(file, name)
    (file.parent / "own.pth").write_bytes(saved({"state_dict": under("model.", network.state_dict())}))
    exported = export(file.parent / "own.pth", network=f"{file}:{name}", image_size=SIZE, patch_size=SIZE, **asked)
    strip = feed(made_up_strips(SIZE)[0], "unit")
    found = run_strip(open_session(exported.path.read_bytes()), strip)
    with torch.no_grad():
        expected = torch.softmax(network(torch.from_numpy(strip)[None]), 1)[0, 1].numpy()
    assert expected.std() > 0.001, "a flat heatmap would prove nothing"
    return float(np.abs(found - expected).max())


def test_scripted_branches_are_exported(export: Export, file: Path, tmp_path: Path) -> None:
    """A weight that only a branch reads is found there."""
    assert _export(export, file, "Branches") <= 5e-5
    ops = [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node]
    assert "If" in ops, "there is no branch to prove"


def test_newer_exporter_is_tried_where_the_older_one_fails(
    export: Export, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pooling to a size that does not divide the patch is known to one of torch's exporters only."""
    assert _export(export, file, "Pyramid") <= 5e-5
    assert onnx.load(tmp_path / "out.onnx").opset_import[0].version == 17
    said = capfd.readouterr()
    assert "torch's newer exporter was used" in said.err
    assert len((said.err + said.out).splitlines()) < 5, "torch's own views of the graph are kept back"


def test_layers_without_biases_are_quantised(
    export: Export, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As networks have them whose norms are folded away."""
    monkeypatch.setattr("tools.exporter.proof_strips.FEWEST_STRIPS", 1)
    (tmp_path / "strips").mkdir()
    pixels = made_up_strips(SIZE)[0].pixels
    tifffile.imwrite(tmp_path / "strips" / "a.tif", pixels, photometric="minisblack", planarconfig="separate")
    wide = {"max_score_change": 1, "max_heat_change": 1, "threshold": 1.0}
    change = _export(export, file, "WithoutBiases", precision="int8", calibration=tmp_path / "strips", **wide)
    assert 1e-6 < change < 0.05
    ops = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert "QuantizeLinear" in ops


def test_network_that_mixes_the_batch_is_refused(export: Export, file: Path) -> None:
    """A strip's heatmap must not depend on the strips beside it."""
    with pytest.raises(ExportError, match="batch"):
        _export(export, file, "ByTheBatch")


@pytest.mark.parametrize("prefix", ["", "net.", "_orig_mod.", "module.", "model._orig_mod.module."])
def test_own_keys_are_cleaned_too(file: Path, tmp_path: Path, prefix: str) -> None:
    """Also where a wrapper's word is a name of the network's own."""
    network = _network(file, "Wrapped")
    path = tmp_path / "own.pth"
    path.write_bytes(saved({"state_dict": under(prefix, network.state_dict()) | {"loss.weight": torch.ones(2)}}))
    source = make_source(load_checkpoint(path), f"{file}:Wrapped")
    torch.testing.assert_close(source.network.state_dict(), network.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "says"),
    [("Falls", "cannot be built (KeyError"), ("Leaves", "cannot be built (SystemExit"), ("Stumbles", "does not run")],
)
def test_errors_of_own_code_are_one_sentence(export: Export, file: Path, name: str, says: str) -> None:
    """Whatever a constructor or a forward raises, on one line that a terminal shows as it is."""
    (file.parent / "own.pth").write_bytes(saved(_network(file, "Branches").state_dict()))
    with pytest.raises(ExportError) as refusal:
        export(file.parent / "own.pth", network=f"{file}:{name}", patch_size=SIZE)
    assert says in str(refusal.value)
    assert str(refusal.value).isprintable()
