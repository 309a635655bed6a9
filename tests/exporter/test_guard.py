"""The guard and INT8: what is let through, what is refused, and that a refusal can be looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st

from agent.contract.measures import make_reference
from agent.worker.light import measure_exposure
from agent.worker.measuring import measure
from tests.exporter.conftest import IMAGE
from tools.exporter.blend import blend_defects
from tools.exporter.calibration import relieve, widened
from tools.exporter.errors import ExportError
from tools.exporter.guard import Limits, compare, judge
from tools.exporter.keys import read_facts
from tools.exporter.layout import make_layout
from tools.exporter.measure import Measured
from tools.exporter.options import DEFAULT_LIMITS, Options
from tools.exporter.report import make_report, measure_variants
from tools.exporter.strips import NamedStrip, feed, made_up_strips

if TYPE_CHECKING:
    from pathlib import Path

    from tests.exporter.conftest import Export

LIMITS = Limits(0.02, 0.1)
INT8 = DEFAULT_LIMITS["int8", "exact"]
WIDE = {"max_score_change": 0.2, "max_heat_change": 0.4, "threshold": 0.999}


def _heat(value: float = 0.9) -> np.ndarray:
    heat = np.zeros((60, 60), np.float32)
    heat[10:20, 10:20] = value
    return heat


def test_small_changes_pass() -> None:
    """Within the limits nothing is refused."""
    changed = compare("a", _heat(), _heat() + np.float32(0.01), 0.5)
    assert judge([changed], LIMITS)[1] == ""
    assert changed.regions == 1


def test_flip_is_refused_however_small_the_change() -> None:
    """0.501 against 0.499 is another verdict."""
    flipped = compare("flips", _heat(0.501), _heat(0.499), 0.5)
    worst, problem = judge([compare("a", _heat(), _heat(), 0.5), flipped], LIMITS)
    assert worst.name == "flips"
    assert "verdict" in problem


def test_region_that_is_lost_is_refused_though_the_score_stays() -> None:
    """A second defect that vanishes leaves the score as it is; its region does not come back."""
    both = _heat()
    both[40:46, 40:46] = 0.55
    lost = _heat()
    lost[40:46, 40:46] = 0.46
    worst = compare("lost", both, lost, 0.5)
    assert worst.score_change == 0
    assert "IoU" in judge([worst], LIMITS)[1]


def test_a_rim_that_moves_by_part_of_a_pixel_is_no_change() -> None:
    """On a steep rim single pixels change much when it moves by a tenth of a pixel; the same file, still."""
    sharp = cv2.GaussianBlur(_heat(1.0), (0, 0), 0.8)
    moved = 0.85 * sharp + 0.15 * np.roll(sharp, 1, 1)
    changed = compare("rim", sharp, moved, 0.5, rim_px=1)
    assert np.abs(sharp - moved).max() > 0.05
    assert judge([changed], INT8)[1] == ""


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_a_shifted_heatmap_is_refused(pixels: int) -> None:
    """Neither the score nor the least of the neighbours tells it, but the regions do."""
    sharp = cv2.GaussianBlur(_heat(1.0), (0, 0), 0.8)
    shifted = compare("shift", sharp, np.roll(sharp, pixels, 1), 0.5, rim_px=1)
    assert shifted.score_change < 1e-6
    assert judge([shifted], INT8)[1]


def test_a_blurred_heatmap_is_refused() -> None:
    """The peak of a small defect is lost first."""
    sharp = cv2.GaussianBlur(_heat(1.0), (0, 0), 0.5)
    assert judge([compare("blur", sharp, cv2.GaussianBlur(sharp, (0, 0), 1.0), 0.5, rim_px=1)], INT8)[1]


def test_a_rise_on_a_good_strip_is_refused() -> None:
    """There is no rim that could have moved."""
    good = np.full((60, 60), 0.02, np.float32)
    risen = good.copy()
    risen[30, 30] = 0.1
    assert judge([compare("good", good, risen, 0.5, rim_px=1)], INT8)[1]


@example(0.0, 0.99999)
@given(st.floats(-1e4, 0, width=32), st.floats(0, 1e4, width=32))
def test_a_range_is_widened_by_little_and_to_the_same_for_nearly_the_same(low: float, high: float) -> None:
    """What the last bits of a sum say never reaches the file, and hardly a level is lost."""
    wide = widened(low, high)
    assert wide[0] <= low
    assert wide[1] >= high
    assert wide[1] <= high * (1 + 3 / 64) + 1e-30
    assert wide[0] >= low * (1 + 3 / 64) - 1e-30
    assert {bound * 64 / 2.0 ** np.floor(np.log2(bound)) % 1 for bound in wide if bound > 0} <= {0.0}


def test_regions_below_twenty_pixels_do_not_count() -> None:
    """A few pixels may come and go."""
    small = _heat()
    small[40:44, 40:44] = 0.52
    assert compare("small", small, _heat(), 0.5).worst_iou == 1.0


def test_not_a_number_is_refused() -> None:
    """Comparisons with NaN are false, so they are written to refuse it."""
    broken = compare("nan", _heat(), np.full((60, 60), np.nan, np.float32), 0.5)
    assert judge([broken], LIMITS)[1]


def _read(graph: onnx.GraphProto) -> set[str]:
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return read.union(*(_read(body.g) for node in graph.node for body in node.attribute if body.HasField("g")))


def test_int8_file_is_small_and_close(export: Export, calibration: Path) -> None:
    """Convolutions run in 8 bits, the contract is met, the metadata tells how it was quantised."""
    exported = export("calm", precision="int8", calibration=calibration, **WIDE)
    model = onnx.load(exported.path)
    int8 = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert len(int8) >= 24  # of 28 layers, some of which may stay float
    assert {tensor.name for tensor in model.graph.initializer} <= _read(model.graph)  # nothing is left over
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert metadata["strip_agent.precision"] == "int8"
    assert "most_sensitive" in metadata["strip_agent.quantisation"]
    assert exported.calibration
    assert len(exported.calibration.plan.float_layers) >= 1


def test_the_worst_patches_decide_which_layer_is_left_in_float(export: Export, calibration: Path) -> None:
    """What the guard finds joins the search: a plan that is bad in one layer gets well by leaving that one in float."""
    exported = export("calm", precision="int8", calibration=calibration, **WIDE)
    found = exported.calibration
    assert found
    layer = "encoder.block2.0"
    ranges = {**found.plan.ranges, f"{layer}/relu": (0.0, found.plan.ranges[f"{layer}/relu"][1] / 50)}
    bad = replace(found, plan=replace(found.plan, ranges=ranges))
    strip = exported.proven[0]
    hard = [(feed(strip.strip, "unit"), np.abs(strip.found - strip.expected))]
    better = relieve(exported.source, exported.layout, bad, hard, 17)
    assert better
    assert better.plan.float_layers > bad.plan.float_layers
    assert max(better.sensitivity.values()) > 0


def test_bad_quantisation_is_refused_with_a_picture(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One strip of nearly constant grey, every layer quantised: refused, the worst strip named, its picture written."""
    monkeypatch.setattr("tools.exporter.proof_strips.FEWEST_STRIPS", 1)
    folder = tmp_path / "grey"
    folder.mkdir()
    grey = np.random.default_rng(1).integers(124, 133, (3, 150, 96)).astype(np.uint8)
    tifffile.imwrite(folder / "grey.tif", grey, photometric="minisblack")
    telling = tmp_path / "telling.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 150, 96)).astype(np.uint8)
    tifffile.imwrite(telling, pixels, photometric="minisblack")
    with pytest.raises(ExportError, match=r"guard refuses the file because of strip telling.tif.*telling|refused.png"):
        export(precision="int8", calibration=folder, float_layers="none", golden=telling)
    assert not (tmp_path / "out.onnx").exists()
    assert (tmp_path / "out.onnx.refused.png").read_bytes().startswith(b"\x89PNG")


