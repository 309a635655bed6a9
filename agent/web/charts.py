"""Charts as the numbers of an SVG drawing, WIDTH x HEIGHT units, stretched by the page. Pure functions.

Axes are labelled beside the drawing, so that letters are not stretched with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT = 1000.0, 200.0
LEAST_SHARE = 0.05  # at the top of the shares' axis
TICKS = 4
LEAST_DAYS = 7  # on the axis of a look
ROOM = 0.1  # above and below what is drawn
SHARE_BUCKETS = 5  # of the scores' ones together: a share of one strip says little


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores over time: paths of the buckets below the threshold and at or above it, the threshold's path, the top."""

    below: str
    above: str
    threshold: str
    top: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Shares:
    """Anomalous and invalid results of each bucket as parts of all, one on the other; `top` is that of the axis."""

    anomalous: list[Bar]
    invalid: list[Bar]
    top: float


def top_of(trend: dict[str, Any]) -> float:
    """Return what the axis of scores ends with: 1, or for pixels what covers all scores and thresholds."""
    if not trend["in_pixels"]:
        return 1.0
    values = [bucket[key] or 0.0 for bucket in trend["buckets"] for key in ("highest", "threshold")]
    return max(10.0, *(value * 1.1 for value in values)) if values else 10.0


def scores(trend: dict[str, Any]) -> Scores:
    """Draw each bucket's lowest to highest score as a line, and the threshold as steps."""
    top = top_of(trend)
    below: list[str] = []
    above: list[str] = []
    steps: list[str] = []
    for bucket in trend["buckets"]:
        x = _x(trend, bucket["ts_ms"] + trend["width_ms"] / 2)
        threshold = bucket["threshold"]
        if bucket["highest"] is not None:
            line = f"M{x} {_y(bucket['highest'], top)}V{_y(bucket['lowest'], top)}"
            high = threshold is not None and bucket["highest"] >= threshold
            (above if high else below).append(line)
        if threshold is not None:
            left, right = _x(trend, bucket["ts_ms"]), _x(trend, bucket["ts_ms"] + trend["width_ms"])
            steps.append(f"{'L' if steps else 'M'}{left} {_y(threshold, top)}H{right}")
    return Scores("".join(below), "".join(above), "".join(steps), top)


def shares(trend: dict[str, Any]) -> Shares:
    """Draw which part of every few buckets was anomalous, and above that which was invalid."""
    wide_ms = trend["width_ms"] * SHARE_BUCKETS
    sums: dict[int, list[int]] = {}
    for bucket in trend["buckets"]:
        counts = sums.setdefault((bucket["ts_ms"] - trend["from_ms"]) // wide_ms, [0, 0, 0])
        for place, verdict in enumerate(("anomalous", "invalid", "ok")):
            counts[place] += bucket[verdict]
    drawn = [
        (trend["from_ms"] + number * wide_ms, anomalous / whole, invalid / whole)
        for number, (anomalous, invalid, ok) in sums.items()
        if (whole := anomalous + invalid + ok)
    ]
    top = max([LEAST_SHARE, *(anomalous + invalid for _, anomalous, invalid in drawn)])
    width = round(wide_ms / (trend["to_ms"] - trend["from_ms"]) * WIDTH, 2)
    bars: tuple[list[Bar], list[Bar]] = ([], [])
    for ts_ms, anomalous, invalid in drawn:
        for kind, (low, high) in zip(bars, pairwise((0.0, anomalous, anomalous + invalid)), strict=True):
            if high > low:
                y = _y(high, top)
                kind.append(Bar(_x(trend, ts_ms), y, width, round(_y(low, top) - y, 2)))
    return Shares(*bars, top)


def histogram(bins: list[dict[str, Any]]) -> tuple[list[Bar], list[Bar]]:
    """Draw how many scores are in each bin, ok and anomalous side by side, by the logarithm: one must be seen, too."""
    most = math.log1p(max((max(one["ok"], one["anomalous"]) for one in bins), default=0))
    drawn: tuple[list[Bar], list[Bar]] = ([], [])
    for place, one in enumerate(bins):
        step = WIDTH / len(bins)
        for half, (bars, number) in enumerate(zip(drawn, (one["ok"], one["anomalous"]), strict=True)):
            if number:
                height = round(math.log1p(number) / most * HEIGHT, 2)
                bars.append(
                    Bar(
                        round((place + half / 2) * step, 2),
                        round(HEIGHT - height, 2),
                        round(step / 2 * 0.9, 2),
                        height,
                    )
                )
    return drawn


def place_in_bins(value: float, bins: list[dict[str, Any]]) -> float | None:
    """Return where a score lies on the histogram's axis, 0 to WIDTH; None where no bin holds it."""
    for place, one in enumerate(bins):
        if one["low"] <= value <= one["high"]:
            inside: float = (value - one["low"]) / (one["high"] - one["low"])
            return round((place + inside) / len(bins) * WIDTH, 2)
    return None


@dataclass(frozen=True, slots=True)
class Look:
    """A measure day by day: the line through the days' middles, a dot on each, what is as ever, the reference's y."""

    line: str
    dots: str
    band: Bar
    reference: float
    ticks: tuple[float, float, float]  # beside the axis, the highest first
    first_day: str
    last_day: str


def look(measure: dict[str, Any], today: date) -> Look:
    """Draw a measure of `page_drift` over the days until today, at least LEAST_DAYS of them; a gap breaks the line."""
    days = [(date.fromisoformat(one["day"]), one["middle"]) for one in measure["days"]]
    values = [measure["limit_low"], measure["limit_high"], *(middle for _, middle in days)]
    room = (max(values) - min(values)) * ROOM or ROOM
    low, high = min(values) - room, max(values) + room
    first = min([today - timedelta(LEAST_DAYS - 1), *(day for day, _ in days)])
    width = WIDTH / ((today - first).days + 1)
    line, dots, before = [], [], None
    for day, middle in days:
        x, y = round(((day - first).days + 0.5) * width, 2), _y(middle - low, high - low)
        line.append(f"{'L' if before == day - timedelta(1) else 'M'}{x} {y}")
        dots.append(f"M{x} {y}h0")
        before = day
    top = _y(measure["limit_high"] - low, high - low)
    return Look(
        line="".join(line),
        dots="".join(dots),
        band=Bar(0, top, WIDTH, round(_y(measure["limit_low"] - low, high - low) - top, 2)),
        reference=_y(measure["reference"] - low, high - low),
        ticks=(high, (high + low) / 2, low),
        first_day=first.isoformat(),
        last_day=today.isoformat(),
    )


def ticks(top: float) -> list[float]:
    """Return the numbers beside an axis from 0 to `top`, the highest first."""
    return [top * step / TICKS for step in range(TICKS, -1, -1)]


def times(from_ms: int, to_ms: int) -> list[int]:
    """Return the times below an axis, Unix milliseconds, the first at its left end."""
    return [from_ms + (to_ms - from_ms) * step // TICKS for step in range(TICKS + 1)]


def _x(trend: dict[str, Any], ts_ms: float) -> float:
    inside: float = (ts_ms - trend["from_ms"]) / (trend["to_ms"] - trend["from_ms"])
    return round(max(0.0, min(1.0, inside)) * WIDTH, 2)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - max(0.0, min(1.0, value / top)) * HEIGHT, 2)
