"""Networks that were trained on differences: the graph makes them out of the strip, exactly as the training does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from tools.export import main
from tools.exporter.calibration import quantise_everything
from tools.exporter.emit import fold
from tools.exporter.errors import ExportError
from tools.exporter.inspecting import inspect_model
from tools.exporter.layout import make_layout
from tools.exporter.session import open_session, run_strip
from tools.exporter.source import Source
from tools.exporter.strips import made_up_strips
from tools.exporter.variants import random_network

if TYPE_CHECKING:
    from pathlib import Path

    from tests.exporter.conftest import Export
    from tools.exporter.networks import UNet

IMAGE, PATCH = (150, 96), (64, 64)
SETS = [
    ["double_det"],
    ["diff1", "diff2"],
    ["target", "double_det"],
    ["target", "diff1", "diff2"],
    ["target", "diff1", "diff2", "double_det"],
    ["target", "ref1", "ref2", "double_det"],
    ["ref2", "target", "ref1"],
]
WIDE: dict[str, Any] = {"max_score_change": 1, "max_heat_change": 1, "threshold": 1.0}
OWN_NETWORK = """
import torch

class Own(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.first = torch.nn.Conv2d(inputs, 4, 3, padding=1)
        self.last = torch.nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, patches):
        return self.last(torch.relu(self.first(patches)))
"""


def _written_definition(strip: np.ndarray, names: list[str]) -> np.ndarray:
    """(3, H, W) grey levels -> (channels, H, W), by the definition's words and nothing of the exporter's."""
    target, ref1, ref2 = strip.astype(np.float32)
    made = {"target": target, "ref1": ref1, "ref2": ref2, "diff1": target - ref1, "diff2": target - ref2}
    both = np.zeros_like(target)
    for row in range(both.shape[0]):
        for column in range(both.shape[1]):
            one, other = made["diff1"][row, column], made["diff2"][row, column]
            if one > 0 and other > 0:
                both[row, column] = min(one, other)
            elif one < 0 and other < 0:
                both[row, column] = max(one, other)
    made["double_det"] = both
    return np.stack([made[name] / np.float32(255) for name in names])


@torch.no_grad()
def _by_hand(network: torch.nn.Module, strip: np.ndarray, names: list[str]) -> np.ndarray:
    """Score a strip of IMAGE patch by patch; rows at 0, 43, 86 and columns at 0, 32 keep their centres."""
    heatmap = np.zeros(IMAGE, np.float32)
    pixels = torch.from_numpy(_written_definition(strip, names))[None].double()
    for row, (top, bottom) in {0: (0, 53), 43: (53, 96), 86: (96, 150)}.items():
        for column, (left, right) in {0: (0, 48), 32: (48, 96)}.items():
            heat = torch.softmax(network(pixels[:, :, row : row + 64, column : column + 64]), 1)[0, 1].numpy()
            heatmap[top:bottom, left:right] = heat[top - row : bottom - row, left - column : right - column]
    return heatmap


def _network(names: list[str], *, second_family: bool = False) -> UNet:
    return random_network(8, second_family=second_family, patch=PATCH, inputs=len(names))


def _save(path: Path, network: torch.nn.Module, **more: Any) -> Path:
    content = {"model_state_dict": network.state_dict(), "img_height": PATCH[0], "img_width": PATCH[1], "epoch": 1}
    torch.save(content | more, path)
    return path


def _strips() -> list[np.ndarray]:
    random = np.random.default_rng(1)
    board = made_up_strips(IMAGE)[1].pixels
    like = np.clip(board[:1] + random.integers(-30, 30, (3, *IMAGE)), 0, 255).astype(np.float32)  # signs of all kinds
    fractions = np.clip(like + random.uniform(-1, 1, like.shape), 0, 255).astype(np.float32)
    return [made_up_strips(IMAGE)[0].pixels, like, fractions]


@pytest.mark.parametrize(
    ("names", "scale"),
    [*((names, "unit") for names in SETS), (SETS[0], "gray8"), (SETS[5], "gray8")],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_channels_of_the_checkpoint_are_computed_in_the_graph(
    export: Export, tmp_path: Path, names: list[str], scale: str
) -> None:
    """Every set in use: the file, fed three channels, gives what the training's definition gives by hand."""
    network = _network(names, second_family=len(names) % 2 == 0)
    exported = export(_save(tmp_path / "new.pth", network, input_channels=names), input_scale=scale)
    session = open_session(exported.path.read_bytes())
    assert session.get_inputs()[0].shape == ["batch", 3, *IMAGE]
    for strip in _strips():
        expected = _by_hand(network.double(), strip, names)
        assert expected.std() > 0.005, "a flat heatmap would prove nothing"
        fed = strip / np.float32(255) if scale == "unit" else strip
        assert np.abs(run_strip(session, fed) - expected).max() <= 5e-5
    assert exported.facts.input_channels == ",".join(names)
    lines = list(inspect_model(exported.path.read_bytes()))
    assert f"metadata  input_channels = {','.join(names)}" in lines


@pytest.mark.parametrize("stated", ["diff1,diff2", "diff1 diff2"])
def test_option_states_channels_where_the_checkpoint_does_not(export: Export, tmp_path: Path, stated: str) -> None:
    """Bare weights of two inputs: --input-channels says what they are, and the order counts."""
    names = ["diff1", "diff2"]
    network = _network(names)
    exported = export(_save(tmp_path / "bare.pth", network), input_channels=stated)
    strip = _strips()[1]
    found = run_strip(open_session(exported.path.read_bytes()), strip / np.float32(255))
    assert np.abs(found - _by_hand(network.double(), strip, names)).max() <= 5e-5
    assert np.abs(found - _by_hand(network, strip, names[::-1])).max() > 1e-3


