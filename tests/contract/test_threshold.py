"""Which threshold decides."""

from __future__ import annotations

import pytest

from agent.contract.threshold import Source, Threshold, choose_threshold, operators_threshold


@pytest.mark.parametrize(
    ("operator", "camera", "scoring", "model", "value", "source"),
    [
        (0.4, 0.1, 0.2, 0.3, 0.4, "operator"),
        (0.0, 0.1, 0.2, 0.3, 0.0, "operator"),
        (None, 0.1, 0.2, 0.3, 0.1, "camera"),
        (None, None, 0.2, 0.3, 0.2, "configuration"),
        (None, None, None, 0.3, 0.3, "model"),
        (None, None, None, None, 0.5, "default"),
        (None, 0.0, 0.2, 0.3, 0.0, "camera"),
        (None, None, 0.0, 0.3, 0.0, "configuration"),
        (None, None, None, 0.0, 0.0, "model"),
    ],
)
def test_the_nearest_threshold_decides(
    operator: float | None,
    camera: float | None,
    scoring: float | None,
    model: float | None,
    value: float,
    source: Source,
) -> None:
    """The operator's, the camera's, the configuration's, the model's, one half; 0.0 is one like any other."""
    chosen = choose_threshold(operator=operator, camera=camera, scoring=scoring, model=model)
    assert chosen == Threshold(value, source)


@pytest.mark.parametrize(
    ("value", "set_for", "method", "used"),
    [
        (0.3, "max", "max", True),
        (0.3, "max", "top_k_mean", True),
        (0.3, "max", "area", False),
        (250.0, "area", "area", True),
        (250.0, "area", "max", False),
        (1.5, "max", "max", False),
        (-0.1, "max", "max", False),
        (0.0, "area", "area", False),
        (float("inf"), "area", "area", False),
        (float("nan"), "max", "max", False),
    ],
)
def test_an_operators_threshold_of_another_unit_is_not_used(
    value: float, set_for: str, method: str, *, used: bool
) -> None:
    """After the method was changed 0.3 of a probability would make every strip anomalous as pixels."""
    assert operators_threshold(value, set_for, method) == (value if used else None)
