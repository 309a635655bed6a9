"""Sketches of a day: number, mean, variance and the middle, in little room."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from agent.contract.measures import NAMES, on_scale
from agent.drift.sketch import EMPTY, format_steps, parse_steps


@pytest.mark.parametrize("name", NAMES)
def test_a_sketch_knows_mean_deviation_and_middle(name: str) -> None:
    """The middle to a step of the histogram."""
    usual = {"level": 200.0, "contrast": 50.0, "noise": 2.0, "sharpness": 0.3, "unlike": 0.02, "score": 0.2}
    rng = np.random.default_rng(0)
    middle = usual.get(name.partition("_")[0], 0.5)
    values = [on_scale(name, middle * float(factor)) for factor in rng.normal(1, 0.05, 500)]
    sketch = EMPTY
    for value in values:
        sketch = sketch.with_value(name, value)
    assert sketch.n == 500
    assert sketch.mean == pytest.approx(statistics.fmean(values))
    assert sketch.deviation == pytest.approx(statistics.stdev(values))
    assert sketch.middle(name) == pytest.approx(statistics.median(values), abs=0.15 if name == "score" else 0.05)
    assert parse_steps(format_steps(sketch.steps)) == sketch.steps
    assert len(format_steps(sketch.steps)) < 300


def test_values_beyond_the_histogram_stand_at_its_ends() -> None:
    """Nothing is lost, and nothing breaks."""
    sketch = EMPTY.with_value("rows_1", -1e6).with_value("rows_1", 1e6)
    assert sum(sketch.steps.values()) == 2


def test_the_middle_of_good_strips_and_the_share_of_the_others() -> None:
    """Hot strips are counted apart."""
    sketch = EMPTY
    for score in [0.2] * 6 + [0.9] * 4:
        sketch = sketch.with_value("score", on_scale("score", score))
    limit = on_scale("score", 0.5)
    assert sketch.middle("score", limit) == pytest.approx(on_scale("score", 0.2), abs=0.15)
    assert sketch.share_from("score", limit) == pytest.approx(0.4)
    assert sketch.middle("score", -100.0) is None


@pytest.mark.parametrize("text", ["[]", "1", "{", '{"a": 1}', "null", "[" * 100_000])
def test_what_is_no_histogram_is_a_value_error(text: str) -> None:
    """Whatever a ledger holds."""
    with pytest.raises(ValueError, match="no histogram"):
        parse_steps(text)
