"""Noise: how much rounds of the same kind differ stands beside every difference between two kinds."""

from __future__ import annotations

import math

from tools.benching.parts import by_round
from tools.benching.shadow import FEWEST, fitting
from tools.benching.spreads import Spread, differences, percentile
from tools.exporter.progress import in_time


def test_a_spread_is_the_median_and_both_ends() -> None:
    """Of a figure for each round; differences have a sign."""
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])
    assert spread == Spread(2.5, 1.0, 10.0)
    assert spread.tell(1) == "2.5 (1.0 to 10.0)"
    assert Spread.of([-1.0, 2.0, 0.5]).tell(1, "+") == "+0.5 (-1.0 to +2.0)"


def test_a_percentile_is_exceeded_by_the_rest() -> None:
    """Of the values in any order; of a single one it is that."""
    assert percentile([float(value) for value in reversed(range(200))], 0.95) == 190.0
    assert percentile([7.0], 0.95) == 7.0


def test_rounds_that_took_turns_are_compared_with_each_other() -> None:
    """Not with the middle of all: what disturbed both of a pair takes no part in the difference."""
    without = [[10.0, 11.0, 12.0], [110.0, 111.0, 112.0]]
    with_one = [[13.0, 14.0, 15.0], [112.0, 113.0, 114.0]]
    assert differences(with_one, without, 0.5) == [3.0, 2.0]
    assert by_round("without", without) == ["without", "61.0 (11.0 to 111.0)", "62.0 (12.0 to 112.0)", ""]


def test_rounds_of_a_slow_model_have_fewer_strips() -> None:
    """All of them end in time, but for the fewest strips that tell something; a fast one's keep theirs."""
    assert fitting(60, 5, 0.1, 200.0) == 60
    assert fitting(60, 5, 0.5, 200.0) == 40
    assert fitting(60, 5, 3.0, 200.0) == FEWEST
    assert fitting(10, 5, 3.0, 200.0) == 10
    assert fitting(60, 5, 3.0, math.inf) == 60


def test_rounds_that_take_too_long_are_fewer() -> None:
    """The fewest that tell something are run however long they take; a fast machine runs all of them."""

    def rounds_of(seconds: float) -> int:
        passed: list[float] = []
        rounds = iter(in_time(range(7), "rounds", most_seconds=90.0, fewest=3, clock=lambda: sum(passed)))
        while next(rounds, None) is not None:
            passed.append(seconds)
        return len(passed)

    assert [rounds_of(seconds) for seconds in (10.0, 15.0, 20.0, 40.0, 500.0)] == [7, 7, 5, 3, 3]
