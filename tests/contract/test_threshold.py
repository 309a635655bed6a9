"""Which threshold decides."""

from __future__ import annotations

import pytest

from agent.contract.threshold import choose_threshold


@pytest.mark.parametrize(
    ("camera", "scoring", "model", "chosen"),
    [
        (0.1, 0.2, 0.3, 0.1),
        (None, 0.2, 0.3, 0.2),
        (None, None, 0.3, 0.3),
        (None, None, None, 0.5),
        (0.0, 0.2, 0.3, 0.0),
        (None, 0.0, 0.3, 0.0),
        (None, None, 0.0, 0.0),
    ],
)
def test_the_nearest_threshold_decides(
    camera: float | None, scoring: float | None, model: float | None, chosen: float
) -> None:
    """The camera's, else the configuration's, else the model's, else one half; 0.0 is one like any other."""
    assert choose_threshold(camera=camera, scoring=scoring, model=model) == chosen
