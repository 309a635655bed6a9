"""How long a strip will take on a box is said beforehand, from what the model computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.models import difference_model
from tools import export
from tools.exporter.errors import ExportError
from tools.exporter.expected import KINDS, TARGETS, choose_precision, core_seconds, kind_of, tell_expected
from tools.exporter.inspecting import inspect_model
from tools.exporter.layout import make_layout
from tools.exporter.plain import export_plain
from tools.exporter.variants import PATCH, SIZE, random_network
from tools.exporter.work import Work, count_work

if TYPE_CHECKING:
    from pathlib import Path

EPYC = "processor\t: 0\nflags\t\t: fpu avx2 {}\n"
MEASURED = {  # core-seconds a strip: files of the exporter, by hand (docs/exporter.md)
    ("vnni", "fp32, 16 wide"): (Work(9.55, 0.0, 0.045), 0.238),
    ("vnni", "int8, 16 wide"): (Work(0.155, 9.39, 0.045), 0.090),
    ("vnni", "fp32, 64 wide"): (Work(150.2, 0.0, 0.171), 3.45),
    ("vnni", "int8, 64 wide"): (Work(0.03, 150.2, 0.171), 0.83),
    ("avx2", "fp32, 64 wide"): (Work(150.2, 0.0, 0.171), 4.13),
    ("avx2", "int8, 64 wide"): (Work(0.03, 150.2, 0.171), 2.23),
}


@pytest.mark.parametrize(("kind", "what"), MEASURED)
def test_what_was_measured_comes_out(kind: str, what: str) -> None:
    """Within a tenth."""
    work, seconds = MEASURED[kind, what]
    assert core_seconds(work, KINDS[kind]) == pytest.approx(seconds, rel=0.1)


def test_a_width_that_the_rates_were_not_fitted_to_comes_out_too() -> None:
    """With AVX2 only 64-wide files gave the rates; 16 wide, int8 took 0.63 of fp32's time there."""
    small = [
        core_seconds(MEASURED["vnni", f"{precision}, 16 wide"][0], KINDS["avx2"]) for precision in ("int8", "fp32")
    ]
    assert small[0] / small[1] == pytest.approx(0.63, rel=0.1)


def test_every_patch_is_counted() -> None:
    """The plain export of a network, patch by patch, against a count of its layers in torch."""
    network = random_network(2, second_family=False)
    work = count_work(export_plain(network, make_layout(SIZE, PATCH)), SIZE)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        network(torch.zeros(1, 3, *PATCH))
    convolutions = counted.get_flop_counts()["Global"][torch.ops.aten.convolution]  # two for a multiplication
    assert work.float_multiplications * 1e9 == pytest.approx(convolutions / 2 * 18, rel=1e-6)
    assert work.int8_multiplications == 0.0


def test_layers_in_a_loop_count_as_often_as_they_run_and_int8_ones_apart() -> None:
    """Three rounds of a convolution whose weights are stored in 8 bits, and one of floats."""
    body = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "weight"], ["one"], name="body/conv", kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("one", TensorProto.FLOAT, None),
        ],
    )
    body.node.insert(0, helper.make_node("DequantizeLinear", ["stored", "scale"], ["weight"]))
    constants = {
        "stored": np.ones((5, 3, 3, 3), np.int8),
        "scale": np.float32(0.01),
        "rounds": np.int64(3),
        "yes": np.bool_(True),  # noqa: FBT003 - a tensor
        "plain": np.ones((2, 3, 1, 1), np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["rounds", "yes"], ["all"], body=body),
            helper.make_node("Conv", ["input", "plain"], ["other"], name="conv", kernel_shape=[1, 1]),
        ],
        "counted",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 10, 20])],
        [
            helper.make_tensor_value_info("all", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("other", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    work = count_work(model.SerializeToString(), (10, 20))
    assert work.int8_multiplications * 1e9 == pytest.approx(3 * (5 * 10 * 20) * 27)
    assert work.float_multiplications * 1e9 == pytest.approx((2 * 10 * 20) * 3)


def test_inspect_tells_the_time_to_expect(tmp_path: Path) -> None:
    """On each kind of processor that was measured."""
    difference_model(tmp_path / "m.onnx")
    (line,) = [line for line in inspect_model((tmp_path / "m.onnx").read_bytes()) if line.startswith("expected  ")]
    assert "s with VNNI, " in line
    assert "s with AVX2 only, on one core" in line


def test_the_time_on_a_target_is_that_of_its_kind_alone(tmp_path: Path) -> None:
    """Nothing is made up for an Arm; what cannot be run is said."""
    difference_model(tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    assert "VNNI" not in tell_expected(content, (488, 88), "avx2")
    assert tell_expected(content, (488, 88), "arm64") == "cannot be told: no Arm was ever measured"
    assert tell_expected(b"", (488, 88)).startswith("cannot be told: ")
    with pytest.raises(ExportError, match="cannot be counted"):
        count_work(content, (10, 10))


@pytest.mark.parametrize(
    ("cpuinfo", "kind"),
    [
        (EPYC.format("avx512_vnni"), "vnni"),
        (EPYC.format("avx_vnni"), "vnni"),
        (EPYC.format("bmi2"), "avx2"),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "arm64"),
    ],
)
def test_the_kind_of_a_processor_is_read_from_its_flags(cpuinfo: str, kind: str) -> None:
    """As /proc/cpuinfo of such machines has them."""
    assert kind_of(cpuinfo) == kind
    assert kind in TARGETS


def test_auto_takes_int8_where_it_was_measured_to_be_faster() -> None:
    """On an Arm nothing was: fp32, which is right everywhere."""
    assert {target: choose_precision(target)[0] for target in TARGETS} == {
        "vnni": "int8",
        "avx2": "int8",
        "arm64": "fp32",
    }
    assert choose_precision(None)[0] in ("int8", "fp32")


def test_the_command_says_what_it_chose_and_what_to_expect(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """`--precision auto --target`: int8 asks for calibration strips as if it had been named."""
    out = tmp_path / "m.onnx"
    command = ["export", str(checkpoints["first"]), "--out", str(out), "--image-size", "150", "96", "--allow-blind"]
    done = CliRunner().invoke(export.main, [*command, "--precision", "auto", "--target", "arm64"])
    assert done.exit_code == 0, done.output
    assert "precision: fp32, because int8 was never timed on an Arm" in done.output
    assert "expected: cannot be told: no Arm was ever measured" in done.output
    done = CliRunner().invoke(export.main, [*command, "--precision", "auto", "--target", "vnni"])
    assert "precision: int8, because with VNNI" in done.output
    assert done.exit_code != 0
    done = CliRunner().invoke(export.main, command)
    assert "expected: a strip takes about " in done.output
