"""Sketches of a day: number, mean, variance and the middle, in little room."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.contract.measures import NAMES, on_scale
from agent.drift.sketch import parse_steps
from agent.ledger import open_ledger
from agent.ledger.drift import note_look
from tests.helpers.measures import make_measures

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agent.drift.sketch import Sketch

MODEL = "a" * 64


def _sketch(folder: Path, name: str, values: Iterable[float]) -> Sketch:
    """Have a ledger keep strips that are measured so."""
    ledger = open_ledger(folder / "ledger.db")
    with ledger.database.transaction() as db:
        for seq, value in enumerate(values, start=1):
            note_look(db, "top", seq, "s", MODEL, make_measures(**{name: value}), 0)
    found = ledger.drift.days("top", MODEL, name)
    ledger.database.close()
    return found["1970-01-01"]


@pytest.mark.parametrize("name", NAMES)
def test_a_sketch_knows_mean_deviation_and_middle(tmp_path: Path, name: str) -> None:
    """The middle to a step of the histogram, which holds each value once."""
    usual = {"level": 200.0, "contrast": 50.0, "noise": 2.0, "sharpness": 0.3, "unlike": 0.02, "score": 0.2}
    rng = np.random.default_rng(0)
    middle = usual.get(name.partition("_")[0], 0.5)
    measured = [middle * float(factor) for factor in rng.normal(1, 0.05, 500)]
    sketch = _sketch(tmp_path, name, measured)
    values = [on_scale(name, value) for value in measured]
    assert sketch.n == sum(sketch.steps.values()) == 500
    assert sketch.mean == pytest.approx(statistics.fmean(values))
    assert sketch.deviation == pytest.approx(statistics.stdev(values))
    assert sketch.middle(name) == pytest.approx(statistics.median(values), abs=0.15 if name == "score" else 0.05)


def test_values_beyond_the_histogram_stand_at_its_ends(tmp_path: Path) -> None:
    """Nothing is lost, and nothing breaks."""
    assert _sketch(tmp_path, "rows_1", [-1e5, 1e5, -1e4]).steps == {0: 2, 127: 1}


def test_the_middle_of_good_strips_and_the_share_of_the_others(tmp_path: Path) -> None:
    """Hot strips are counted apart."""
    sketch = _sketch(tmp_path, "score", [0.2] * 6 + [0.9] * 4)
    limit = on_scale("score", 0.5)
    assert sketch.middle("score", limit) == pytest.approx(on_scale("score", 0.2), abs=0.15)
    assert sketch.share_from("score", limit) == pytest.approx(0.4)
    assert sketch.middle("score", -100.0) is None


@pytest.mark.parametrize("text", ["[]", "1", "{", '{"a": 1}', "null", "[" * 100_000])
def test_what_is_no_histogram_is_a_value_error(text: str) -> None:
    """Whatever a ledger holds."""
    with pytest.raises(ValueError, match="no histogram"):
        parse_steps(text)


@pytest.mark.parametrize("damaged", ["[]", "{", '{"a": 1}', ""])
def test_a_histogram_that_cannot_be_read_keeps_no_result_back(tmp_path: Path, damaged: str) -> None:
    """The strip is committed; the day is left out until its histogram can be read again."""
    _sketch(tmp_path, "score", [0.2])
    ledger = open_ledger(tmp_path / "ledger.db")
    with ledger.database.transaction() as db:
        db.execute("UPDATE sketches SET steps = ?", (damaged,))
    assert not ledger.drift.days("top", MODEL, "score")
    with ledger.database.transaction() as db:
        note_look(db, "top", 2, "s", MODEL, make_measures(score=0.2), 0)
    found = ledger.drift.days("top", MODEL, "score")
    ledger.database.close()
    assert [sum(day.steps.values()) for day in found.values()] == ([1] if damaged in ("{", "") else [])
