"""What the exporter asks of a network before it exports it: tell defects from none, and by which threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch

from agent.errors import Blame, Reason, Retry
from tests.helpers.strips import encode, make_pixels
from tools.exporter.errors import ExportError
from tools.exporter.keys import verify_model
from tools.exporter.separation import Separation, check_separation, separate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.exporter.conftest import Export
    from tools.exporter.graph import Array

    Network = Callable[[Array], Array]

SHY_NETWORK = """
import torch
from torch import nn

class Shy(nn.Module):
    # Says 0.15 where target and reference agree, 0.49 at most where they do not.
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, patches):
        logit = nn.functional.relu6(self.first(patches)).sum(1, keepdim=True) * 0.28 - 1.73
        return torch.cat([torch.zeros_like(logit), logit], 1)
"""
SIZE: dict[str, Any] = {"height": 200, "width": 120}


@pytest.fixture(scope="module")
def shy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Write the shy network's checkpoint and its file; give the checkpoint and what --network takes."""
    folder = tmp_path_factory.mktemp("shy")
    (folder / "shy.py").write_text(SHY_NETWORK)
    weight = torch.zeros(2, 3, 3, 3)
    weight[0, 0], weight[0, 1], weight[1, 0], weight[1, 1] = 3.0, -3.0, -3.0, 3.0
    torch.save({"first.weight": weight, "first.bias": torch.full((2,), -0.5)}, folder / "shy.pth")
    return folder / "shy.pth", f"{folder / 'shy.py'}:Shy"


def shy(strip: Array) -> Array:
    """Separate well, but never say more than 0.49."""
    difference = cv2.blur(np.abs(strip[0] - strip[1]), (3, 3))
    heatmap: Array = (0.14 + 0.35 * np.clip(difference / 60 - 0.1, 0, 1)).astype(np.float32)
    return heatmap


def bold(strip: Array) -> Array:
    """Say 1 of defects and 0 of the rest."""
    return np.clip((shy(strip) - 0.2) * 4, 0, 1).astype(np.float32)


def constant(strip: Array) -> Array:
    """See nothing."""
    return np.full(strip.shape[1:], 0.4, np.float32)


def saturated(strip: Array) -> Array:
    """See a defect everywhere."""
    return np.ones(strip.shape[1:], np.float32)


def inverted(strip: Array) -> Array:
    """Call defects good and the rest defective."""
    return 1 - bold(strip)


def look(network: Network, *, of_the_line: bool, defective: int = 0) -> Separation:
    """Show six strips to a network, so many of them defective."""
    strips = [make_pixels(seed=number, defect=number < defective, channels=3, **SIZE) for number in range(6)]
    return separate(strips, [network(strip) for strip in strips], network, of_the_line=of_the_line)


@pytest.mark.parametrize("defective", [0, 3, 6])
@pytest.mark.parametrize("of_the_line", [True, False])
def test_the_threshold_lies_between_good_strips_and_defects_wherever_that_is(defective: int, of_the_line: bool) -> None:
    """A network whose defects all stay below 0.5 gets a threshold that finds them."""
    found = look(shy, of_the_line=of_the_line, defective=defective)
    check_separation(found, None)
    assert 0.2 < found.threshold < 0.42
    assert shy(make_pixels(seed=9, channels=3, **SIZE)).max() < found.threshold
    assert shy(make_pixels(seed=9, defect=True, channels=3, **SIZE)).max() >= found.threshold
    assert f"threshold {found.threshold:g}: without a defect at most" in found.describe()


@pytest.mark.parametrize("of_the_line", [True, False])
@pytest.mark.parametrize("network", [constant, saturated, inverted])
def test_a_network_that_is_blind_is_refused(network: Network, of_the_line: bool) -> None:
    """With strips of the line, and on made-up ones without."""
    with pytest.raises(ExportError, match=r"The network is blind: .*--allow-blind .*which no box takes"):
        check_separation(look(network, of_the_line=of_the_line), None)


@pytest.mark.parametrize(
    ("strips", "defects", "lowest", "highest"),
    [
        (
            (0.20, 0.28, 0.992),
            (0.991, 0.993, 0.997),
            0.5,
            0.75,
        ),  # a strip with a defect of its own, as hot as the spots
        ((0.20, 0.28, 0.80), (0.99, 0.99, 0.99), 0.4, 0.7),  # one that is less hot
        ((0.98, 0.99), (0.97, 0.99, 0.99), 0.3, 0.7),  # nothing but defects
        ((0.14, 0.177), (0.488, 0.49, 0.492), 0.2, 0.45),  # a shy network
        ((0.05, 0.30, 0.40), (0.60, 0.62), 0.45, 0.55),  # good strips that differ
        ((0.40, 0.45), (0.50, 0.55), 0.45, 0.5),  # hardly apart
    ],
)
def test_strips_with_defects_of_their_own_do_not_move_the_threshold(
    strips: tuple[float, ...], defects: tuple[float, ...], lowest: float, highest: float
) -> None:
    """Nobody says which of the calibration strips are good."""
    found = Separation(strips, (0.05,) * len(defects), defects, 0.05, "strips")
    assert lowest < found.threshold < highest
    assert found.describe().isprintable()


