"""Drift names the culprit: what changes on a line is named, nothing else is, and a line that stays is left in peace."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.contract.measures import Measures, Reference, make_reference
from agent.drift.judging import CAUSES, FEWEST, OWN_STRIPS, WINDOW, Cause, Sample, judge
from tests.drift.line import CHANGES, GOOD_BELOW, light

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CALIBRATION = 10  # strips


@cache
def usual() -> list[Measures]:
    """Give strips of a line on which nothing changes."""
    rng = np.random.default_rng(1)
    return [light(rng, 1.0) for _ in range(500)]


def reference(strips: Sequence[Measures]) -> Reference:
    """Make what an exporter, or a camera of its first strips, makes of them."""
    made = make_reference(strips, stretched=False, good_below=GOOD_BELOW)
    assert made is not None
    return made


def found_along(strips: Sequence[Measures], *, calibration: int = CALIBRATION, each: int = 1) -> Iterator[list[str]]:
    """Follow a line strip by strip, as a box does: give the causes that stand after each one."""
    known, own = reference(usual()[:calibration]), reference(usual()[:OWN_STRIPS])
    standing: set[Cause] = set()
    for end in range(each, len(strips) + 1, each):
        samples = [Sample(str(number), one) for number, one in enumerate(strips[max(0, end - WINDOW) : end])]
        found = judge(known, own, samples, standing)
        standing = {finding.cause for finding in found}
        yield [finding.cause for finding in found]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("strength", range(3), ids=["hardly", "clearly", "strongly"])
def test_a_change_is_named_and_never_mistaken_for_another(change: str, strength: int) -> None:
    """Clearly changed is named within a window of strips and stays; hardly changed may be named, but never wrongly."""
    cause, make, strengths = CHANGES[change]
    rng = np.random.default_rng(2)
    after = [make(rng, strengths[strength]) for _ in range(WINDOW)]
    along = list(found_along([*usual()[200 : 200 + WINDOW], *after]))
    assert not any(along[:WINDOW]), "before it changes"
    assert set(itertools.chain(*along)) <= {cause}
    if strength:
        assert along[-1] == [cause]
        assert along[WINDOW + 30] == [cause], "some strips later"


def test_a_line_on_which_nothing_changes_is_left_in_peace_for_10000_strips() -> None:
    """Whichever ten strips the model was calibrated with: the reference's own uncertainty is part of the decision."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(20):
        chosen = rng.permutation(len(usual()))
        known, own = (reference([usual()[place] for place in chosen[:number]]) for number in (CALIBRATION, OWN_STRIPS))
        strips = [Sample(str(number), usual()[place]) for number, place in enumerate(rng.choice(chosen, 500))]
        ends = range(FEWEST, len(strips) + 1, 5)
        alarms += sum(bool(judge(known, own, strips[max(0, end - WINDOW) : end])) for end in ends)
    assert alarms <= 1


def test_everything_that_is_back_is_forgotten_and_what_is_nearly_back_is_not() -> None:
    """An alarm that stands at its limit does not come and go."""
    _, make, (_, clearly, _) = CHANGES["less light"]
    rng = np.random.default_rng(4)
    dark = [make(rng, clearly) for _ in range(WINDOW)]
    nearly = [make(rng, 0.925) for _ in range(WINDOW)]
    assert [*found_along([*dark, *nearly])][-1] == ["light"]
    assert [*found_along(nearly)][-1] == []
    assert [*found_along([*dark, *usual()[:WINDOW]])][-1] == []


def test_two_changes_at_once_are_both_named() -> None:
    """A lamp that is moved may leave the lens out of focus."""
    rng = np.random.default_rng(5)
    _, blurred, (_, clearly, _) = CHANGES["blur"]
    both = [blurred(rng, clearly) for _ in range(WINDOW)]
    darker = [_with(one, level_target=one.level_target * 0.8) for one in both]
    assert [*found_along(darker)][-1] == ["light", "focus"]


@pytest.mark.parametrize("each", [6, 60])
def test_a_line_of_two_products_runs_either_of_them_for_long_without_an_alarm(each: int) -> None:
    """What the calibration strips show is no change, even where a whole window shows one half of it."""
    flat = [_with(one, contrast_target=one.contrast_target * 0.6) for one in usual()]
    mixed = reference([*usual()[:each], *flat[:each]])
    for product in (usual(), flat):
        assert judge(mixed, None, [Sample("", one) for one in product[100 : 100 + WINDOW]]) == []


def test_the_less_calibration_strips_there_are_the_more_must_have_changed() -> None:
    """Five strips that vary do not tell a small change from chance; a hundred do."""
    rng = np.random.default_rng(6)
    factors = rng.normal(1, 0.06, 300)
    varying = [_with(one, level_target=192 * float(factor)) for one, factor in zip(usual(), factors, strict=False)]
    darker = [Sample("", _with(one, level_target=one.level_target * 0.82)) for one in varying[200 : 200 + WINDOW]]
    assert judge(reference(varying[:5]), None, darker) == []
    assert [one.cause for one in judge(reference(varying[:100]), None, darker)] == ["light"]


def test_strips_that_show_nothing_to_measure_do_not_count() -> None:
    """Blank fields have neither edges nor a place: a line that shows many of them is neither blurred nor shifted."""
    nothing = dict.fromkeys(["sharpness_target", "rows_1", "columns_1", "rows_2", "columns_2", "unlike_1", "unlike_2"])
    blank = [_with(one, **nothing) for one in usual()[:30]]
    assert [*found_along([*blank, *usual()[100:110]])][-1] == []


def test_a_defect_now_and_then_is_no_drift_and_many_more_than_ever_are() -> None:
    """What a line always had it may have; the share of hot strips is compared with the camera's own first ones."""
    hot = [_with(one, score=0.99) for one in usual()]
    tenth = [hot[place] if place % 10 == 0 else usual()[place] for place in range(400)]
    own = reference(tenth[:OWN_STRIPS])
    known = reference(usual()[:CALIBRATION])

    def causes(strips: Sequence[Measures]) -> list[str]:
        return [one.cause for one in judge(known, own, [Sample("", one) for one in strips])]

    assert all(causes(tenth[start : start + WINDOW]) == [] for start in range(100, 360))
    assert causes([hot[place] if place % 3 else usual()[place] for place in range(WINDOW)]) == ["product"]


def test_nothing_is_said_of_a_few_strips() -> None:
    """A camera that has just begun."""
    _, make, (_, _, strongly) = CHANGES["less light"]
    rng = np.random.default_rng(7)
    along = list(found_along([make(rng, strongly) for _ in range(FEWEST)]))
    assert along[-2:] == [[], ["light"]]


def test_the_finding_has_the_numbers_and_names_strips_that_show_it() -> None:
    """Whoever gets the alarm looks at those strips first."""
    strips = [Sample(f"before-{number}", one) for number, one in enumerate(usual()[:15])]
    _, make, (_, clearly, _) = CHANGES["blur"]
    rng = np.random.default_rng(8)
    strips += [Sample(f"after-{number}", make(rng, clearly)) for number in range(25)]
    (finding,) = judge(reference(usual()[:CALIBRATION]), None, strips)
    assert finding.cause in CAUSES
    assert len(finding.examples) == 3
    assert all(strip_id.startswith("after") for strip_id in finding.examples)
    assert finding.newest.change < -finding.moved.limit


def _with(measures: Measures, **values: float | None) -> Measures:
    return Measures(**{name: getattr(measures, name) for name in Measures.__slots__} | values)
