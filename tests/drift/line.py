"""A line whose camera, references and product a test changes: strips that are drawn, and how they look.

A strip shows three pieces of one drawing. The model is a toy: its heatmap is the blurred difference of target and first
reference, so that its scores move with everything that moves a real model's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agent.worker.measuring import measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.contract.measures import Measures

Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]
HEIGHT, WIDTH = 244, 88
NOISE = 2.0
GOOD_BELOW = 0.5


def draw(rng: np.random.Generator) -> Pixels:
    """Draw a part, (height, width): pads and traces on dark ground."""
    picture = np.full((HEIGHT, WIDTH), 60.0, np.float32)
    for _ in range(60):
        corner = np.array([rng.integers(0, WIDTH), rng.integers(0, HEIGHT)])
        size = rng.integers(3, 22, 2) if rng.random() < 0.6 else np.array([2, int(rng.integers(20, 70))])
        cv2.rectangle(picture, corner.tolist(), (corner + size).tolist(), float(rng.choice([130, 190])), -1)
    return picture


def strip(rng: np.random.Generator, part: Pixels, other: Pixels | None = None) -> Pixels:
    """Show a part, (3, height, width) float32, as optics do and before noise; references may be of an `other` one."""
    pieces = [part, *([part if other is None else other] * 2)]
    moves = [(0.0, 0.0), (0.0, 0.0), tuple(rng.uniform(-0.4, 0.4, 2))]
    lit = [moved(cv2.GaussianBlur(piece, (0, 0), 0.7), *move) for piece, move in zip(pieces, moves, strict=True)]
    return np.stack(lit) * np.float32(rng.normal(1, 0.01))


def moved(picture: Pixels, rows: float, columns: float) -> Pixels:
    """Move a picture down and right."""
    way = np.array([[1, 0, columns], [0, 1, rows]], np.float32)
    size = (picture.shape[1], picture.shape[0])
    return cv2.warpAffine(picture, way, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def look(rng: np.random.Generator, pixels: Pixels, noise: float = NOISE) -> Measures:
    """Expose a strip, score it with the toy, and measure how it looks."""
    seen = np.clip(pixels + rng.normal(0, noise, pixels.shape), 0, 255).astype(np.float32)
    difference = cv2.blur(np.abs(seen[0] - seen[1]), (3, 3))
    return measure(seen, 255.0, float(np.clip(difference.max() / 60, 0, 1)))


def light(rng: np.random.Generator, gain: float) -> Measures:
    """Give `gain` times the light, on everything."""
    return look(rng, strip(rng, draw(rng)) * gain)


def light_on_the_target(rng: np.random.Generator, gain: float) -> Measures:
    """Do the same with references from before."""
    pixels = strip(rng, draw(rng))
    pixels[0] *= gain
    return look(rng, pixels)


def veil(rng: np.random.Generator, share: float) -> Measures:
    """Take this share of the contrast by stray light; the brightest places stay as bright."""
    return look(rng, 190 + (strip(rng, draw(rng)) - 190) * (1 - share))


def blur(rng: np.random.Generator, sigma_px: float) -> Measures:
    """Take the lens out of focus, for everything."""
    return look(rng, np.stack([cv2.GaussianBlur(one, (0, 0), sigma_px) for one in strip(rng, draw(rng))]))


def blur_on_the_target(rng: np.random.Generator, sigma_px: float) -> Measures:
    """Do the same with references from before."""
    pixels = strip(rng, draw(rng))
    pixels[0] = cv2.GaussianBlur(pixels[0], (0, 0), sigma_px)
    return look(rng, pixels)


def sensor(rng: np.random.Generator, noise: float) -> Measures:
    """Make up for a weak lamp by the gain, and with it the noise."""
    return look(rng, strip(rng, draw(rng)), noise)


def shift_down(rng: np.random.Generator, pixels_: float) -> Measures:
    """Let the trigger come late."""
    return look(rng, _shifted(rng, pixels_, 0.0))


def shift_right(rng: np.random.Generator, pixels_: float) -> Measures:
    """Let the material run beside its place."""
    return look(rng, _shifted(rng, 0.0, pixels_))


def _shifted(rng: np.random.Generator, rows: float, columns: float) -> Pixels:
    pixels = strip(rng, draw(rng))
    pixels[0] = moved(pixels[0], rows, columns)
    return pixels


def stale(rng: np.random.Generator, share: float) -> Measures:
    """Let the references show another part, in this share of their rows."""
    part, other = draw(rng), draw(rng)
    rows = int(HEIGHT * share)
    other[rows:] = part[rows:]
    return look(rng, strip(rng, part, other))


def texture(rng: np.random.Generator, depth: float) -> Measures:
    """Give the product specks, of so many grey levels."""
    pixels = strip(rng, draw(rng))
    specks = np.zeros((HEIGHT, WIDTH), np.float32)
    for _ in range(8):
        cv2.circle(specks, (int(rng.integers(5, WIDTH - 5)), int(rng.integers(5, HEIGHT - 5))), 2, 1.0, -1)
    pixels[0] += depth * specks * np.where(pixels[0] > 120, -1, 1)
    return look(rng, pixels)


CHANGES: dict[str, tuple[str, Callable[[np.random.Generator, float], Measures], tuple[float, float, float]]] = {
    "less light": ("light", light, (0.95, 0.85, 0.7)),
    "more light": ("light", light, (1.04, 1.15, 1.25)),
    "less light on the target": ("light", light_on_the_target, (0.95, 0.85, 0.7)),
    "a veil": ("light", veil, (0.08, 0.2, 0.4)),
    "noise": ("light", sensor, (2.5, 4.0, 8.0)),
    "blur": ("focus", blur, (0.4, 0.9, 1.6)),
    "blur of the target": ("focus", blur_on_the_target, (0.4, 0.9, 1.6)),
    "shift down": ("alignment", shift_down, (0.6, 2.0, 8.0)),
    "shift to the right": ("alignment", shift_right, (0.6, 2.0, 8.0)),
    "references of another part": ("references", stale, (0.1, 0.4, 1.0)),
    "specks": ("product", texture, (8.0, 25.0, 60.0)),
}
"""What changes -> the alarm that names it, how, and how much: hardly, clearly, strongly."""
