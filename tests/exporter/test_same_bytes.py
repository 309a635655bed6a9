"""One file, the same everywhere: no processor's rounding reaches the bytes, and bad ones are refused on all of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from agent.contract.golden import decode_golden
from agent.contract.measures import FEWEST_STRIPS
from tests.exporter import bad_quantisations
from tests.exporter.trained import TRAINED_IMAGE, save_strips
from tests.helpers.repository import ROOT
from tests.helpers.soak import SHARE
from tools.exporter import calibration as calibrating
from tools.exporter import proof_strips, proving, reference, separation
from tools.exporter.calibration import calibrate
from tools.exporter.emit import fold
from tools.exporter.errors import ExportError
from tools.exporter.exact import Found, exact_network
from tools.exporter.exporting import export_model
from tools.exporter.guard import Limits, pixels_to_look_at
from tools.exporter.layout import make_layout
from tools.exporter.options import Options
from tools.exporter.patchwise import (
    can_be_exact,
    cut_patches,
    exact_heatmaps,
    patch_model,
    watched_network,
    why_not_exact,
)
from tools.exporter.quantise import QuantisationPlan
from tools.exporter.reference import reference_heatmap
from tools.exporter.session import open_session, run_strip
from tools.exporter.source import Source
from tools.exporter.strips import feed, made_up_strips
from tools.exporter.variants import random_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tools.exporter.approval import Exported

ASKED: dict[str, Any] = {
    "precision": "int8",
    "image_size": TRAINED_IMAGE,
    "version": 1,
    "created": "2026-01-01T00:00:00Z",
}
IMAGE, PATCH = (150, 96), (64, 64)
# Two vector units that emulation knows: with fused multiplication and without. AVX-512 it does not know.
PROCESSORS = ["Haswell", "Nehalem"]


def _export(trained: tuple[Path, Path], out: Path, **asked: Any) -> Exported:
    checkpoint, strips = trained
    return export_model(checkpoint, out, Options(calibration=strips, allow_blind=True, **{**ASKED, **asked}))


def _rounds_otherwise(patch: pytest.MonkeyPatch, seed: int) -> None:
    """Let another processor's rounding stand in for this one's, as large as was seen between real ones."""
    random = np.random.default_rng(seed)

    def with_noise(heatmap: np.ndarray, size: float) -> np.ndarray:
        noise = random.uniform(-size, size, heatmap.shape).astype(np.float32)
        noisy: np.ndarray = np.clip(heatmap + noise, 0, 1)
        return noisy

    def _noisy_reference(*given: Any, **named: Any) -> np.ndarray:
        return with_noise(reference_heatmap(*given, **named), 1e-6)

    patch.setattr(proving, "run_strip", lambda *given: with_noise(run_strip(*given), 0.004))
    patch.setattr(proving, "reference_heatmap", _noisy_reference)
    patch.setattr(proving, "check_batches", lambda *_: None)  # a strip differs from itself now


def _torch_rounds_otherwise(patch: pytest.MonkeyPatch, size: float) -> None:
    random = np.random.default_rng(0)
    heats: Callable[..., list[np.ndarray]] = reference._heats

    def noisy(*given: Any) -> list[np.ndarray]:
        return [heat + random.uniform(-size, size, heat.shape).astype(heat.dtype) for heat in heats(*given)]

    patch.setattr(reference, "_heats", noisy)


def test_another_processors_rounding_does_not_reach_the_file(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden heatmap, plan and every figure in the file come out the same; the heatmap is the exact one."""
    here = _export(trained, tmp_path / "here.onnx")
    _rounds_otherwise(monkeypatch, 1)
    there = _export(trained, tmp_path / "there.onnx")
    assert not np.array_equal(here.proven[0].found, there.proven[0].found)
    assert here.path.read_bytes() == there.path.read_bytes()
    golden = decode_golden(here.facts.golden, *TRAINED_IMAGE)
    assert here.calibration
    plan, strip = here.calibration.plan, golden.strip / np.float32(255)
    [exact] = exact_heatmaps(here.source, here.layout, plan, [(strip, None)], window="exact", opset=17)
    assert np.array_equal(golden.heatmap, exact.astype(np.float32).astype(np.float16).astype(np.float32))


