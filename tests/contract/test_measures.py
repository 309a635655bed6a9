"""How calibration strips look travels in the model's file: it comes back as it was, and anything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.contract.measures import (
    FEWEST_STRIPS,
    NAMES,
    Measures,
    format_measures,
    format_reference,
    make_reference,
    off_scale,
    on_scale,
    parse_measures,
    parse_reference,
)
from agent.contract.model import parse_metadata
from agent.errors import Reason, Reject
from tests.helpers.measures import make_measures

STRIP = make_measures(level_target=100.0, rows_1=0.1, unlike_2=0.01)


def strips(number: int) -> list[Measures]:
    """Make strips that differ a little."""
    return [replace(STRIP, level_target=200.0 + place, score=0.2 + place / 100) for place in range(number)]


def test_a_reference_comes_back_as_it_was() -> None:
    """Measures that only a later version knows are passed over."""
    reference = make_reference(strips(10), stretched=False, good_below=0.5)
    assert reference is not None
    text = format_reference(reference)
    assert parse_reference(text) == reference
    newer = json.loads(text)
    newer["measures"]["colour"] = "anything"
    assert parse_reference(json.dumps(newer)) == reference
    assert len(text) < 2000


def test_too_few_strips_make_no_reference_and_a_measure_that_few_show_is_left_out() -> None:
    """Nobody can know how strips vary from four of them."""
    assert make_reference(strips(FEWEST_STRIPS - 1), stretched=False, good_below=0.5) is None
    few = [replace(one, rows_1=None if place else 0.1) for place, one in enumerate(strips(10))]
    reference = make_reference(few, stretched=False, good_below=0.25)
    assert reference is not None
    assert "rows_1" not in reference.spreads
    assert reference.spreads["score"].strips == 5, "the others reach the threshold"
    assert reference.hot == 0.5


SPOILT: list[dict[str, Any]] = [
    {"strips": 4}, {"strips": "ten"}, {"strips": 10**400}, {"good_below": 2}, {"hot": -1}, {"hot": True},
    {"measures": 1}, {"measures": {"level_target": [10, 5, -1, 4, 6]}},
    {"measures": {"level_target": [10, 5, 1, 6, 4]}},
    {"measures": {"level_target": [10, 5, 1, 4]}}, {"measures": {"level_target": [10, float("nan"), 1, 4, 6]}},
    {"measures": {"level_target": [10, 1e300, 1, 4, 6]}}, {"measures": {"level_target": None}},
]  # fmt: skip


@pytest.mark.parametrize("change", SPOILT, ids=str)
def test_a_reference_with_a_wrong_value_refuses_the_model(change: dict[str, Any]) -> None:
    """With the reason, and before anything is compared with it."""
    reference = make_reference(strips(10), stretched=False, good_below=0.5)
    assert reference is not None
    text = json.dumps(json.loads(format_reference(reference)) | change)
    with pytest.raises(ValueError, match="no reference"):
        parse_reference(text)
    ours = {"contract": "1", "model_id": "m", "version": "1", "created": "now", "input_scale": "unit",
            "image_height": "9", "image_width": "9", "precision": "fp32"}  # fmt: skip
    assert parse_metadata(ours | {"calibration_measures": format_reference(reference)}).reference == reference
    with pytest.raises(Reject, match="calibration_measures") as refused:
        parse_metadata(ours | {"calibration_measures": text})
    assert refused.value.reason is Reason.MODEL_METADATA


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, " " * 20_000, '{"strips": 10}'])
def test_any_text_is_a_reference_or_a_value_error(text: str) -> None:
    """The file may come from anybody."""
    with pytest.raises(ValueError, match="no reference"):
        parse_reference(text)
    with pytest.raises(ValueError, match="no measures"):
        parse_measures(text)


def test_measures_come_back_with_four_digits() -> None:
    """What is not there stays away; what must be there is asked for."""
    strip = replace(STRIP, level_target=123.456789, rows_1=None)
    assert parse_measures(format_measures(strip)) == replace(strip, level_target=123.5)
    with pytest.raises(ValueError, match="missing"):
        parse_measures(json.dumps([None] * len(NAMES)))
    with pytest.raises(ValueError, match="no measures"):
        parse_measures(json.dumps([1.0] * (len(NAMES) + 1)))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_put_on_the_scale_comes_off_it(name: str) -> None:
    """People read the measure's own unit."""
    value = getattr(STRIP, name)
    assert off_scale(name, on_scale(name, value)) == pytest.approx(value)
