"""Makes believable strips: line-scan images of a flexible circuit, drawn afresh for each strip.

A strip shows three pieces of one drawing: the target and two references. The pieces differ as real ones do (etched
edges, texture of the film, sharpness, light, noise, a shift of less than a pixel), and now and then a reference carries
a blemish of its own, so that a defect is what the target has and *both* references have not.

Only the simulated camera's process and the recipe that trains the bundled model import this.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.demo.damage import KINDS, damage
from agent.demo.drawing import FINE, HEIGHT, WIDTH, Drawing, Point, draw_circuit

VISIBLE_GREY_LEVELS = 15.0  # a pixel belongs to a defect when the defect changes it by more than this
SMALLEST_DEFECT_PX = 14
ATTEMPTS_PER_DEFECT = 40

FILM, COPPER, FINISH, SILK, HOLE = 66.0, 128.0, 192.0, 222.0, 13.0  # grey levels

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: its kind and its box in pixels (rows, columns; ends excluded) of the strip."""

    kind: str
    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What is wrong with a strip; `mask` is (976, 176) bool, true on every pixel that a defect changed visibly.

    `blemishes` are in one of the references: they make no strip defective.
    """

    defects: tuple[Defect, ...]
    mask: NDArray[np.bool_]
    blemishes: tuple[Defect, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is peculiar to one piece and to its exposure; arrays fit the drawing."""

    edge_noise: Image
    texture: Image
    shift: Point  # pixels of the camera, below one
    sharpness_px: float  # sigma of the blur
    light: Image  # (976, 176), gain
    noise_grey_levels: float


def make_strip(
    rng: np.random.Generator, *, defects: int, blemished: float = 0.25, shift_px: float = 0.5
) -> tuple[Image, Truth]:
    """Make one strip, (4, 976, 176) float32 with whole grey levels 0..255, and the truth about it.

    Channels: target, two references, one that is not used (zero). `blemished` is the share of strips with a blemish in
    one reference, `shift_px` the largest shift of a reference in each direction. The same generator state gives the
    same strip.
    """
    drawing = draw_circuit(rng)
    lamp = _lamp(rng)
    target = _piece(rng, lamp, shift=0.0)
    image, mask, found = _damaged(rng, drawing, target, defects)
    channels = [_digitise(rng, image, target)]
    blemished_reference = int(rng.integers(1, 3)) if rng.random() < blemished else 0
    blemishes = list[Defect]()
    for reference in (1, 2):
        piece = _piece(rng, lamp, shift=shift_px)
        image, _, in_reference = _damaged(rng, drawing, piece, int(reference == blemished_reference))
        blemishes += in_reference
        channels.append(_digitise(rng, image, piece))
    channels.append(np.zeros((HEIGHT, WIDTH), dtype=np.float32))
    return np.stack(channels), Truth(tuple(found), mask, tuple(blemishes))


def _damaged(
    rng: np.random.Generator, drawing: Drawing, piece: Piece, count: int
) -> tuple[Image, NDArray[np.bool_], list[Defect]]:
    """Expose the piece with `count` defects that can be seen and do not touch each other."""
    image, mask = _expose(drawing, piece), np.zeros((HEIGHT, WIDTH), dtype=bool)
    found = list[Defect]()
    for _ in range(ATTEMPTS_PER_DEFECT * count):
        if len(found) == count:
            break
        kind = KINDS[int(rng.integers(len(KINDS)))]
        candidate = damage(rng, drawing, kind)
        if candidate is None:
            continue
        candidate_image = _expose(candidate, piece)
        changed = np.abs(candidate_image - image) > VISIBLE_GREY_LEVELS
        if int(changed.sum()) >= SMALLEST_DEFECT_PX and not (changed & mask).any():
            rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
            found.append(Defect(kind, int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1))
            drawing, image, mask = candidate, candidate_image, mask | changed
    return image, mask, found


# The camera: from a drawing to grey levels.


def _lamp(rng: np.random.Generator) -> Image:
    """Gain of each pixel, (976, 176): the lamp falls off to the sides, and each column has a gain of its own."""
    across = np.linspace(-1, 1, WIDTH)
    columns = 1.0 - rng.uniform(0.02, 0.10) * across**2 + rng.uniform(-0.03, 0.03) * across
    columns = columns + rng.normal(0, 0.006, WIDTH)
    return np.broadcast_to(columns.astype(np.float32), (HEIGHT, WIDTH))


def _piece(rng: np.random.Generator, lamp: Image, *, shift: float) -> Piece:
    fine = (WIDTH * FINE, HEIGHT * FINE)
    coarse_noise = rng.standard_normal((HEIGHT // 2, WIDTH // 2), dtype=np.float32)
    edge_noise = cv2.resize(coarse_noise, fine, interpolation=cv2.INTER_LINEAR)
    grain = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32), (0, 0), 0.8, sigmaY=2.5)
    stains = cv2.resize(rng.standard_normal((24, 6), dtype=np.float32), fine, interpolation=cv2.INTER_CUBIC)
    texture = cv2.resize(grain, fine, interpolation=cv2.INTER_LINEAR) * 6.0 + stains * 1.5
    flicker = rng.normal(1.0, 0.004, (HEIGHT, 1)).astype(np.float32)
    light = lamp * flicker * np.float32(rng.uniform(0.95, 1.05))
    return Piece(
        edge_noise=edge_noise.astype(np.float32),
        texture=texture.astype(np.float32),
        shift=(float(rng.uniform(-shift, shift)), float(rng.uniform(-shift, shift))),
        sharpness_px=float(rng.uniform(0.55, 0.9)),
        light=light.astype(np.float32),
        noise_grey_levels=float(rng.uniform(1.2, 2.2)),
    )


def _expose(drawing: Drawing, piece: Piece) -> Image:
    """Show the drawing as this piece: (976, 176) float32 grey levels, before noise."""
    copper = cv2.GaussianBlur(drawing.copper.astype(np.float32) / 255, (0, 0), 1.2)
    copper = np.clip((copper + 0.07 * piece.edge_noise - 0.5) * 2.2 + 0.5, 0, 1)  # etched: round corners, rough edges
    grey = FILM + (COPPER - FILM) * copper
    bare = drawing.finish.astype(np.float32) / 255 * copper
    grey = grey + (FINISH - COPPER) * bare + piece.texture * (1 - 0.5 * bare)
    for layer, level in ((drawing.silk, SILK), (drawing.holes, HOLE)):
        cover = layer.astype(np.float32) / 255
        grey = grey * (1 - cover) + level * cover
    move = np.array([[1, 0, piece.shift[0] * FINE], [0, 1, piece.shift[1] * FINE]], dtype=np.float32)
    blurred = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), piece.sharpness_px * FINE)
    size = (WIDTH * FINE, HEIGHT * FINE)
    moved = cv2.warpAffine(blurred, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(moved, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) * piece.light, dtype=np.float32)


def _digitise(rng: np.random.Generator, image: Image, piece: Piece) -> Image:
    noise = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32) * np.float32(piece.noise_grey_levels)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.float32)