def test_faint_defects_score_in_between() -> None:
    """The strength of the spot is chosen so that the score comes to lie near the aim, below and above the threshold."""
    layout = make_layout((150, 96), (64, 64))
    random = np.random.default_rng(0)
    pixels = np.full((3, 150, 96), 200, np.float32) + random.normal(0, 1, (3, 150, 96)).astype(np.float32)
    strips = [NamedStrip("a", pixels), NamedStrip("b", pixels)]

    def heat_of(patches: np.ndarray) -> np.ndarray:
        heat: np.ndarray = np.clip(np.abs(patches[:, 0] - patches[:, 1]) * 2, 0, 1)
        return heat

    nothing = np.zeros((150, 96), np.float32)
    blended = blend_defects(strips, [nothing, nothing], layout, heat_of, 0.5)
    scores = [float(heat_of(strip.pixels[None] / 255)[0].max()) for strip in blended]
    assert [abs(score - aim) < 0.1 for score, aim in zip(scores, (0.38, 0.62), strict=True)] == [True, True]


def test_report_measures_all_that_the_network_could_be(
    export: Export, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain export first, then this file, then the other precisions and windows."""
    monkeypatch.setattr("tools.exporter.report.ROUNDS", 1)
    asked: dict[str, Any] = {"precision": "int8", "calibration": calibration, **WIDE}
    measured = measure_variants(export("calm", **asked), Options(**asked))
    assert [one.name for one in measured] == [
        "plain export", "this file: int8 exact", "fp32 exact", "fp32 whole", "int8 whole"
    ]  # fmt: skip
    assert measured[0].ratio == 1.0
    assert all(one.seconds > 0 and one.peak_mib > 0 and one.file_mb > 0 for one in measured)


def test_report_is_one_page_for_itself(export: Export) -> None:
    """Nothing is loaded from elsewhere; figures, drawing, scatter, table and pictures are there."""
    exported = export()
    page = make_report(exported, [Measured("plain export", 1.0, 1.0, 1.0, 0.1, 100.0, 10.0)], opset=17)
    assert "http" not in page
    assert 'src="' not in page.replace('src="data:image/png;base64', "")
    for part in ("<svg", "circle", "plain export", "Allowed", exported.worst.name, exported.facts.checkpoint_sha256):
        assert part in page


def test_the_light_of_the_calibration_strips_travels_in_the_file(export: Export, calibration: Path) -> None:
    """A box compares every strip with it; a file that was made without such strips has no entry."""
    pixels = [strip.pixels for strip in made_up_strips(IMAGE)[:2]]
    assert export(calibration=calibration).facts.exposure == measure_exposure(pixels)
    assert export().facts.exposure is None


def test_how_the_calibration_strips_look_travels_in_the_file(
    export: Export, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box measures the same strips just so, and its model scores them so; two of them are enough here."""
    monkeypatch.setattr("agent.contract.measures.FEWEST_STRIPS", 2)
    exported = export(calibration=calibration)
    reference = read_facts(exported.path.read_bytes()).reference
    looks = [measure(one.strip.pixels, 255.0, float(one.found.max())) for one in exported.proven[:2]]
    assert reference is not None
    assert reference.good_below == exported.facts.threshold
    again = make_reference(looks, stretched=False, good_below=reference.good_below)
    assert again is not None
    assert reference.spreads.keys() == again.spreads.keys() >= {"level_target", "noise_reference_2"}
    for name, spread in reference.spreads.items():
        assert spread.mean == pytest.approx(again.spreads[name].mean, abs=1e-3)
    assert export().facts.reference is None
