"""What an export says of how the calibration strips look."""

from __future__ import annotations

import numpy as np
import pytest

from agent.contract.measures import format_reference, parse_reference
from agent.worker.measuring import measure
from tests.helpers.strips import make_pixels
from tools.exporter.looks import reference_of
from tools.exporter.strips import NamedStrip


def strips(number: int, *, stretched: int = 0) -> list[NamedStrip]:
    """Make strips, so many of them stretched ones that are half as bright."""
    every = [make_pixels(channels=3, seed=seed) for seed in range(number)]
    return [
        NamedStrip(str(seed), pixels * (0.5 if seed < stretched else 1.0), seed < stretched)
        for seed, pixels in enumerate(every)
    ]


def heatmaps(*scores: float) -> list[np.ndarray]:
    """Make heatmaps with these maxima."""
    return [np.array([[0.0, score]], np.float32) for score in scores]


def test_the_reference_is_what_a_box_measures_of_the_same_strips() -> None:
    """Scores that reach the threshold are defects', and none of a good strip."""
    line = strips(8)
    scores = (0.1, 0.12, 0.1, 0.9, 0.11, 0.1, 0.95, 0.1)
    reference = reference_of(line, heatmaps(*scores), 0.5)
    assert reference is not None
    assert (reference.strips, reference.stretched, reference.good_below, reference.hot) == (8, False, 0.5, 0.25)
    assert reference.spreads["score"].strips == 6
    levels = [np.log(measure(one.pixels, 255.0, 0.1).level_target) for one in line]
    assert reference.spreads["level_target"].mean == pytest.approx(np.mean(levels), rel=1e-3)
    assert reference.spreads["level_target"].deviation == pytest.approx(np.std(levels, ddof=1), rel=1e-3)
    assert parse_reference(format_reference(reference)) == reference


@pytest.mark.parametrize(("stretched", "expected"), [(2, (6, False)), (6, (6, True))])
def test_only_the_more_frequent_kind_counts_where_some_strips_were_stretched(
    stretched: int, expected: tuple[int, bool]
) -> None:
    """The two cannot be compared: the stretching hides the light."""
    reference = reference_of(strips(8, stretched=stretched), heatmaps(*[0.1] * 8), None)
    assert reference is not None
    assert (reference.strips, reference.stretched) == expected
    assert reference.good_below == 0.5


def test_a_few_strips_are_no_reference_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The file is written all the same; a box makes a reference of its own."""
    assert reference_of(strips(4), heatmaps(*[0.1] * 4), 0.5) is None
    assert "4 calibration strips do not show how strips vary, 5 do" in capsys.readouterr().err
