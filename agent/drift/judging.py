"""Which alarm follows from how the last strips looked: a pure function of the reference and of these strips.

A measure has moved where the median of the last strips is further from the reference's mean than

- what a model notices at all (`FLOORS`),
- what chance explains, with the reference's own uncertainty: eight strips say less than a hundred (Student's t), and
- nearly all strips of the reference themselves.

Each alarm has the measures that only its cause moves. Scores are asked last: whatever else has changed moves them, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from agent.contract.measures import NAMES, Kind, kind_of, off_scale, on_scale
from agent.drift.student import t_quantile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from agent.contract.measures import Measures, Reference

Cause = Literal["light", "focus", "alignment", "references", "product"]
CAUSES: tuple[Cause, ...] = ("light", "focus", "alignment", "references", "product")

WINDOW = 40  # strips of which the median is taken
FEWEST = 20  # before that many nothing is said
NEWEST = 10  # of them show first what is about to move
OWN_STRIPS = 100  # first ones of a camera under a model, which become its own reference
EXAMPLES = 3
DOUBT = 1e-4  # that chance alone moves one measure so far, whatever strips the reference was made of
EASED = 0.7  # of a limit: an alarm stays until all is nearer than that
CALM = 0.5  # of a limit: what is nearer has not moved, and is not about to
HOT_RISE = 0.3  # of the share of strips that reach the threshold
HOT_DEVIATIONS = 4.5
MEDIAN_COST = math.pi / 2  # variance of a median over that of a mean

SHOWN_BY: dict[Cause, tuple[str, ...]] = {
    "light": ("level_target", "contrast_target", "noise_target"),
    "focus": ("sharpness_target",),
    "alignment": ("rows_1", "columns_1", "rows_2", "columns_2"),
    "references": ("unlike_1", "unlike_2"),
    "product": ("score", "hot"),
}
"""What is shown of each cause in charts and figures; what makes it an alarm is in `judge`."""

FLOORS: dict[Kind, float] = {
    "level": 0.08,  # of logarithms: a ratio of 1.08
    "contrast": 0.1,
    "noise": 0.4,
    "sharpness": 0.15,
    "shift": 0.7,  # pixels
    "unlike": 0.08,  # of a correlation
    "score": 0.7,  # of the score's logarithmic odds: from 0.20 to 0.33
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A strip that was judged: its id and how it looks."""

    strip_id: str
    measures: Measures