def test_a_threshold_that_no_defect_reaches_is_refused_with_the_one_that_would_do() -> None:
    """Every defect would be ok."""
    found = look(shy, of_the_line=True, defective=2)
    with pytest.raises(ExportError, match=rf"Every defect would be ok.*threshold {found.threshold:g}"):
        check_separation(found, 0.5)
    check_separation(found, 0.3)
    check_separation(look(bold, of_the_line=True), 0.5)


def test_a_network_that_reacts_to_strips_but_to_no_painted_spot_is_taken() -> None:
    """It was trained on something else; the strips that stand out tell the threshold."""
    strips = [make_pixels(seed=number, channels=3, **SIZE) for number in range(4)]
    heatmaps = [np.full((200, 120), heat, np.float32) for heat in (0.2, 0.8, 0.22, 0.7)]
    found = separate(strips, heatmaps, lambda _: heatmaps[0], of_the_line=True)
    check_separation(found, None)
    assert 0.2 < found.threshold < 0.8


@pytest.mark.parametrize("calibrated", [True, False])
def test_an_export_stamps_a_threshold_that_finds_defects_and_a_box_takes_the_file(
    export: Export, shy_checkpoint: tuple[Path, str], tmp_path: Path, calibrated: bool
) -> None:
    """The whole way: without --threshold, with strips of the line and without, from a network that stays below 0.5."""
    checkpoint, network = shy_checkpoint
    for number in range(3):
        (tmp_path / "line").mkdir(exist_ok=True)
        pixels = make_pixels(seed=number, height=150, width=96)
        (tmp_path / "line" / f"{number}.tif").write_bytes(encode(pixels))
    calibration = {"calibration": tmp_path / "line"} if calibrated else {}
    exported = export(checkpoint, network=network, patch_size=(64, 64), allow_blind=False, **calibration)
    assert exported.separation is not None
    assert exported.facts.threshold == exported.separation.threshold
    assert exported.facts.threshold is not None
    assert 0.2 < exported.facts.threshold < 0.45
    assert any("tells a defect from none" in line for line in verify_model(exported.path, []))
    with pytest.raises(ExportError, match="Every defect would be ok"):
        export(checkpoint, network=network, patch_size=(64, 64), allow_blind=False, threshold=0.5, **calibration)


def test_an_export_without_memory_for_the_trial_ends_in_one_sentence(
    shy_checkpoint: tuple[Path, str], export: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After long work a traceback would say nothing; no file is left."""
    checkpoint, network = shy_checkpoint

    def no_memory(*_: object, **__: object) -> None:
        raise Retry(Reason.NO_MEMORY, "no memory for the model", Blame.BOX)

    monkeypatch.setattr("tools.exporter.approval.prove", no_memory)
    with pytest.raises(ExportError, match=r"no memory for the model\): free some memory"):
        export(checkpoint, network=network, patch_size=(64, 64), allow_blind=False)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("strips", "before", "defects", "settled"),
    [
        ((0.10,), (0.05,) * 3, (0.90,) * 3, True),
        ((0.10,), (0.05,) * 3, (0.901,) * 3, False),  # half way lies a fourth digit of 5
        ((0.10, 0.814), (0.05,) * 3, (0.90,) * 3, True),
        ((0.10, 0.815), (0.05,) * 3, (0.90,) * 3, False),  # nearly as hot as the spots, or not
        ((0.10,), (0.05, 0.05, 0.05), (0.15, 0.90, 0.91), False),  # a spot that is just seen, or not
        ((0.10, 0.37, 0.37), (0.05,) * 3, (0.505,) * 3, False),  # the wider gap is this one, or that one
    ],
)
def test_a_threshold_that_rounding_may_move_is_known(
    strips: tuple[float, ...], before: tuple[float, ...], defects: tuple[float, ...], settled: bool
) -> None:
    """By a digit, or because a strip, a spot or a gap counts or does not; then it is computed exactly."""
    assert Separation(strips, before, defects, 0.05, "strips").is_settled == settled
