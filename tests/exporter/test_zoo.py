"""What people have: each kind of file is exported right or refused in one sentence; none gives a wrong model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.exporter.zoo import Animal, exported_right, network, refused
from tools.exporter.checkpoint import load_checkpoint
from tools.exporter.errors import ExportError
from tools.exporter.exporting import export_model
from tools.exporter.options import Options
from tools.exporter.session import open_session, run_strip
from tools.exporter.source import make_source
from tools.exporter.strips import feed, made_up_strips

if TYPE_CHECKING:
    from pathlib import Path

    from tools.exporter.source import Source


@pytest.fixture(scope="module")
def right() -> dict[str, Animal]:
    """Make them here rather than where the file is imported: that is done by every process of a run."""
    return exported_right()


def _load(animal: Animal, folder: Path) -> Source:
    path = folder / f"checkpoint{animal.suffix}"
    path.write_bytes(animal.content)
    checkpoint = load_checkpoint(path)
    assert checkpoint.patch_size == animal.patch
    return make_source(checkpoint, weights=animal.weights)


def test_weights_are_found_whatever_is_around_them(
    right: dict[str, Animal], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """The very numbers that were saved, each under its own key, and the patch that the file states."""
    for name, animal in right.items():
        with subtests.test(name):
            source = _load(animal, tmp_path)
            found, wanted = source.network.state_dict(), animal.state
            assert not source.network.training
            for key in found:
                if not key.endswith("num_batches_tracked"):
                    torch.testing.assert_close(found[key], wanted[key], rtol=0, atol=0)


def test_everything_else_is_refused_in_one_printable_sentence(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """With the cause and what to do; nothing that a terminal obeys."""
    for name, animal in refused().items():
        with subtests.test(name):
            with pytest.raises(ExportError) as refusal:
                _load(animal, tmp_path)
            message = str(refusal.value)
            assert animal.says in message
            assert message.isprintable()
            assert ":" in message, "does not say what to do"
            assert len(message) < 700


@pytest.mark.parametrize("name", ["Lightning", "half floats", "EMA asked for", "second family, wrapped"])
def test_weights_that_were_found_reach_the_file(right: dict[str, Animal], tmp_path: Path, name: str) -> None:
    """The exported file scores as torch does with the weights that were saved, loaded here without the exporter."""
    animal, size = right[name], (64, 32)
    trained = network(squeeze="second" in name)
    trained.load_state_dict(animal.state)
    (path := tmp_path / "checkpoint.pth").write_bytes(animal.content)
    options = Options(image_size=size, patch_size=size, weights=animal.weights, allow_blind=True)
    exported = export_model(path, tmp_path / "out.onnx", options)
    strip = feed(made_up_strips(size)[0], "unit")
    found = run_strip(open_session(exported.path.read_bytes()), strip)
    with torch.no_grad():
        expected = torch.softmax(trained(torch.from_numpy(strip)[None]), 1)[0, 1].numpy()
    assert expected.std() > 1e-3, "a flat heatmap would prove nothing"
    assert np.abs(found - expected).max() <= 5e-5
