"""Other people's ONNX files: they become models of the contract that score the same, or are refused in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import tifffile
from click.testing import CliRunner

from agent.worker.model import load_model
from tests.exporter.zoo_onnx import SIZE, Foreign, adopted, base, expected_heat, refused
from tools.export import main
from tools.exporter.adopting import Wishes, adopt_model
from tools.exporter.errors import ExportError
from tools.exporter.keys import make_keys, verify_model
from tools.exporter.strips import feed, made_up_strips

if TYPE_CHECKING:
    from pathlib import Path

RIGHT, REFUSED = adopted(), refused()


def _write(foreign: Foreign, folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(foreign.content)
    for name, content in foreign.beside.items():
        (folder / name).write_bytes(content)
    return folder / "model.onnx"


def _strips_of_the_line(folder: Path, number: int) -> np.ndarray:
    """Write good strips, whose heatmaps are warmer than those of the built-in ones; returns the last, (3, H, W)."""
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(60, 90, (3, *SIZE), np.uint8)
    pixels[1:] = pixels[0] + 40
    for one in range(number):
        pixels = np.roll(pixels, 1, 1)
        tifffile.imwrite(folder / f"{one}.tif", pixels, photometric="minisblack")
    return pixels


@pytest.mark.parametrize("name", RIGHT)
def test_files_of_others_are_adopted(tmp_path: Path, name: str) -> None:
    """One file that a box takes as labelled, with the heatmaps of before for any batch; nothing of its machine."""
    foreign, out = RIGHT[name], tmp_path / "out.onnx"
    result = adopt_model(_write(foreign, tmp_path), out, Wishes(**foreign.asked))
    assert result.largest_change <= 1e-5
    model = load_model(out.read_bytes(), threads=1, unlabelled_input_scale="auto")
    assert (model.facts.labelled, model.facts.input_scale) == (True, foreign.scale)
    assert model.facts.golden
    strips = made_up_strips(SIZE)[:2]
    fed = np.stack([feed(strip, foreign.scale) for strip in strips])
    output = model.compute(fed)
    for number, strip in enumerate(strips):
        assert np.abs(output[number, 0] - expected_heat(strip.pixels)).max() <= foreign.tolerance
    assert not output[:, 1:].any()
    assert b"somebody" not in out.read_bytes()
    assert verify_model(out, [])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_adopted_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    """With the cause, printable, and without a file."""
    foreign, out = REFUSED[name], tmp_path / "out.onnx"
    with pytest.raises(ExportError) as refusal:
        adopt_model(_write(foreign, tmp_path), out, Wishes(**foreign.asked))
    message = str(refusal.value)
    assert foreign.says in message
    assert message.isprintable()
    assert not out.exists()


def test_adopted_file_is_signed_and_proven_on_strips_of_the_line(tmp_path: Path) -> None:
    """The command line: calibration strips serve for the proof, the golden strip and the light; a manifest is there."""
    _strips_of_the_line(tmp_path / "strips", 2)
    make_keys(tmp_path / "line")
    (tmp_path / "model.onnx").write_bytes(base(names=("a", "b")).SerializeToString())
    arguments = ["adopt", str(tmp_path / "model.onnx"), "--out", str(tmp_path / "out.onnx"), "--threshold", "0.4"]
    arguments += ["--calibration", str(tmp_path / "strips"), "--sign", str(tmp_path / "line.key"), "--model-id", "old"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "2 strips compared before and after" in result.output
    assert "a and b are now input and output" in result.output
    assert any("signature fits" in line for line in verify_model(tmp_path / "out.onnx", [tmp_path / "line.pub"]))
    metadata = {prop.key: prop.value for prop in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert metadata["strip_agent.model_id"] == "old"
    assert metadata["strip_agent.threshold"] == "0.4"
    assert len(metadata["strip_agent.adopted_from"]) == 64
    assert "strip_agent.calibration_level" in metadata


def test_strips_of_the_line_decide_the_threshold_of_an_adopted_file(tmp_path: Path) -> None:
    """As at export: between what is quiet and painted spots; a stated threshold that no defect reaches is refused."""
    calm = _strips_of_the_line(tmp_path / "strips", 3)
    (tmp_path / "model.onnx").write_bytes(base().SerializeToString())
    out = tmp_path / "out.onnx"
    made_up = adopt_model(tmp_path / "model.onnx", out, Wishes()).facts.threshold
    line = adopt_model(tmp_path / "model.onnx", out, Wishes(calibration=tmp_path / "strips")).facts.threshold
    quiet, spots = float(expected_heat(calm.astype(np.float32)).max()), 0.98
    assert made_up == 0.5
    assert line == pytest.approx((quiet + spots) / 2, abs=0.02)
    out.unlink()
    with pytest.raises(ExportError, match="Every defect would be ok"):
        adopt_model(tmp_path / "model.onnx", out, Wishes(calibration=tmp_path / "strips", threshold=1.0))
    assert not out.exists()


def test_push_points_to_adopting(tmp_path: Path) -> None:
    """Who pushes a file with other names is told what makes a model of it."""
    (tmp_path / "model.onnx").write_bytes(base(names=("a", "b")).SerializeToString())
    result = CliRunner().invoke(main, ["push", str(tmp_path / "model.onnx"), str(tmp_path)])
    assert "export.py adopt" in str(result.exception)