@dataclass(frozen=True, slots=True)
class Moved:
    """How far the middle of some strips is from the reference; numbers on the scale of `on_scale`."""

    measure: str  # one of NAMES, or "hot": the share of strips that reach the threshold
    was: float
    found: float
    limit: float
    strips: int

    @property
    def change(self) -> float:
        """From the reference to now."""
        return self.found - self.was

    @property
    def part(self) -> float:
        """Of the limit; 1.0 reaches it."""
        return abs(self.change) / self.limit

    @property
    def deviation(self) -> float:
        """The same with its sign: negative is less than the reference."""
        return self.change / self.limit


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause, what shows it best, and the strips that show it most."""

    cause: Cause
    moved: Moved
    newest: Moved  # the same of the newest strips alone: of the others some are from before the change
    examples: tuple[str, ...]


def judge(
    reference: Reference, own: Reference | None, samples: Sequence[Sample], standing: Collection[Cause] = ()
) -> list[Finding]:
    """Say what has changed, in the order of `CAUSES`; `samples` are the camera's last ones, the newest last.

    `own` is made of the camera's first strips, for the share of hot ones, which calibration strips cannot know.
    `standing` are the causes that were found before: they stay until all is clearly back.
    """
    recent = samples[-WINDOW:]
    if len(recent) < FEWEST:
        return []
    now = middles(reference, recent, FEWEST)
    newest = middles(reference, recent[-NEWEST:], NEWEST // 2)
    if own is not None:
        now["hot"] = _hot(own, recent)
        newest["hot"] = _hot(own, recent[-NEWEST:])
    seen = _Seen(reference, now, newest)
    found: dict[Cause, Moved] = {}
    for cause in CAUSES[:-1]:
        if shown := seen.shows(cause, easing=cause in standing):
            found[cause] = max(shown, key=lambda moved: moved.part)
    if not found and (shown := seen.shows("product", easing="product" in standing)):
        found["product"] = max(shown, key=lambda moved: moved.part)
    return [
        Finding(cause, moved, newest.get(moved.measure, moved), _examples(moved, recent))
        for cause, moved in found.items()
    ]


@dataclass(frozen=True, slots=True)
class _Seen:
    """All measures of the last strips and of the newest of them."""

    reference: Reference
    now: dict[str, Moved]
    newest: dict[str, Moved]

    def shows(self, cause: Cause, *, easing: bool) -> list[Moved]:
        """Return the measures that show this cause."""

        def moved(names: Iterable[str]) -> list[Moved]:
            return [self.now[name] for name in names if name in self.now and self._has_moved(self.now[name], easing)]

        match cause:
            case "light":
                noisier = [one for one in moved(["noise_target"]) if one.change > 0]
                contrast = ["contrast_target"] if self.is_calm(["sharpness_target"]) else []  # blur flattens, too
                return [*moved(["level_target", *contrast]), *noisier]
            case "focus":
                return moved(["sharpness_target"])
            case "alignment":
                return [one for pair in "12" if self.is_calm([f"unlike_{pair}"])
                        for one in moved([f"rows_{pair}", f"columns_{pair}"])]  # fmt: skip
            case "references":
                stands = [what for what in ("level", "contrast", "sharpness") if self.is_calm([f"{what}_target"])]
                own_look = [f"{what}_reference_{number}" for what in stands for number in "12"]
                unlike = [one for one in moved(["unlike_1", "unlike_2"]) if one.change > 0]
                return [*unlike, *moved(own_look)]
            case "product":
                others = [name for name in NAMES if name != "score" and not name.startswith("noise_reference")]
                hotter = [one for one in moved(["hot"]) if one.change > 0]
                calm = self.is_calm(others, 1.0 if easing else CALM)
                return [*moved(["score"]), *hotter] if calm else []

    def is_calm(self, names: Iterable[str], part: float = CALM) -> bool:
        """Whether none of these is on its way: neither of all the last strips nor of the newest."""
        looks = [look[name] for look in (self.now, self.newest) for name in names if name in look]
        return all(look.part < part for look in looks)

    def _has_moved(self, moved: Moved, easing: bool) -> bool:
        if easing:
            return moved.part >= EASED
        spread = self.reference.spreads.get(moved.measure)
        beyond = spread is None or not spread.low <= moved.found <= spread.high
        return moved.part >= 1 and beyond


def middles(reference: Reference, samples: Sequence[Sample], fewest: int) -> dict[str, Moved]:
    """Compare the medians of all measures that at least `fewest` of these strips and the reference have."""
    found = {}
    for name, spread in reference.spreads.items():
        seen = values_of(name, samples, reference.good_below)
        if len(seen) >= fewest:
            chance = t_quantile(DOUBT, spread.strips - 1) * spread.deviation
            chance *= math.sqrt(1 / spread.strips + MEDIAN_COST / len(seen))
            limit = max(FLOORS[kind_of(name)], chance)
            found[name] = Moved(name, spread.mean, median(seen), limit, len(seen))
    return found


def furthest(reference: Reference, own: Reference | None, samples: Sequence[Sample]) -> dict[Cause, Moved]:
    """Return of each cause the measure that is furthest away now; nothing before there are strips enough."""
    recent = samples[-WINDOW:]
    if len(recent) < FEWEST:
        return {}
    now = middles(reference, recent, FEWEST)
    if own is not None:
        now["hot"] = _hot(own, recent)
    shown_by = {cause: [now[name] for name in names if name in now] for cause, names in SHOWN_BY.items()}
    return {cause: max(moved, key=lambda one: one.part) for cause, moved in shown_by.items() if moved}


def values_of(name: str, samples: Iterable[Sample], good_below: float) -> list[float]:
    """Return a measure of these strips as it is compared, without those that do not show it."""
    values = [getattr(sample.measures, name) for sample in samples]
    if name == "score":
        values = [value for value in values if value < good_below]
    return [on_scale(name, value) for value in values if value is not None]


def _hot(own: Reference, samples: Sequence[Sample]) -> Moved:
    """Compare the share of strips that reach the threshold with that of the camera's first strips."""
    share = sum(sample.measures.score >= own.good_below for sample in samples) / len(samples)
    both = (own.hot * own.strips + share * len(samples)) / (own.strips + len(samples))
    chance = HOT_DEVIATIONS * math.sqrt(both * (1 - both) * (1 / own.strips + 1 / len(samples)))
    return Moved("hot", own.hot, share, max(HOT_RISE, chance), len(samples))


def _examples(moved: Moved, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Name the strips that are furthest on the side to which the middle has moved; of equals the newest."""
    name = "score" if moved.measure == "hot" else moved.measure
    shown = [(getattr(sample.measures, name), sample.strip_id) for sample in reversed(samples)]
    side = 1 if moved.change > 0 else -1
    ordered = sorted((one for one in shown if one[0] is not None), key=lambda one: -side * one[0])
    return tuple(strip_id for _, strip_id in ordered[:EXAMPLES])


def shown(moved: Moved) -> tuple[float, float]:
    """Return what was and what is, in the unit of the measure."""
    if moved.measure == "hot":
        return moved.was, moved.found
    return off_scale(moved.measure, moved.was), off_scale(moved.measure, moved.found)
