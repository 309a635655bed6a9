"""The benchmarks: what they count is what they say, and each can be asked for."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure

from agent.ledger import open_ledger
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tools.benching.journey import HEIGHT, WIDTH, drawn_strips
from tools.benching.machine import describe, measure_limit
from tools.benching.page import Chart, Part, as_text, draw, write_page
from tools.benching.parts import percentiles
from tools.benching.scale import folders, ledgers, outbox
from tools.benching.stages import STAGES, stages

if TYPE_CHECKING:
    from pathlib import Path


def test_the_limit_of_this_processor_is_measured_for_both_kinds_of_numbers() -> None:
    """Neither is nothing, and both are far below what no processor does."""
    limit = measure_limit(1, rounds=2)
    assert 0.01 < limit.float32 < 1e5
    assert 0.01 < limit.int8 < 1e5
    assert "onnxruntime" in describe()


def test_the_percentiles_are_those_of_all_values() -> None:
    """The middle, and what one in twenty and one in a hundred exceeds."""
    assert percentiles("x", [float(value) for value in range(200)]) == ["x", "100.0", "190.0", "198.0"]


def test_the_page_says_of_every_table_where_it_was_measured(tmp_path: Path) -> None:
    """Title, machine, table; and a picture beside the page that is one."""
    chart = Chart("lines.png", "Lines", "size", "ms", {"a": [(0.0, 1.0), (10.0, 2.0)]})
    part = Part("Ledger", "a machine of ours", ["", "ms"], [["open", "1.0"], ["audit", "2.0"]], "By the clock.", chart)
    write_page(tmp_path / "page.md", [part, Part("Other", "another machine", ["x"], [["y"]])])
    text = (tmp_path / "page.md").read_text()
    assert "## Ledger\n\nMeasured on: a machine of ours.\n\nBy the clock." in text
    assert "|  | ms |\n| --- | --- |\n| open | 1.0 |\n| audit | 2.0 |\n" in text
    assert "## Other\n\nMeasured on: another machine." in text
    assert "![Lines](lines.png)" in text
    assert (tmp_path / "lines.png").read_bytes().startswith(b"\x89PNG")
    assert "audit  2.0" in as_text(part)


def test_what_hardly_changes_looks_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory over switches is drawn from 0 on even axes, with every point inside."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.extend(figure.axes))
    draw(tmp_path / "x.png", Chart("x.png", "", "", "", {"a": [(1.0, 158.0), (70.0, 162.0)]}, logarithmic=False))
    [axes] = drawn
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)
    assert axes.get_ylim()[1] > 170


def test_the_stages_of_a_strip_are_measured_on_real_results(tmp_path: Path) -> None:
    """Every strip passes every stage; its heatmap and its row are there afterwards."""
    difference_model(tmp_path / "model.onnx", height=HEIGHT, width=WIDTH)
    found = stages(tmp_path, drawn_strips(2), tmp_path / "model.onnx", 2)
    assert {stage: len(times) for stage, times in found.items()} == dict.fromkeys(STAGES, 4)
    assert len(list((tmp_path / "heatmaps" / "top").glob("*.png"))) == 4
    ledger = open_ledger(tmp_path / "ledger.db")
    assert [balance.seen for balance in ledger.report.balances()] == [4]
    ledger.database.close()


def test_what_grows_is_measured_at_each_size(tmp_path: Path) -> None:
    """Ledger, folder and outbox, each at each size that is asked for."""
    found = [*ledgers(tmp_path, (0, 50)), *folders(tmp_path, (3, 30)), *outbox(tmp_path, (60,))]
    sizes: dict[str, list[int]] = {}
    for one in found:
        sizes.setdefault(one.what, []).append(one.size)
        assert one.ms >= 0
    assert sizes["scan a folder"] == [3, 30]
    assert sizes["send and acknowledge 20 messages"] == [60]
    assert all(
        of == [0, 50] for what, of in sizes.items() if what not in ("scan a folder", "send and acknowledge 20 messages")
    )


@pytest.mark.parametrize("command", ["models", "agent", "idle", "scale", "reload", "all"])
def test_each_benchmark_says_how_it_is_asked_for(command: str) -> None:
    """With --quick, all of them."""
    script = [sys.executable, str(ROOT / "tools" / "bench.py"), command, "--help"]
    assert "--quick" in subprocess.run(script, check=True, capture_output=True, text=True).stdout
