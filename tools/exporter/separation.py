"""Whether a network tells defects from what is none, and which threshold does: asked before anything is exported.

Into each strip of the line spots are painted that anybody would see. What the network says of them, and of the strips
that it is quiet about, is shown, and the threshold lies between. Without strips of the line those that a box makes for
its trial serve.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.contract.threshold import DEFAULT_THRESHOLD
from agent.worker.sight import BRIGHT, DARK, HOTTEST, LEAST_CONTRAST, make_strips
from tools.exporter.errors import ExportError
from tools.exporter.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tools.exporter.graph import Array

SPOTS = 4  # on each strip
RADIUS_PX = 4.0
MOST_STRIPS = 12
AS_HOT = 0.9  # of the way from what is around the spots to them
FAR_WIDER = 2.0  # times
WEAKEST = 0.1  # quantile of the spots that are seen: the threshold lies below nearly all of them
SHOWN = 8  # scores
CLEAR_GAP = 0.1  # between the scores of strips, where no painted spot is seen
AT_EXPORT = "give --allow-blind for a file to look at, which no box takes"
NOISE = 1e-5  # of heat: more than torch's single precision differs by between processors
MOST_ON_AVERAGE = 0.5  # heat of whole strips: above, the network calls everything a defect


@dataclass(frozen=True, slots=True)
class Separation:
    """Scores, all 0..1: of strips as they are, and of painted spots."""

    strips: tuple[float, ...]
    before: tuple[float, ...]  # the heat where the spots are, without them
    defects: tuple[float, ...]
    mean: float  # heat of all strips on average
    source: str

    @property
    def seen(self) -> list[float]:
        """The scores of spots that the network reacts to, else of strips that stand out of the others; ascending."""
        pairs = zip(self.defects, self.before, strict=True)
        return sorted(defect for defect, before in pairs if defect - before >= LEAST_CONTRAST) or self._outstanding()

    def _outstanding(self) -> list[float]:
        """Return the scores above the widest gap between those of all strips."""
        scores = sorted(self.strips)
        gaps = [above - below for below, above in itertools.pairwise(scores)]
        return scores[gaps.index(max(gaps)) + 1 :] if gaps and max(gaps) >= CLEAR_GAP else []

    @property
    def weakest(self) -> float:
        """The score that nearly every spot that is seen reaches."""
        return float(np.quantile(self.seen, WEAKEST))

    @property
    def edges(self) -> tuple[float, float]:
        """The hottest score without a defect and the lowest of one: both sides of the gap that the threshold goes into.

        Which strips show defects of their own nobody says: those that are as hot as the spots do, and so do those above
        a gap that is far wider than the one below the spots. Where all do, what is around the spots counts as good.
        """
        around = float(np.median(self.before))
        as_hot = around + AS_HOT * (self.weakest - around)
        quiet = sorted(score for score in self.strips if score < as_hot) or [around]
        gaps = list(itertools.pairwise([*quiet, self.weakest]))
        return max(gaps, key=lambda gap: (gap[1] - gap[0]) * (FAR_WIDER if gap is gaps[-1] else 1))

    @property
    def threshold(self) -> float:
        """Half way between both, three digits."""
        return round(sum(self.edges) / 2, 3) if self.seen else DEFAULT_THRESHOLD

    @property
    def is_settled(self) -> bool:
        """Whether single precision decides nothing: the threshold is the same when all heat is a little more or less.

        It rises and falls with each of them, so the ends say enough.
        """
        return all(self._moved(*by).threshold == self.threshold for by in itertools.product((-NOISE, NOISE), repeat=2))

    def _moved(self, quiet: float, spots: float) -> Separation:
        return replace(
            self,
            strips=tuple(score + quiet for score in self.strips),
            before=tuple(score + quiet for score in self.before),
            defects=tuple(score + spots for score in self.defects),
        )

    def describe(self) -> str:
        """Show the scores around the threshold."""
        return (
            f"threshold {self.threshold:g}: without a defect at most {self.edges[0]:.3f}, with one {self.edges[1]:.3f} "
            f"and more (scores of {self.source}: {_listed(self.strips)}; of {len(self.defects)} painted spots: "
            f"{_listed(self.defects)})"
        )


def separate(
    strips: Sequence[Array], heatmaps: Sequence[Array], heatmap_of: Callable[[Array], Array], *, of_the_line: bool
) -> Separation:
    """Paint spots into `strips`, (3, H, W) grey levels with the `heatmaps` (H, W) that they have, and look."""
    if not of_the_line:
        height, width = strips[0].shape[1:]
        return _on_made_strips(height, width, heatmap_of)
    before, defects = [], []
    chosen = list(zip(strips, heatmaps, strict=True))[:MOST_STRIPS]
    for number, (strip, heatmap) in enumerate(progress(chosen, "obvious defects")):
        painted, insides = _with_spots(strip, np.random.default_rng(number))
        found = heatmap_of(painted)
        before += [float(heatmap[inside].max()) for inside in insides]
        defects += [float(found[inside].max()) for inside in insides]
    scores = tuple(float(heatmap.max()) for heatmap in heatmaps)
    mean = float(np.mean([heatmap.mean() for heatmap in heatmaps]))
    return Separation(scores, tuple(before), tuple(defects), mean, f"{len(chosen)} strips")


def check_separation(found: Separation, threshold: float | None, otherwise: str = AT_EXPORT) -> None:
    """Refuse a network that tells nothing, and a threshold that no defect reaches. Raises ExportError.

    `otherwise` is what a person can do but for another network.
    """
    if found.mean > MOST_ON_AVERAGE:
        raise _blind(
            f"it calls everything a defect: its heatmaps of {found.source} are {found.mean:.3f} on average", otherwise
        )
    if not found.seen:
        rise = max(defect - before for defect, before in zip(found.defects, found.before, strict=True))
        raise _blind(
            f"spots that anybody would see, painted into {found.source}, raise its heat by {rise:.3f} at most",
            otherwise,
        )
    highest = max(found.seen[-1], *found.strips)
    if threshold is not None and threshold > highest:
        raise ExportError(
            f"Every defect would be ok: none reaches --threshold {threshold:g}, the highest scores {highest:.3f}; give "
            f"a lower one, or none ({found.describe()})."
        )


def _listed(scores: Sequence[float]) -> str:
    ordered = sorted(scores)
    shown = [f"{score:.3f}" for score in (ordered if len(ordered) <= SHOWN else ordered[:: len(ordered) // SHOWN])]
    return " ".join([*shown, f"... {ordered[-1]:.3f}"] if len(ordered) > SHOWN else shown)


def _blind(why: str, otherwise: str) -> ExportError:
    return ExportError(f"The network is blind: {why}; export another epoch, or {otherwise}.")


def _with_spots(strip: Array, random: np.random.Generator) -> tuple[Array, list[Array]]:
    """Paint SPOTS spots into the target, bright ones on dark ground and the other way round, each in its own rows."""
    height, width = strip.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    painted, insides = strip.copy(), []
    for number in range(SPOTS):
        row = (number + random.uniform(0.3, 0.7)) * height / SPOTS
        column = random.uniform(0.2, 0.8) * width
        inside = np.hypot(rows - row, columns - column) <= RADIUS_PX
        painted[0][inside] = BRIGHT if strip[0][inside].mean(dtype=np.float64) < (BRIGHT + DARK) / 2 else DARK
        insides.append(inside)
    return painted, insides


def _on_made_strips(height: int, width: int, heatmap_of: Callable[[Array], Array]) -> Separation:
    made = make_strips(height, width)
    clean, defective = heatmap_of(made.clean), heatmap_of(made.defective)
    obvious = made.defects[:-1]  # the last one is faint
    return Separation(
        (float(np.quantile(clean, HOTTEST)),),
        tuple(float(clean[inside].max()) for inside in obvious),
        tuple(float(defective[inside].max()) for inside in obvious),
        float(clean.mean()),
        "made-up strips",
    )
