"""Small networks of both families, made here, and how to export them quickly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from tools.exporter.exporting import Exported, Options, export_model
from tools.exporter.strips import made_up_strips
from tools.exporter.variants import random_network

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(1)

WIDTH = 8
PATCH = (64, 64)
IMAGE = (150, 96)
Export = Callable[..., Exported]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of each family, as the training writes them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    for family in ("first", "second"):
        network = random_network(WIDTH, second_family=family == "second", patch=PATCH)
        paths[family] = folder / f"{family}.pth"
        content = {"model_state_dict": network.state_dict(), "img_height": PATCH[0], "img_width": PATCH[1], "epoch": 1}
        torch.save(content, paths[family])
    return paths


@pytest.fixture
def export(checkpoints: dict[str, Path], tmp_path: Path) -> Export:
    """Export a checkpoint (by default the first family's) to `tmp_path / "out.onnx"`."""

    def run(checkpoint: Path | str = "first", **asked: Any) -> Exported:
        path = checkpoints[checkpoint] if isinstance(checkpoint, str) else checkpoint
        return export_model(path, tmp_path / "out.onnx", Options(**{"image_size": IMAGE, **asked}))

    return run


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """Make a folder of strips, some of four channels, some with channels last."""
    folder = tmp_path / "strips"
    folder.mkdir()
    for number, strip in enumerate(made_up_strips(IMAGE)[:2]):
        pixels = np.concatenate([strip.pixels, strip.pixels[:1]])
        kept = np.moveaxis(pixels, 0, 2) if number else pixels
        photometric: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig" if number else "separate"}
        tifffile.imwrite(folder / f"strip_{number}.TIFF", kept, **photometric)
    return folder
