"""How strips look, in a few numbers: what the exporter stamps of the calibration strips and a box measures of each one.

The measuring is in worker/measuring.py, what follows from it in drift/. Only the standard library is imported: the
supervisor compares them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from statistics import fmean, quantiles, stdev
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["level", "contrast", "noise", "sharpness", "shift", "unlike", "score"]

FEWEST_STRIPS = 5  # of which a reference can be made: less say nothing about how strips vary
MIDDLE = 0.95  # of the calibration strips lie between `low` and `high`
MAX_CHARACTERS = 16384
MAX_STRIPS = 10**9
_BOUND = 1e6  # of any number, on any scale


@dataclass(frozen=True, slots=True)
class Measures:
    """One strip as the model is fed; None where the strip shows nothing to measure it by."""

    level_target: float  # grey level 0..255 that the brightest hundredth reaches
    level_reference_1: float
    level_reference_2: float
    contrast_target: float  # grey levels, of the middle 98 of 100 pixels; see worker/light.py
    contrast_reference_1: float
    contrast_reference_2: float
    noise_target: float  # standard deviation in grey levels
    noise_reference_1: float
    noise_reference_2: float
    sharpness_target: float | None  # of what the steepest edges rise by in a pixel, 1.0 is all between dark and bright
    sharpness_reference_1: float | None
    sharpness_reference_2: float | None
    rows_1: float | None  # pixels that reference 1 lies below the target
    columns_1: float | None  # and to its right
    rows_2: float | None
    columns_2: float | None
    unlike_1: float | None  # 1 minus the correlation of target and reference 1 once they lie on each other, 0..2
    unlike_2: float | None
    score: float  # the heatmap's maximum, 0..1, whatever scoring.method says


NAMES = tuple(field.name for field in fields(Measures))
_KINDS: dict[str, Kind] = {"rows": "shift", "columns": "shift"}


def kind_of(name: str) -> Kind:
    """Return what a measure is about."""
    first = name.partition("_")[0]
    return _KINDS.get(first, first)  # type: ignore[arg-type] # the names of Measures begin so


def channel_of(name: str) -> str:
    """Return the channel that a measure is of (`target`, `reference_1`), "" where it is of several."""
    return name.partition("_")[2] if kind_of(name) in {"level", "contrast", "noise", "sharpness"} else ""


def on_scale(name: str, value: float) -> float:
    """Put a measured value on the scale on which measures are compared: logarithms where ratios count."""
    match kind_of(name):
        case "level" | "contrast":
            return math.log(max(value, 1.0))
        case "noise":
            return math.log(max(value, 0.5))  # whole grey levels alone have as much
        case "sharpness":
            return math.log(max(value, 1e-3))
        case "score":
            inside = min(max(value, 1e-4), 1 - 1e-4)
            return math.log(inside / (1 - inside))
        case _:
            return value


def off_scale(name: str, value: float) -> float:
    """Turn `on_scale` round, for people."""
    match kind_of(name):
        case "level" | "contrast" | "noise" | "sharpness":
            return math.exp(min(value, 100.0))
        case "score":
            return 1 / (1 + math.exp(min(-value, 100.0)))
        case _:
            return value


@dataclass(frozen=True, slots=True)
class Spread:
    """How a measure varied over the strips of a reference, on the scale of `on_scale`."""

    strips: int
    mean: float
    deviation: float  # standard deviation of a strip
    low: float  # between these are 95 of 100
    high: float


@dataclass(frozen=True, slots=True)
class Reference:
    """How a number of good strips looked."""

    strips: int
    stretched: bool  # most of them left the grey levels, so that the model was fed stretched ones: as is measured then
    good_below: float  # scores from here on say nothing about good strips, and are left out of `spreads`
    hot: float  # share of the strips that reach `good_below`
    spreads: Mapping[str, Spread]  # by measure; those that too few strips show are missing


def make_reference(strips: Sequence[Measures], *, stretched: bool, good_below: float) -> Reference | None:
    """Take together how strips look; None where they are too few. Rounded as it is written."""
    if len(strips) < FEWEST_STRIPS:
        return None
    spreads = {}
    for name in NAMES:
        seen = [value for value in (getattr(strip, name) for strip in strips) if value is not None]
        if name == "score":
            seen = [value for value in seen if value < good_below]
        if len(seen) >= FEWEST_STRIPS:
            spreads[name] = _spread([on_scale(name, value) for value in seen])
    hot = sum(strip.score >= good_below for strip in strips) / len(strips)
    return Reference(len(strips), stretched, good_below, _short(hot), spreads)


def _spread(values: list[float]) -> Spread:
    cuts = quantiles(values, n=round(2 / (1 - MIDDLE)), method="inclusive")
    return Spread(len(values), *(_short(one) for one in (fmean(values), stdev(values), cuts[0], cuts[-1])))


def _short(value: float) -> float:
    """Four digits: what processors differ by is far behind."""
    return float(f"{value:.4g}") if abs(value) >= 1e-4 else 0.0  # noqa: PLR2004 - of no measure that much counts


def format_reference(reference: Reference) -> str:
    """Write it as the metadata's JSON."""
    spreads = {
        name: [one.strips, one.mean, one.deviation, one.low, one.high] for name, one in reference.spreads.items()
    }
    return json.dumps(
        {
            "strips": reference.strips,
            "stretched": reference.stretched,
            "good_below": reference.good_below,
            "hot": reference.hot,
            "measures": spreads,  # strips, mean, standard deviation, the ends of the middle 95 %
        }
    )