@pytest.mark.parametrize("opset", [17, pytest.param(18, marks=pytest.mark.soak)])
def test_own_network_takes_channels_too(export: Export, tmp_path: Path, opset: int) -> None:
    """--network with --input-channels, at the older and the newer exporter of torch."""
    (tmp_path / "own.py").write_text(OWN_NETWORK)
    space: dict[str, Any] = {}
    exec(OWN_NETWORK, space)  # noqa: S102 - the text above
    torch.manual_seed(0)
    network = space["Own"](2)
    torch.nn.init.normal_(network.last.weight, std=2.0)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    asked: dict[str, Any] = {"network": f"{tmp_path}/own.py:Own", "network_args": '{"inputs": 2}', "patch_size": PATCH}
    strip = _strips()[2]
    expected = _by_hand(network.double(), strip, ["double_det", "target"])
    exported = export(tmp_path / "own.pth", input_channels="double_det,target", opset=opset, **asked)
    found = run_strip(open_session(exported.path.read_bytes()), strip / np.float32(255))
    assert np.abs(found - expected).max() <= 5e-5
    with pytest.raises(ExportError, match=r"takes 2 channels, a strip has 3.*--input-channels"):
        export(tmp_path / "own.pth", **asked)
    with pytest.raises(ExportError, match=r"takes 2 channels, but 4 are stated"):
        export(tmp_path / "own.pth", input_channels="target,ref1,ref2,diff1", **asked)


def test_whole_strip_takes_channels_too(export: Export, tmp_path: Path) -> None:
    """One run over the strip, padded by reflection to sides that can be halved five times."""
    names = ["target", "double_det"]
    network = _network(names)
    exported = export(_save(tmp_path / "new.pth", network, input_channels=names), window="whole", **WIDE)
    assert not any(node.op_type == "Loop" for node in onnx.load(exported.path).graph.node)
    strip = _strips()[1]
    padded = np.pad(_written_definition(strip, names), ((0, 0), (0, 10), (0, 0)), mode="reflect")
    with torch.no_grad():
        heat = torch.softmax(network.double()(torch.from_numpy(padded)[None].double()), 1)[0, 1].numpy()
    found = run_strip(open_session(exported.path.read_bytes()), strip / np.float32(255))
    assert np.abs(found - heat[: IMAGE[0]]).max() <= 5e-5


def test_int8_reads_differences_in_float() -> None:
    """The layer that reads differences is not quantised, even when all layers were asked for; the others are."""
    names = ("diff1", "diff2")
    network = _network(list(names))
    source = Source(network, fold({key: value.numpy() for key, value in network.state_dict().items()}), "n", names)
    layout = make_layout(IMAGE, PATCH)
    strip = _strips()[1]
    plan = quantise_everything(source, layout, [strip / np.float32(255)], 17).plan
    model = source.draw(layout, plan, window="exact", opset=17, input_scale="unit")
    body = next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g
    producers = {output: node.op_type for node in body.node for output in node.output}
    from_pairs = [producers.get(node.input[0]) == "DequantizeLinear" for node in body.node if node.op_type == "Conv"]
    assert from_pairs[0] is False
    assert sum(from_pairs) >= 24
    found = run_strip(open_session(model.SerializeToString()), strip / np.float32(255))
    expected = _by_hand(network.double(), strip, list(names))
    assert np.abs(found - expected).mean() < 0.2 * expected.std()


def _refused(arguments: list[str], folder: Path) -> str:
    result = CliRunner().invoke(main, ["export", *arguments, "--out", str(folder / "out.onnx")])
    assert isinstance(result.exception, ExportError), f"{result.output} {result.exception!r}"
    assert not (folder / "out.onnx").exists()
    return str(result.exception)


def test_inputs_that_nothing_explains_are_refused_with_what_is_known(tmp_path: Path) -> None:
    """Unknown names, another count, nothing stated, two statements that differ: one sentence each."""
    four = _network(["target"] * 4)
    silent = str(_save(tmp_path / "silent.pth", four))
    assert "takes 4 channels, a strip has 3" in _refused([silent], tmp_path)
    few = str(_save(tmp_path / "few.pth", four, input_channels=["target", "diff1"]))
    assert "takes 4 channels, but 2 are stated (target diff1)" in _refused([few], tmp_path)
    odd = str(_save(tmp_path / "odd.pth", four, input_channels=["target", "diff3", "ref1", "ref2"]))
    assert "input channel 'diff3', which is unknown" in _refused([odd], tmp_path)
    number = str(_save(tmp_path / "number.pth", four, input_channels=4))
    assert "does not say what the 4 are" in _refused([number], tmp_path)
    two = str(_save(tmp_path / "two.pth", _network(["diff1", "diff2"]), input_channels=["diff1", "diff2"]))
    assert "leave the option out" in _refused([two, "--input-channels", "diff2,diff1"], tmp_path)


def test_metadata_is_written_for_raw_channels_too(export: Export) -> None:
    """A file always says what its network was trained on, and how it reads the strip."""
    exported = export()
    assert exported.facts.input_channels == "target,ref1,ref2"
    metadata = {prop.key: prop.value for prop in onnx.load(exported.path).metadata_props}
    assert metadata["strip_agent.input_channels"] == "target,ref1,ref2"
