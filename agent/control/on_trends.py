"""Commands that look back at scores: over time, and by another threshold. They only read, each in a bounded time."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from agent.clock import DAY_MS, now_ms
from agent.contract.threshold import operators_threshold
from agent.control.arguments import OneCamera
from agent.control.context import CommandError
from agent.ledger.trends import MAX_LAST

if TYPE_CHECKING:
    from agent.control.context import Context, Who

LATEST_MS = 253_402_300_799_999  # what can be written as a date
Time = Annotated[int, Field(ge=0, le=LATEST_MS)]


class InRange(OneCamera):
    """A camera and a range of time, Unix milliseconds: by default the last day."""

    from_ms: Time | None = None
    """From then on; null: a day before its end."""
    to_ms: Time | None = None
    """Up to, but without, then; null: now."""


class OtherThreshold(OneCamera):
    """A camera, a threshold in the unit of its scores, and of how many results it is asked."""

    threshold: Annotated[float, Field(allow_inf_nan=False)]
    """What would decide: 0 to 1, with `scoring.method: area` pixels above 0."""
    last: Annotated[int, Field(ge=1, le=MAX_LAST)] = 10_000
    """Of the newest so many results."""


def trend(context: Context, asked: InRange, _: Who) -> dict[str, Any]:
    """Tell a camera's scores over time, how many were anomalous and invalid, and how the scores are spread."""
    to_ms = now_ms() + 1 if asked.to_ms is None else asked.to_ms
    from_ms = max(0, to_ms - DAY_MS) if asked.from_ms is None else asked.from_ms
    if from_ms >= to_ms:
        raise CommandError("the range ends before it begins")
    in_pixels = _in_pixels(context)
    found = context.ledger.trends.trend(asked.camera, from_ms, to_ms, in_pixels=in_pixels)
    return {"camera": asked.camera, "in_pixels": in_pixels, **asdict(found)}


def what_if(context: Context, asked: OtherThreshold, _: Who) -> dict[str, Any]:
    """Tell how many of a camera's last results another threshold would turn, and which ones; nothing changes."""
    method = context.config.scoring.method
    if operators_threshold(asked.threshold, method, method) is None:
        allowed = "a number of pixels above 0" if method == "area" else "from 0 to 1"
        raise CommandError(f"{asked.threshold:g} is no threshold: with scoring.method: {method} it is {allowed}")
    in_pixels = _in_pixels(context)
    found = asdict(context.ledger.trends.what_if(asked.camera, asked.threshold, asked.last, in_pixels=in_pixels))
    held_to = found.pop("threshold")
    return {
        "camera": asked.camera,
        "in_pixels": in_pixels,
        "threshold": asked.threshold,
        "last": asked.last,
        "threshold_now": held_to,
        **found,
    }


def _in_pixels(context: Context) -> bool:
    return context.config.scoring.method == "area"
