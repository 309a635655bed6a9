"""What costs trainers time: found out first, named, kept, told apart."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.exporter.conftest import IMAGE
from tools.exporter.approval import Refused
from tools.exporter.errors import ExportError, told_apart
from tools.exporter.files import kept_when_stopped
from tools.exporter.options import Options
from tools.exporter.pictures import labelled, side_by_side
from tools.exporter.report import write_report
from tools.exporter.strips import read_folder
from tools.exporter.versions import DAY_SECONDS, next_version

if TYPE_CHECKING:
    from pathlib import Path

    from tests.exporter.conftest import Export

FRACTION = st.floats(0, 1)


def test_each_export_has_a_higher_version_than_the_one_before(export: Export, tmp_path: Path) -> None:
    """Also from an older checkpoint, and within a second; the checkpoint's own time stands beside it."""
    first = export(image_size=(64, 64)).facts
    second = export("second", image_size=(64, 64)).facts
    assert second.version > first.version
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(second.created)
    assert dt.timedelta(0) <= age < dt.timedelta(minutes=10)
    metadata = {prop.key: prop.value for prop in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert metadata["strip_agent.checkpoint_changed"].endswith("Z")


def test_versions_rise_when_the_clock_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back is passed over; one that was years ahead is not followed for ever."""
    now = 1_800_000_000
    monkeypatch.setattr("time.time", lambda: now)
    assert [next_version(), next_version()] == [now, now + 1]
    monkeypatch.setattr("time.time", lambda: now - 3600)
    assert next_version() == now + 2
    monkeypatch.setattr("time.time", lambda: now - 2 * DAY_SECONDS)
    assert next_version() == now - 2 * DAY_SECONDS


def test_version_is_the_time_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without a folder of their own can still export."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("time.time", lambda: 1_800_000_000)
    assert next_version() == 1_800_000_000


@given(FRACTION, FRACTION)
def test_numbers_that_differ_are_written_so(one: float, other: float) -> None:
    """A refusal never says that 0.05 was found and 0.05 is allowed."""
    shown, allowed = told_apart(one, other)
    assert (shown == allowed) == (f"{one:.17g}" == f"{other:.17g}")


def test_what_is_no_strip_is_passed_over_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Text, another size, 0..1 instead of grey levels: read with the box's reader, and counted against the least."""
    random = np.random.default_rng(0)
    good = random.integers(0, 255, (3, *IMAGE)).astype(np.uint8)
    written: dict[str, Any] = {"a": good, "small": good[:, :50], "unit": (good / 255).astype(np.float32)}
    for name, pixels in written.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack")
    (tmp_path / "text\x1b[31m.tiff").write_text("no strip")
    (tmp_path / "notes.txt").write_text("not looked at")
    assert [strip.name for strip in read_folder(tmp_path, IMAGE)] == ["a.tif"]
    said = capfd.readouterr().err
    for sentence in ("small.tif (wrong_shape", "unit.tif (unit_range_suspected", "text\\x1b[31m.tiff (not_a_tiff"):
        assert sentence in said
    with pytest.raises(ExportError, match=r"holds 1 strips of 150 x 96, 2 are needed, 3 files were passed over"):
        read_folder(tmp_path, IMAGE, 2)


def test_report_and_picture_tell_why_the_guard_refused(export: Export, calibration: Path, tmp_path: Path) -> None:
    """Calibration, plan and guard are all there, the strips beyond the limits stand out, and there is no file."""
    asked: dict[str, Any] = {"precision": "int8", "calibration": calibration, "float_layers": "none", "threshold": 0.9}
    with pytest.raises(Refused) as refused:
        export(max_score_change=0, max_heat_change=0, **asked)
    assert not (tmp_path / "out.onnx").exists()
    assert (tmp_path / "out.onnx.refused.png").stat().st_size > 1000
    write_report(tmp_path / "report.html", refused.value.exported, Options(**asked))
    page = (tmp_path / "report.html").read_text()
    for part in ("There is no file", "strip_0.TIFF", "tensors, by extremes", "layers left in float", "<svg", "<image"):
        assert part in page
    assert page.count('<tr class="bad">') >= 1
    assert "Speed and memory" not in page, "nothing was measured of a file that is not there"


def test_picture_of_a_refusal_says_what_is_what() -> None:
    """A line of words above the parts, a ring around the pixel that differs most."""
    pixels, heat = np.zeros((3, 40, 30), np.float32), np.zeros((40, 30), np.float32)
    other = heat.copy()
    other[20, 10] = 0.5
    plain, words = side_by_side(pixels, heat, other), labelled(pixels, heat, other)
    assert words.shape[0] > plain.shape[0]
    assert (words[: words.shape[0] - 40] < 100).any(), "there are no letters"
    ring = (plain == (60, 60, 255)).all(2)
    rows, columns = np.nonzero(ring[:, :30])
    assert abs(rows.mean() - 20) < 1.5
    assert abs(columns.mean() - 10) < 1.5


@pytest.mark.parametrize(
    ("before", "written", "says"),
    [(False, False, "no .* was written"), (True, False, "is what it was before"), (False, True, "complete and proven")],
)
def test_stopping_says_what_was_kept(tmp_path: Path, before: bool, written: bool, says: str) -> None:
    """Ctrl-C, whenever: the person knows what lies under the name."""
    out = tmp_path / "m.onnx"
    if before:
        out.touch()

    def stopped() -> None:
        with kept_when_stopped(out):
            if written:
                out.write_text("model")
            raise KeyboardInterrupt

    with pytest.raises(ExportError, match=says):
        stopped()