def test_torchs_rounding_does_not_reach_scores_and_threshold(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes near a decision, or is written to four digits, is computed in double precision."""
    line = trained[0], save_strips(tmp_path / "line", 2 * FEWEST_STRIPS)
    for number in range(2, 2 * FEWEST_STRIPS, 2):  # all but one that show defects
        (line[1] / f"strip_{number}.tif").unlink()
    for module in (proof_strips, separation):
        monkeypatch.setattr(module, "MOST_STRIPS", 1)
    for module, name, value in (
        (separation, "NOISE", 0.02),
        (proof_strips, "NOISE", 0.02),
        (proof_strips, "SAME", 0.5),
    ):
        monkeypatch.setattr(module, name, value)  # as much larger than what is seen as the noise here
    asked: dict[str, Any] = {"precision": "fp32", "max_heat_change": 0.01, "max_score_change": 0.01}
    here = _export(line, tmp_path / "here.onnx", **asked)
    _torch_rounds_otherwise(monkeypatch, 3e-3)
    there = _export(line, tmp_path / "there.onnx", **asked)
    assert not np.array_equal(here.proven[0].expected, there.proven[0].expected)
    assert here.facts == there.facts
    assert here.facts.reference
    assert here.facts.reference.spreads["score"].deviation > 0
    assert here.path.read_bytes() == there.path.read_bytes()


def test_a_processor_that_computes_something_else_exports_nothing(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this processor's result is far from the exact one, no box like it could use the file."""
    monkeypatch.setattr(proving, "run_strip", lambda *given: np.minimum(run_strip(*given) + np.float32(0.06), 1))
    with pytest.raises(ExportError, match=r"On this processor .* from exact arithmetic"):
        _export(trained, tmp_path / "out.onnx", max_score_change=1, max_heat_change=1, threshold=0.999)
    assert not (tmp_path / "out.onnx").exists()


class _Rounding:
    """A session whose results are all a little larger or smaller."""

    def __init__(self, model: bytes, factor: float) -> None:
        self.session, self.factor = open_session(model), np.float32(factor)

    def run(self, *given: Any) -> list[np.ndarray]:
        return [found * self.factor for found in self.session.run(*given)]


def test_a_range_at_a_step_of_its_grid_is_settled_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are widened to a grid; one that lies where rounding would choose the step is computed again."""
    layout, strips = make_layout(IMAGE, PATCH), [feed(strip, "unit") for strip in made_up_strips(IMAGE)[:1]]
    network = random_network(8, second_family=False, patch=PATCH)
    known = fold({key: value.numpy() for key, value in network.state_dict().items()})
    names, model = watched_network(Source(network, known, "n"), layout, 17)
    place, exact = names.index("decoder.db4.3/relu"), exact_network(model)
    highest = max(float(exact(patch)[place].max()) for patch in cut_patches(strips[0], layout))
    factor = (100 / 64 - 1 / 64**2) / highest  # the step to 101/64 is right there
    scaled = [(values * np.float64(factor)).astype(np.float32) for values in known.weights["decoder.db4.3"]]
    weights = {**known.weights, "decoder.db4.3": (scaled[0], scaled[1])}
    source = Source(network, type(known)(weights, second_family=False), "n")
    ranges = []
    for rounding in (1 - 5e-6, 1, 1 + 5e-6):
        monkeypatch.setattr(calibrating, "open_session", lambda model, by=rounding: _Rounding(model, by))
        ranges.append(calibrate(source, layout, strips, 17).plan.ranges)
    assert ranges[0] == ranges[1] == ranges[2]


class _Odd(torch.nn.Module):
    """Layers that a user's own network may have."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, groups=1)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.up = torch.nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.last = torch.nn.Conv2d(12, 2, 3, padding=2, dilation=2)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        features = torch.nn.functional.gelu(self.norm(self.down(patches)))
        nearest = torch.nn.functional.interpolate(features, scale_factor=2.0, mode="nearest")
        bilinear = torch.nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
        parts = [self.up(features), nearest, bilinear]
        pooled = torch.nn.functional.avg_pool2d(torch.cat(parts, 1), 3, 1, 1)
        return self.last(torch.nn.functional.max_pool2d(pooled, 3, 1, 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "window"), [("first", "exact"), ("second", "exact"), ("first", "whole"), ("odd", "exact")]
)
def test_double_precision_computes_what_torch_computes_in_it(kind: str, window: str) -> None:
    """The exact heatmap is the network's, or as near as folded weights in single precision are."""
    torch.manual_seed(0)
    if kind == "odd":
        source = Source(_Odd().eval(), None, "odd")
    else:
        network = random_network(8, second_family=kind == "second", patch=PATCH)
        state = {key: value.numpy() for key, value in network.state_dict().items()}
        source = Source(network, fold(state), "n")
    layout, strip = make_layout(IMAGE, PATCH), feed(made_up_strips(IMAGE)[0], "unit")
    assert can_be_exact(source, layout, 17)
    [found] = exact_heatmaps(source, layout, None, [(strip, None)], window=window, opset=17)
    if window == "whole":
        padded = np.pad(strip, ((0, 0), (0, 10), (0, 0)), mode="reflect")
        with torch.no_grad():
            logits = source.module.double()(torch.from_numpy(padded)[None].double())
        expected = torch.softmax(logits, 1)[0, 1].numpy()[: IMAGE[0]]
    else:
        expected = reference_heatmap(source.module, layout, strip, double=True)
    assert expected.std() > 0.001
    assert np.abs(found - expected).max() < (1e-7 if kind == "odd" else 2e-5)


def test_a_network_that_double_precision_cannot_compute_is_told() -> None:
    """It can be exported all the same; only then the bytes may depend on the processor. The sentence says why."""

    class Circular(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.max_pool2d(patches, 2, 2, ceil_mode=True)

    source = Source(Circular(), None, "c")
    assert why_not_exact(source, make_layout(IMAGE, PATCH), 17) == (
        "The network cannot be computed in double precision: a pooling rounds its edge up (ceil_mode), or has "
        "unequal edges."
    )


def test_what_graphs_have_in_common_is_computed_once_and_comes_out_the_same() -> None:
    """A graph that takes over what another one computed gives, to the last bit, what it gives by itself."""
    layout, strip = make_layout(IMAGE, PATCH), feed(made_up_strips(IMAGE)[0], "unit")
    network = random_network(8, second_family=False, patch=PATCH)
    source = Source(network, fold({key: value.numpy() for key, value in network.state_dict().items()}), "n")
    ranges = calibrate(source, layout, [strip], 17).plan.ranges
    patch = next(cut_patches(strip, layout))
    constants: Found = {}
    same: Found = {}
    exact_network(patch_model(source, layout, 17, QuantisationPlan(ranges)), constants)(patch, keep=same)
    shared = []
    for layer in ("encoder.block1.0", "decoder.up3.1", "decoder.db4.3"):
        model, keep = patch_model(source, layout, 17, QuantisationPlan(ranges, frozenset({layer}))), dict[str, Any]()
        [alone], [together] = exact_network(model)(patch), exact_network(model, constants)(patch, same, keep)
        assert np.array_equal(alone, together)
        shared.append(len(set(keep) & set(same)))
    assert shared[0] < shared[1] < shared[2], "what precedes the layer"


def test_only_patches_that_come_near_a_limit_are_looked_at_closer() -> None:
    """A pixel that changes marks itself and what its rim may reach; the rest of a quiet strip is left alone."""
    limits = Limits(0.02, 0.05, rim_px=1, overlap=0.95)
    expected = np.full((60, 60), 0.1, np.float32)
    expected[5:10, 5:10] = 0.9  # a region, and the score
    found = expected.copy()
    found[40, 40] += 0.04
    marked = pixels_to_look_at(expected, found, 0.5, limits)
    assert marked[3:12, 3:12].all()
    assert marked[38:43, 38:43].all()
    assert marked.sum() == 9 * 9 + 5 * 5


def test_bad_quantisations_are_refused(trained: tuple[Path, Path]) -> None:
    """Ten ways to quantise wrongly: the guard names each, and lets the good one through."""
    found = bad_quantisations.verdicts(*trained)
    assert len(found) == 11
    assert [name for name, problem in found.items() if not problem] == [bad_quantisations.GOOD]


def _emulated(processor: str, *command: str | Path) -> str:
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-x86_64 is not installed (Debian: qemu-user): no second kind of processor to try")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [emulator, "-cpu", processor, sys.executable, *map(str, command)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.soak
@pytest.mark.skipif(SHARE < 1, reason="half an hour each under emulation: make soak, with all repetitions")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_emulated_processor_makes_the_same_file(trained: tuple[Path, Path], tmp_path: Path, processor: str) -> None:
    """The whole export in INT8, here and there: one digest."""
    here, there = tmp_path / "here.onnx", tmp_path / "there.onnx"
    _export(trained, here)
    checkpoint, strips = trained
    size = [str(side) for side in TRAINED_IMAGE]
    arguments = ["--calibration", str(strips), "--precision", "int8", "--image-size", *size]
    arguments += ["--version", "1", "--created", str(ASKED["created"])]
    two_strips = "from tools.exporter import proof_strips; proof_strips.FEWEST_STRIPS = 2"
    _emulated(
        processor, "-c", f"{two_strips}; from tools.export import main; main()",
        "export", checkpoint, "--out", there, *arguments,
    )  # fmt: skip
    assert hashlib.sha256(there.read_bytes()).hexdigest() == hashlib.sha256(here.read_bytes()).hexdigest()


@pytest.mark.soak
@pytest.mark.skipif(SHARE < 1, reason="half an hour each under emulation: make soak, with all repetitions")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_emulated_processor_refuses_the_same_quantisations(trained: tuple[Path, Path], processor: str) -> None:
    """The guard's measures do not hang on this machine's arithmetic: bad ones are refused there, the good one not."""
    found = json.loads(_emulated(processor, "-m", "tests.exporter.bad_quantisations", *trained))
    assert len(found) == 11
    assert [name for name, problem in found.items() if not problem] == [bad_quantisations.GOOD]
