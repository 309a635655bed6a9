"""The simulated cameras: what they write, and that they say the truth about it."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from agent.demo.camera import BROKEN, CYCLE, encode, plans, run_camera
from agent.demo.strips import make_strip
from agent.demo.truth import Written, compare, read_truth

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def strip() -> np.ndarray:
    """One good strip."""
    return make_strip(np.random.default_rng(1), defects=0)[0]


def test_the_cameras_write_what_the_truth_file_says_and_leave_no_temporary_file(tmp_path: Path) -> None:
    """Each line of the truth file names one file; slow and fast ways of writing both end with a readable strip."""
    truth_file = tmp_path / "truth.jsonl"
    run_camera(tmp_path / "cameras", truth_file, threading.Event(), rate=100, strips=8, seed=3)
    written = read_truth(truth_file)
    files = {path for path in (tmp_path / "cameras").rglob("*") if path.is_file()}
    assert files == {tmp_path / "cameras" / strip.camera / strip.file for strip in written}
    assert len(files) == 8
    for entry in written:
        if not entry.broken:
            shown = tifffile.imread(tmp_path / "cameras" / entry.camera / entry.file)
            assert shown.shape == (4, 976, 176)
            assert shown.dtype == np.float32


def test_the_cameras_stop_when_they_are_asked_to(tmp_path: Path) -> None:
    """Without a number of strips they write until the event is set, and the truth is complete then."""
    stop = threading.Event()
    stop.set()
    run_camera(tmp_path / "cameras", tmp_path / "truth.jsonl", stop, rate=1, strips=None, seed=0)
    assert read_truth(tmp_path / "truth.jsonl") == []


def test_a_dozen_strips_hold_every_kind_and_both_cameras_see_defects() -> None:
    """The shortest demo that the README suggests shows good, defective, broken and slow strips."""
    dozen = list(islice(plans(0), len(CYCLE)))
    assert Counter(plan.camera for plan in dozen) == {"top": 6, "bottom": 6}
    assert {plan.camera for plan in dozen if plan.defects} == {"top", "bottom"}
    assert sum(bool(plan.broken) for plan in dozen) == 2
    assert sum(plan.slow for plan in dozen) == 2
    assert {plan.broken for plan in islice(plans(0), 36)} == {"", *BROKEN}


def test_each_broken_file_differs_from_the_good_one(strip: np.ndarray) -> None:
    """A kind of damage that changes nothing would be a demo of nothing."""
    contents = {broken: encode(strip, broken) for broken in ("", *BROKEN)}
    assert len(set(contents.values())) == len(contents)


def test_the_comparison_counts_right_wrong_and_missing() -> None:
    """The demo's last words are counted from what was published, and a wrong verdict is named."""
    written = [
        Written("top", "a", (), ""),
        Written("top", "b", ("open",), ""),
        Written("top", "c", ("spur",), ""),
        Written("bottom", "a", (), "empty"),
        Written("bottom", "b", (), "empty"),
    ]
    verdicts = {("top", "a"): "ok", ("top", "b"): "anomalous", ("top", "c"): "ok", ("bottom", "a"): "invalid"}
    found = compare(written, {key: {"verdict": verdict} for key, verdict in verdicts.items()})
    assert (found.good, found.good_passed) == (1, 1)
    assert (found.defective, found.defective_found) == (2, 1)
    assert (found.broken, found.broken_refused) == (2, 1)
    assert found.missing == (("bottom", "b"),)
    assert found.wrong == ((("top", "c"), "spur", "ok"),)


def test_a_truth_file_that_is_being_written_is_read_without_its_last_line(tmp_path: Path) -> None:
    """The demo may read while the cameras' process is killed in the middle of a line."""
    path = tmp_path / "truth.jsonl"
    path.write_text('{"camera": "top", "file": "a", "defects": ["open"], "broken": ""}\n{"camera": "to')
    assert read_truth(path) == [Written("top", "a", ("open",), "")]
    assert read_truth(tmp_path / "none") == []
