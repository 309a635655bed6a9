"""What the demo shows of a result."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from agent.config.check import check_environment
from agent.config.file import load_config
from agent.demo.broker import Broker
from agent.demo.demo import _environment, _make_folder, _write_config
from agent.demo.pushes import MODEL, put_model
from agent.demo.screen import BAR_CELLS, LiveScreen, PlainScreen, bar, columns_that_fit, row_of

if TYPE_CHECKING:
    from pathlib import Path


def _result(**changes: object) -> dict[str, object]:
    result: dict[str, object] = {
        "ts_ms": 1_790_000_000_000,
        "camera": "top",
        "file": "2026-09-21/top_000004.tif",
        "verdict": "anomalous",
        "score": 0.97,
        "threshold": 0.5,
        "reason": "",
        "defect_count": 2,
        "anomaly_area_px": 143,
        "captured_ts_ms": 1_789_999_999_000,
        "inference_ms": 31.4,
        "model_id": "flex-demo",
        "model_version": 1,
    }
    return result | changes


def test_an_anomalous_strip_shows_its_regions_and_an_invalid_one_its_reason() -> None:
    """The column says why, whatever the verdict; the file's folder is left out."""
    row = row_of(_result(), arrived_ms=1_790_000_000_020)
    assert (row.strip, row.why, row.latency_ms, row.model) == (
        "top_000004",
        "2 regions, 143 px",
        1020,
        "flex-demo v1",
    )
    refused = _result(verdict="invalid", reason="wrong_shape", score=-1.0, defect_count=0, anomaly_area_px=0)
    assert row_of(refused, 0).why == "wrong_shape"


@pytest.mark.parametrize(
    ("score", "cells"), [(-1.0, 0), (0.0, 0), (0.5, BAR_CELLS // 2), (1.0, BAR_CELLS), (7.0, BAR_CELLS)]
)
def test_the_bar_is_as_long_as_the_score_and_marks_the_threshold(score: float, cells: int) -> None:
    """Any number gives a bar of the same width."""
    drawn = bar(score, 0.5)
    assert len(drawn) == BAR_CELLS
    assert sum(cell in "█┃" for cell in drawn) == cells
    assert drawn[BAR_CELLS // 2] in "│┃"


def test_lines_are_printed_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each result, and the state only when it changes."""
    screen = PlainScreen()
    screen.status("service online", "")
    screen.status("service online", "")
    screen.result(row_of(_result(), 0))
    screen.close()
    state, line = capsys.readouterr().out.splitlines()
    assert state == "-- service online"
    assert all(word in line for word in ("top_000004", "anomalous", "0.970", "2 regions", "flex-demo v1"))


def test_the_table_keeps_the_newest_results_and_the_totals() -> None:
    """What stays on the terminal is the last table."""
    out = io.StringIO()
    screen = LiveScreen(Console(file=out, force_terminal=True, width=160, legacy_windows=False))
    for number in range(50):
        screen.result(row_of(_result(file=f"top_{number:06d}.tif"), 0))
    screen.status("service online", "50 results")
    screen.close()
    assert "top_000049" in out.getvalue()
    assert "50 results" in out.getvalue()
    assert "top_000000" not in out.getvalue()


def test_a_narrow_terminal_keeps_strip_verdict_score_and_reason() -> None:
    """Nothing that matters is cut off at 80 columns; a wide terminal shows everything."""
    assert columns_that_fit(80) == ["strip", "verdict", "score", "why", "latency"]
    assert columns_that_fit(20) == ["strip", "verdict", "score", "why", "latency"]
    assert columns_that_fit(140)[0] == "time"
    assert columns_that_fit(140)[-1] == "model"


def test_the_demos_configuration_is_accepted_and_the_model_is_in_the_inbox(tmp_path: Path) -> None:
    """The service reads it without one problem; two runs never share a folder."""
    folder = _make_folder(tmp_path / "runs")
    assert folder != _make_folder(tmp_path / "runs")
    path = _write_config(folder, "demo", Broker("127.0.0.1", 1883, "mosquitto"), "127.0.0.1:8080")
    config = load_config(path, {})
    assert [problem for problem in check_environment(config) if not problem.warning] == []
    put_model(folder / "inbox", 1, MODEL.read_bytes())
    assert [file.name for file in config.models.inbox.iterdir()] == ["flex-demo-1.onnx"]


def test_the_services_of_the_demo_do_not_see_settings_of_another_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where the real service is set up by environment can run the demo."""
    monkeypatch.setenv("STRIP_AGENT__MQTT__HOST", "plc7")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    assert not {"STRIP_AGENT__MQTT__HOST", "NOTIFY_SOCKET"} & _environment().keys()
    assert "PATH" in _environment()
