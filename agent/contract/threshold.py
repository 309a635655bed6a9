"""Which threshold decides about a strip: the one place where its precedence stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_THRESHOLD = 0.5  # of the score, where neither configuration nor model name one

Source = Literal["operator", "camera", "configuration", "model", "default"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score at or above `value` is anomalous: 0..1, pixels for the method `area`. `source`: who says so."""

    value: float
    source: Source


def choose_threshold(
    *, operator: float | None, camera: float | None, scoring: float | None, model: float | None
) -> Threshold:
    """Return the operator's threshold, else the camera's, else that of `scoring.threshold`, the model's, the default.

    0.0 is a threshold like any other.
    """
    said: tuple[tuple[Source, float | None], ...] = (
        ("operator", operator),
        ("camera", camera),
        ("configuration", scoring),
        ("model", model),
    )
    for source, value in said:
        if value is not None:
            return Threshold(float(value), source)
    return Threshold(DEFAULT_THRESHOLD, "default")


def operators_threshold(value: float, set_for: str, method: str) -> float | None:
    """Return an operator's threshold where it can be one of this method's scores, else None.

    It was set in the unit of the scores of `set_for`: 0.3 of a probability says nothing about pixels.
    """
    if (set_for == "area") != (method == "area"):
        return None
    fits = 0 < value < float("inf") if method == "area" else 0 <= value <= 1
    return value if fits else None
