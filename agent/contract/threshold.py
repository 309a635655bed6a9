"""Which threshold decides about a strip: the one place where its precedence stands."""

from __future__ import annotations

DEFAULT_THRESHOLD = 0.5  # of the score, where neither configuration nor model name one


def choose_threshold(*, camera: float | None, scoring: float | None, model: float | None) -> float:
    """Return the camera's threshold, else that of `scoring.threshold`, else the model's, else the default.

    It is in the unit of the score: 0..1, pixels for the method `area`. 0.0 is a threshold like any other.
    """
    return float(next(said for said in (camera, scoring, model, DEFAULT_THRESHOLD) if said is not None))