def parse_reference(text: str) -> Reference:
    """Read what `format_reference` wrote; measures of later versions are passed over. Raises ValueError."""
    try:
        found = json.loads(text if len(text) <= MAX_CHARACTERS else "too long")
        measures = {name: value for name, value in found["measures"].items() if name in NAMES}
        reference = Reference(
            strips=_count(found["strips"]),
            stretched=found["stretched"] is True,
            good_below=_number(found["good_below"], 0, 1),
            hot=_number(found["hot"], 0, 1),
            spreads={name: _read_spread(value) for name, value in measures.items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"no reference: {error!r:.100}") from error
    return reference


def _read_spread(value: Any) -> Spread:
    strips, mean, deviation, low, high = value
    spread = Spread(
        _count(strips),
        _number(mean, -_BOUND, _BOUND),
        _number(deviation, 0, _BOUND),
        _number(low, -_BOUND, _BOUND),
        _number(high, -_BOUND, _BOUND),
    )
    if spread.low > spread.high:
        raise ValueError("the low end of a measure lies above the high one")
    return spread


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not FEWEST_STRIPS <= value <= MAX_STRIPS:
        raise ValueError(f"{value!r:.40} is no number of strips from {FEWEST_STRIPS} on")
    return value


def _number(value: Any, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{value!r:.40} is no number from {low:g} to {high:g}")
    return float(value)


def format_measures(measures: Measures) -> str:
    """Write one strip's measures in the order of `NAMES`, four digits each, as JSON."""
    values = (getattr(measures, name) for name in NAMES)
    return json.dumps([None if value is None else _short(value) for value in values], separators=(",", ":"))


def parse_measures(text: str) -> Measures:
    """Read what `format_measures` wrote. Raises ValueError for anything else, that of another version too."""
    try:
        values = [None if value is None else _number(value, -_BOUND, _BOUND) for value in json.loads(text)]
        found = dict(zip(NAMES, values, strict=True))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no measures: {text[:80]!r}") from error
    if any(value is None for name, value in found.items() if name not in MAY_BE_MISSING):
        raise ValueError(f"no measures, as some are missing: {text[:80]!r}")
    return Measures(**found)  # type: ignore[arg-type] # only what may be None is


MAY_BE_MISSING = frozenset(name for name in NAMES if kind_of(name) in {"sharpness", "shift", "unlike"})
