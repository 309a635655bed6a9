"""Small networks of both families, made here, and how to export them quickly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from tests.exporter.trained import save_strips, save_trained
from tools.exporter.approval import Exported
from tools.exporter.exporting import export_model
from tools.exporter.options import Options
from tools.exporter.strips import made_up_strips
from tools.exporter.variants import random_network

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(1)

WIDTH = 8
PATCH = (64, 64)
IMAGE = (150, 96)
CALM = 0.2
Export = Callable[..., Exported]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of each family, as the training writes them, and a calm one.

    Random weights make much of every rounding; the calm one's last layer is weaker, as if it were less sure.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    for family in ("first", "second", "calm"):
        network = random_network(WIDTH, second_family=family == "second", patch=PATCH)
        if family == "calm":
            for parameter in network.decoder.fin_out.parameters():
                parameter.data *= CALM
        paths[family] = folder / f"{family}.pth"
        content = {"model_state_dict": network.state_dict(), "img_height": PATCH[0], "img_width": PATCH[1], "epoch": 1}
        torch.save(content, paths[family])
    return paths


@pytest.fixture
def export(checkpoints: dict[str, Path], tmp_path: Path) -> Export:
    """Export a checkpoint (by default the first family's) to `tmp_path / "out.onnx"`; random weights are blind."""

    def run(checkpoint: Path | str = "first", **asked: Any) -> Exported:
        path = checkpoints[checkpoint] if isinstance(checkpoint, str) else checkpoint
        return export_model(path, tmp_path / "out.onnx", Options(**{"image_size": IMAGE, "allow_blind": True, **asked}))

    return run


@pytest.fixture(autouse=True)
def no_versions_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the last version of these exports apart from the person's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of strips, some of four channels, some with channels last; two are enough here."""
    monkeypatch.setattr("tools.exporter.proof_strips.FEWEST_STRIPS", 2)
    folder = tmp_path / "strips"
    folder.mkdir()
    for number, strip in enumerate(made_up_strips(IMAGE)[:2]):
        pixels = np.concatenate([strip.pixels, strip.pixels[:1]])
        kept = np.moveaxis(pixels, 0, 2) if number else pixels
        photometric: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig" if number else "separate"}
        tifffile.imwrite(folder / f"strip_{number}.TIFF", kept, **photometric)
    return folder


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Write a small trained checkpoint, and a folder of two strips for it, one with a defect; they are enough here."""
    monkeypatch.setattr("tools.exporter.proof_strips.FEWEST_STRIPS", 2)
    folder = tmp_path / "trained"
    folder.mkdir()
    return save_trained(folder / "trained.pth"), save_strips(folder / "strips", 2)
