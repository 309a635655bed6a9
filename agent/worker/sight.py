"""What every model must see: obvious defects on a made strip, hotter than anything on the same strip without them.

The strip is a board of traces with a sensor's blur and noise. Blocks and spots belong to it, in all three channels; in
the defective strip the same ones stand beside them, in the target alone. A heatmap that follows the target's grey
levels finds both alike, and so does one that is the same everywhere. A network that is fed the wrong scale either
notices nothing or saturates, and then calls edges and noise of the clean strip defects, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.worker.model import Pixels

Mask = np.ndarray[Any, np.dtype[np.bool_]]

TRACE, GROUND = 180.0, 60.0  # grey levels of the board
BRIGHT, DARK = 225.0, 20.0  # of blocks; noise adds to them, and nothing may reach the ends of the scale
FAINT = 40.0  # grey levels, of the faintest spot
BLUR_PX, NOISE = 0.8, 0.5  # standard deviations; the noise in grey levels, what the quietest cameras have
LARGEST_BLOCK_PX = 30
HOTTEST = 0.9999  # quantile: a few single pixels say nothing
LEAST_CONTRAST = 0.1  # docs/models.md tells what it was measured from


@dataclass(frozen=True, slots=True)
class Sight:
    """How a model reacts to the made strips, in the heatmap's 0..1."""

    defect: float  # mean inside of the defect that it sees best
    clean: float  # the hottest pixels of the strip without defects

    @property
    def sees(self) -> bool:
        """Whether any threshold tells an obvious defect from none."""
        return self.defect - self.clean >= LEAST_CONTRAST

    def describe(self) -> str:
        """Say it with both numbers."""
        return f"{self.defect:.3f} in an obvious defect, {self.clean:.3f} on the same strip without it"


@dataclass(frozen=True, slots=True)
class MadeStrips:
    """Two strips, (3, height, width) float32 grey levels; `defects` are masks (height, width), one for each defect."""

    clean: Pixels
    defective: Pixels
    defects: tuple[Mask, ...]


def look(heatmap_of: Callable[[Pixels], Pixels], height: int, width: int) -> Sight:
    """Show the made strips to `heatmap_of`: grey levels (3, height, width) -> heatmap (height, width) 0..1."""
    strips = make_strips(height, width)
    clean, defective = heatmap_of(strips.clean), heatmap_of(strips.defective)
    return Sight(max(float(defective[inside].mean()) for inside in strips.defects), float(np.quantile(clean, HOTTEST)))


def make_strips(height: int, width: int) -> MadeStrips:
    """Make both: two blocks and two spots down the strip, defects on the left, on the right what belongs there."""
    rows, columns = np.mgrid[:height, :width]
    board = np.where(np.sin(columns / 4.0 + np.sin(rows / 40.0)) > 0, TRACE, GROUND)
    swapped = TRACE + GROUND - board
    blocks = [np.full_like(board, grey) for grey in (BRIGHT, DARK)]
    spots = [swapped, board + np.copysign(FAINT, swapped - board)]
    clean = np.stack([board, board, board])
    target = board.copy()
    block_px = min(LARGEST_BLOCK_PX, max(4, min(height, width) // 6))
    defects = []
    for number, levels in enumerate([*blocks, *spots]):
        down = np.abs(rows - (2 * number + 1) * height // 8)
        masks = []
        for place in (width // 4, width * 3 // 4):
            right = np.abs(columns - place)
            distance = np.maximum(down, right) if number < len(blocks) else 4 * np.hypot(down, right)
            masks.append(distance <= block_px / 2)
        inside, twin = masks
        np.copyto(clean, levels, where=twin)
        np.copyto(target, levels, where=inside | twin)
        defects.append(inside)
    defective = np.stack([target, clean[1], clean[2]])
    noise = np.random.default_rng(0).normal(0, NOISE, clean.shape)
    return MadeStrips(_photographed(clean, noise), _photographed(defective, noise), tuple(defects))


def _photographed(strip: np.ndarray[Any, Any], noise: np.ndarray[Any, Any]) -> Pixels:
    """Blur each channel and add the noise, as a camera does."""
    blurred = np.stack([cv2.GaussianBlur(channel, (0, 0), BLUR_PX) for channel in strip])
    seen: Pixels = (blurred + noise).astype(np.float32)
    return seen
