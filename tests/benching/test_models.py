"""The tables of models: each file is held to the limit of the multiplications that it does, and tells its spread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from tests.exporter.trained import TRAINED_IMAGE, save_strips, save_trained
from tests.helpers.models import difference_model
from tools import bench
from tools.benching import models
from tools.benching.elsewhere import TWO_KINDS, by_hand
from tools.benching.hiding import Seen
from tools.benching.machine import Limit
from tools.benching.models import (
    kinds_here,
    kinds_rows,
    models_parts,
    models_rows,
    on_other_providers,
    others_part,
    work_of,
)
from tools.benching.one_kind import Asked, Told
from tools.exporter.checkpoint import IMAGE_SIZES
from tools.exporter.errors import ExportError
from tools.exporter.exporting import export_model
from tools.exporter.guard import Limits
from tools.exporter.layout import make_layout
from tools.exporter.measure import Measured, measure, strip_runner
from tools.exporter.networks import STAGES
from tools.exporter.options import DEFAULT_LIMITS, Options
from tools.exporter.regions import plan_axis, plan_sharing
from tools.exporter.session import open_session, run_strip
from tools.exporter.strips import feed, made_up_strips, read_folder
from tools.exporter.variants import (
    CALLS,
    FP32,
    INT8,
    PATCH,
    PLAIN,
    Variants,
    make_trained_variants,
    make_variants,
    random_network,
)
from tools.exporter.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tools.exporter.approval import Exported
    from tools.exporter.networks import UNet

torch.set_num_threads(1)

WIDTH = 8
SIZE = (340, 176)  # three by two patches: one row has neighbours on both sides
AS_IT_IS = Seen((), saturates=False, tiles=False)


def counted_by_hooks(network: UNet) -> dict[str, int]:
    """Count every layer's multiplications on one whole patch, by its name."""
    found: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            found[name] = output[0].numel() * module.get_parameter("weight")[0].numel()

        return count

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        network(torch.zeros(1, 3, *PATCH))
    return found


def areas(convolutions: list[int]) -> list[float]:
    """Give for each of the last stages how much of all patches is computed, in whole patches."""
    layout = make_layout(SIZE, PATCH)
    rows, columns = (plan_axis(windows, PATCH[0], convolutions) for windows in (layout.rows, layout.columns))
    stages = range(len(convolutions))
    sides = [PATCH[0] >> (len(convolutions) - 1 - stage) for stage in stages]

    def summed(spans: Any, side: int) -> float:
        return float(sum(span.stop - span.start for span in spans)) / side

    return [summed(rows[stage], sides[stage]) * summed(columns[stage], sides[stage]) for stage in stages]


def taken_columns(layers: Iterable[str]) -> dict[str, float]:
    """Give for each layer of an encoder level that shares with the patch on the left how much of it is not computed."""
    plan = plan_sharing(make_layout(SIZE, PATCH).columns, PATCH[1], [2] * 6)
    shares = [sum(span.stop - span.start for span in one.left_out) / len(one.left_out) / one.length for one in plan]
    levels = {f"encoder.block{number}.": share for number, share in enumerate(shares, start=1)}
    return {name: share for name in layers for level, share in levels.items() if name.startswith(level)}


@pytest.fixture(scope="module", params=[False, True], ids=["first", "second"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Variants]:
    """Give the files of a narrow network of either family, and whether it is the second."""
    folder = tmp_path_factory.mktemp("variants")
    return request.param, make_variants(folder, WIDTH, second_family=request.param, size=SIZE)


def test_what_a_cropped_file_multiplies_is_counted_as_its_regions_say(written: tuple[bool, Variants]) -> None:
    """Decoder by regions, by torch's shapes; how the last layer is written may vary.

    The plain export does all of every patch. In int8 the same multiplications are done, but for the last layer's and
    for the encoder's columns that are taken from the patch on the left.
    """
    second_family, variants = written
    single = counted_by_hooks(random_network(WIDTH, second_family=second_family))
    patches = len(make_layout(SIZE, PATCH).windows)
    convolutions = [2] if second_family else [3, 3, 3, 3, 4]
    share = dict(zip(STAGES[-len(convolutions) :], areas(convolutions), strict=True))
    parts = {name: name.removeprefix("decoder.").split(".")[0] for name in single}
    cut = {name for name, part in parts.items() if part.startswith("db4" if second_family else ("up", "db"))}
    last = next(name for name in single if name.startswith("decoder.fin_out"))
    expected = sum(
        count * (share[parts[name][2:]] if name in cut else patches) for name, count in single.items() if name != last
    )
    at_least = expected + share["4"] * single[last] / 2  # one of the two channels
    at_most = expected + share["4"] * PATCH[0] * PATCH[1] * (16 * WIDTH + 16 * 9)  # to sixteen, which are then shifted
    counted = {name: work_of(name, variants) for name in variants.paths}
    for name in (PLAIN, CALLS):
        assert counted[name].float_multiplications * 1e9 == pytest.approx(sum(single.values()) * patches, rel=1e-6)
    assert at_least * 0.999999 <= counted[FP32].float_multiplications * 1e9 <= at_most * 1.000001
    assert counted[FP32].float_multiplications < counted[PLAIN].float_multiplications
    taken = patches * sum(single[name] * share for name, share in taken_columns(single).items())
    both = counted[INT8].float_multiplications + counted[INT8].int8_multiplications
    assert taken > 0.05 * expected
    assert (at_least - taken) * 0.999999 <= both * 1e9 <= (at_most - taken) * 1.000001
    assert counted[INT8].float_multiplications < 0.05 * both


def measured(name: str, seconds: float, ratios: tuple[float, ...]) -> Measured:
    """Make up what was measured."""
    return Measured(name, seconds, ratios[1], ratios[1], 0.25, 100.0, 10.0, ratios, ratios)


def test_every_file_is_held_to_the_limit_of_its_own_multiplications() -> None:
    """Those in float and those in int8 each at their own, and the least and the highest round are told."""
    told = Told(
        [measured(PLAIN, 0.5, (1.0, 1.0, 1.0)), measured(INT8, 0.2, (0.38, 0.4, 0.45))], Limit(100.0, 400.0), AS_IT_IS
    )
    work = {PLAIN: Work(40.0, 0.0, 1.0), INT8: Work(2.0, 30.0, 1.0)}
    plain, int8 = models_rows(told, work)
    assert plain[:7] == [PLAIN, "40.0", "500", "400", "80%", "1", "1"]
    assert int8[:7] == [INT8, "32.0", "200", "95", "48%", "0.400 (0.380 to 0.450)", "0.400 (0.380 to 0.450)"]
    slow = Told(told.measured, Limit(50.0, 100.0), AS_IT_IS)
    rows = {row[0]: row[1:] for row in kinds_rows({"all": told, "avx2": slow}, work, [PLAIN])}
    assert rows["- to that of float32"] == ["4.00", "2.00"]
    assert rows["- of the limit"] == ["80%", "160%"]
    assert "- ratio of processor time" not in rows


def test_every_round_is_a_ratio_of_its_own(tmp_path: Path) -> None:
    """To the first model in the same round; memory only where it is asked for."""
    difference_model(tmp_path / "model.onnx", height=64, width=48)
    paths = {"base": tmp_path / "model.onnx", "other": tmp_path / "model.onnx"}
    base, other = measure(paths, feed(made_up_strips((64, 48))[1], "unit"), rounds=3, threads=1, memory=False)
    assert base.ratios == base.cpu_ratios == (1.0, 1.0, 1.0)
    assert sorted(other.ratios)[1] == other.ratio
    assert sorted(other.cpu_ratios)[1] == other.cpu_ratio
    assert math.isnan(base.peak_mib)


def record_runs(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Measure nothing, make figures up, and give what was asked for."""
    asked: list[Asked] = []

    def run(one: Asked) -> Told:
        asked.append(one)
        return Told([measured(name, 0.1, (0.9, 1.0, 1.1)) for name in one.models], Limit(50.0, 90.0), AS_IT_IS)

    monkeypatch.setattr(models, "run", run)
    return asked


def test_the_main_files_stand_side_by_side_where_kinds_are_asked_for(
    written: tuple[bool, Variants], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files with their memory on the first kind, the main three with few rounds on the others."""
    _, variants = written
    asked = record_runs(monkeypatch)
    monkeypatch.setattr(models, "compile_hiding", lambda kind, folder: folder / f"{kind}.so")
    checked: list[str] = []
    monkeypatch.setattr(models, "check", lambda kind, _: checked.append(kind))
    first, second = models_parts(tmp_path, variants, rounds=7, threads=1, kinds=("all", "avx2"))
    files = [*variants.paths, *on_other_providers(variants)]
    assert [row[0] for row in first.rows] == files
    assert second.columns == ["", "as it is", "AVX2 only"]
    assert [(len(one.models), one.rounds, one.memory) for one in asked] == [
        (len(files), 7, True),
        (3, 3, False),
    ]
    assert [one.library for one in asked] == [None, str(tmp_path / "avx2.so")]
    assert checked == ["avx2"]
    assert models_parts(tmp_path, variants, rounds=7, threads=1, kinds=("avx2",))[0].title == first.title


def test_other_widths_and_threads_stand_in_one_table(
    written: tuple[bool, Variants], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row for each, with its ratios to the plain export in the same run."""
    _, variants = written
    asked = record_runs(monkeypatch)
    part = others_part(tmp_path, [(variants, 1), (variants, 2)])
    assert [one.threads for one in asked] == [1, 2]
    assert [list(one.models) for one in asked] == [[PLAIN, CALLS, FP32, INT8]] * 2
    assert [row[:4] for row in part.rows] == [
        [variants.name, threads, "100", "1.000 (0.900 to 1.100)"] for threads in ("1", "2")
    ]
    assert all(len(row) == len(part.columns) for row in part.rows)


def test_what_is_installed_is_measured_too_and_what_cannot_be_opened_is_left_out(
    written: tuple[bool, Variants], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wheel of onnxruntime for CUDA on a machine without the device, here: said, and the cpu's figures stand."""
    _, variants = written
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    others = on_other_providers(variants)
    assert others == {f"{name}, on cuda": (name, "cuda") for name in (FP32, INT8)}
    paths = {FP32: variants.paths[FP32]} | {name: variants.paths[file] for name, (file, _) in others.items()}
    fed = feed(made_up_strips(SIZE)[1], "unit")
    found = measure(paths, fed, rounds=1, threads=1, memory=False, providers=dict.fromkeys(others, "cuda"))
    assert [one.name for one in found] == [FP32]
    assert f"{INT8}, on cuda is left out: " in capsys.readouterr().err
    assert found[0].load_seconds > 0


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_checkpoint_is_measured_as_it_would_be_exported(
    calibrated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain, and exact in both precisions; on strips of the line quantised as an export is, without them it is said."""
    monkeypatch.setattr("tools.exporter.proof_strips.FEWEST_STRIPS", 2)
    monkeypatch.setitem(IMAGE_SIZES, "strip", TRAINED_IMAGE)
    checkpoint, strips = save_trained(tmp_path / "trained.pth"), save_strips(tmp_path / "strips", 2)
    (tmp_path / "written").mkdir()
    exported: list[bytes] = []

    def export(of: Path, out: Path, options: Options) -> Exported:
        done = export_model(of, out, options)
        exported.append(out.read_bytes())
        return done

    monkeypatch.setattr("tools.exporter.variants.export_model", export)
    variants = make_trained_variants(tmp_path / "written", checkpoint, strips if calibrated else None)
    assert list(variants.paths) == [PLAIN, CALLS, FP32, INT8]
    assert variants.size == TRAINED_IMAGE
    assert "trained.pth" in variants.weights
    assert ("made-up strips" in variants.weights) != calibrated
    assert "layers that int8 leaves in float: encoder.block1.0" in variants.weights
    fed = feed(read_folder(strips, TRAINED_IMAGE)[0], "unit")
    plain, calls, fp32, int8 = (
        strip_runner(open_session(path.read_bytes(), 1), fed)() for path in variants.paths.values()
    )
    assert float(plain.max()) > 0.5  # it is trained: one of the strips has a defect
    assert float(abs(plain - fp32).max()) < 1e-3
    assert float(abs(plain - calls).max()) < 1e-3
    assert len(exported) == calibrated
    for content in exported:
        assert np.array_equal(run_strip(open_session(content, 1), fed), int8)


def test_int8_that_the_guard_refuses_is_measured_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How fast a file would be does not depend on whether it is good; nobody is to think it was."""
    monkeypatch.setattr("tools.exporter.proof_strips.FEWEST_STRIPS", 2)
    monkeypatch.setitem(IMAGE_SIZES, "strip", TRAINED_IMAGE)
    monkeypatch.setitem(DEFAULT_LIMITS, ("int8", "exact"), Limits(0.0, 0.0))
    monkeypatch.setattr("tools.exporter.approval.search", lambda _, plan, outcome: (plan, outcome, None))  # in minutes
    checkpoint, strips = save_trained(tmp_path / "trained.pth"), save_strips(tmp_path / "strips", 2)
    variants = make_trained_variants(tmp_path, checkpoint, strips)
    assert "whose guard then refuses the int8 file" in variants.weights
    assert variants.paths[INT8].is_file()


def test_a_kind_that_this_machine_cannot_be_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it only shows in the child; why is said."""

    def run(asked: Asked) -> Told:
        if asked.library and "vnni" in asked.library:
            raise ExportError("The process that measures has ended with 99.")
        return Told([], Limit(1.0, 1.0), Seen((), saturates=True, tiles=False))

    monkeypatch.setattr(models, "run", run)
    monkeypatch.setattr(models, "compile_hiding", lambda kind, folder: folder / f"{kind}.so")
    assert kinds_here(bench.KINDS) == ["all", "avx2"]
    assert "ended with 99" in capsys.readouterr().err


def test_the_kinds_by_hand_stand_on_the_page_where_none_were_measured() -> None:
    """And only there."""
    assert TWO_KINDS in by_hand(kinds_measured=False)
    assert by_hand(kinds_measured=True) == by_hand(kinds_measured=False)[1:]


@pytest.mark.parametrize(
    "words", [["--checkpoint", __file__, "--width", "8"], ["--calibration", str(Path(__file__).parent)]]
)
def test_options_that_do_not_go_together_are_refused(words: list[str]) -> None:
    """Before anything is computed."""
    result = CliRunner().invoke(bench.main, ["models", *words])
    assert result.exit_code == 2
    assert "leave --width" in result.output or "give both or neither" in result.output
