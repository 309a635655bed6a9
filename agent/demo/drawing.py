"""Draws flexible circuits: two rails along the web, and between them one function block after another.

Coordinates are (column, row) in the camera's pixels; the layers are drawn finer than that.
"""

# ruff: noqa: PLR2004  (the sizes in a drawing are the drawing; names would not say more)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEIGHT, WIDTH = 976, 176  # rows along the web, columns across it
FINE = 2  # drawings have this many pixels for each pixel of the camera

Mask = NDArray[np.uint8]
Point = tuple[float, float]  # column, row


@dataclass(frozen=True, slots=True)
class Drawing:
    """The layers of the circuit, each (1952, 352) uint8, 0 nothing to 255 full."""

    copper: Mask
    finish: Mask  # bare metal, not covered by the film
    silk: Mask
    holes: Mask


def draw_circuit(rng: np.random.Generator) -> Drawing:
    """Draw one circuit, 976 x 176 pixels of the camera."""
    drawing = Drawing(*(np.zeros((HEIGHT * FINE, WIDTH * FINE), dtype=np.uint8) for _ in range(4)))
    for column in (9.0, WIDTH - 9.0):
        line(drawing.copper, [(column, -9.0), (column, HEIGHT + 9.0)], width=float(rng.uniform(5, 9)))
    row = float(rng.uniform(-80, 0))
    while row < HEIGHT:
        length = float(rng.uniform(95, 185))
        block = BLOCKS[int(rng.integers(len(BLOCKS)))]
        block(drawing, rng, row + 6, row + length - 6)
        row += length
    for hole_row in np.arange(float(rng.uniform(10, 60)), HEIGHT, 122.0):
        for column in (9.0, WIDTH - 9.0):
            via(drawing, (column, float(hole_row)), pad=7.0, hole=3.0, bare=True)
    return drawing


def _lines(drawing: Drawing, rng: np.random.Generator, top: float, bottom: float) -> None:
    """Draw parallel traces with a jog, each between two vias."""
    count = int(rng.integers(4, 8))
    columns = np.linspace(34, WIDTH - 34, count) + rng.uniform(-3, 3)
    width = float(rng.uniform(3.5, 0.45 * 108 / (count - 1)))
    jog = float(rng.choice([-1, 1]) * rng.uniform(0, 9))
    for index, column in enumerate(columns):
        start, end = top + 6 + 11 * (index % 2), bottom - 6 - 11 * ((index + 1) % 2)
        middle = (top + bottom) / 2 + 2.0 * index
        path = [
            (column - jog, start),
            (column - jog, middle - abs(jog)),
            (column + jog, middle + abs(jog)),
            (column + jog, end),
        ]
        line(drawing.copper, path, width)
        for point in (path[0], path[-1]):
            via(drawing, point, pad=width / 2 + 3.5, hole=2.3, bare=bool(rng.random() < 0.5))


def _component(drawing: Drawing, rng: np.random.Generator, top: float, bottom: float) -> None:
    """Draw two rows of bare pads for a component, with traces outwards and the silk print."""
    pitch = float(rng.uniform(13, 19))
    rows = np.arange(top + 14, bottom - 8, pitch)
    for side in (-1, 1):
        for row in rows:
            inner, outer = WIDTH / 2 + side * 26.0, WIDTH / 2 + side * 46.0
            box(drawing.copper, (inner, row - pitch * 0.28), (outer, row + pitch * 0.28))
            box(drawing.finish, (inner, row - pitch * 0.28), (outer, row + pitch * 0.28))
            end = WIDTH / 2 + side * float(rng.uniform(58, 64))
            line(drawing.copper, [(outer, row), (end, row)], width=3.5)
            if rng.random() < 0.6:
                via(drawing, (end, row), pad=5.0, hole=2.2, bare=True)
    line(
        drawing.silk,
        [(66, top + 4), (110, top + 4), (110, bottom - 4), (66, bottom - 4), (66, top + 4)],
        width=1.6,
    )
    text(drawing.silk, f"U{rng.integers(1, 40)}", (74, (top + bottom) / 2))


def _plane(drawing: Drawing, rng: np.random.Generator, top: float, bottom: float) -> None:
    """Draw a copper plane with a lattice of vias in clearances and one tooling hole."""
    box(drawing.copper, (24, top + 4), (WIDTH - 24, bottom - 4))
    step = float(rng.uniform(22, 32))
    for row in np.arange(top + 20, bottom - 16, step):
        for column in np.arange(40, WIDTH - 34, step):
            if rng.random() < 0.35:
                continue
            dot(drawing.copper, (column, row), 8.0, value=0)
            via(drawing, (column, row), pad=5.0, hole=2.4, bare=bool(rng.random() < 0.3))
    centre = (WIDTH / 2 + float(rng.uniform(-20, 20)), (top + bottom) / 2)
    dot(drawing.copper, centre, 20.0, value=0)
    via(drawing, centre, pad=16.0, hole=9.0, bare=True)


def _heater(drawing: Drawing, rng: np.random.Generator, top: float, bottom: float) -> None:
    """Draw a meander from rail to rail."""
    pitch = float(rng.uniform(9, 15))
    left, right = 30.0, WIDTH - 30.0
    path: list[Point] = [(left, top + 8)]
    for index, row in enumerate(np.arange(top + 8, bottom - 8, pitch)):
        here, there = (left, right) if index % 2 == 0 else (right, left)
        path += [(here, float(row)), (there, float(row))]
    line(drawing.copper, path, width=pitch * float(rng.uniform(0.35, 0.5)))
    for point in (path[0], path[-1]):
        via(drawing, point, pad=8.0, hole=3.0, bare=True)


def _coil(drawing: Drawing, rng: np.random.Generator, top: float, bottom: float) -> None:
    """Draw a flat spiral, as an antenna."""
    pitch = float(rng.uniform(8.5, 12))
    left, right, upper, lower = 30.0, WIDTH - 30.0, top + 8, bottom - 8
    path: list[Point] = [(left, upper)]
    while right - left > 3 * pitch and lower - upper > 3 * pitch:
        path += [(right, upper), (right, lower), (left, lower), (left, upper + pitch)]
        left, right, upper, lower = left + pitch, right - pitch, upper + pitch, lower - pitch
        path.append((left, upper))
    line(drawing.copper, path, width=pitch * float(rng.uniform(0.35, 0.5)))
    for point in (path[0], path[-1]):
        via(drawing, point, pad=7.0, hole=2.6, bare=True)


def _label(drawing: Drawing, rng: np.random.Generator, top: float, bottom: float) -> None:
    """Draw test pads and the maker's print."""
    middle = (top + bottom) / 2
    text(drawing.silk, f"SF-{rng.integers(10, 99)}{rng.choice(['A', 'B', 'C'])}", (52, middle - 14))
    text(drawing.silk, f"{rng.integers(1000, 9999)}", (58, middle + 22))
    for row in (top + 16, bottom - 16):
        for column in np.linspace(40, WIDTH - 40, int(rng.integers(3, 6))):
            dot(drawing.copper, (column, row), 8.5)
            dot(drawing.finish, (column, row), 7.0)
            line(drawing.copper, [(column, row), (column + 12, row + 12)], width=3.5)


BLOCKS: Sequence[Callable[[Drawing, np.random.Generator, float, float], None]] = (
    _lines,
    _lines,
    _component,
    _plane,
    _heater,
    _coil,
    _label,
)

FIXED_POINT_BITS = 4  # OpenCV draws at fractions of a pixel given in fixed point


def _fixed(point: Point) -> tuple[int, int]:
    scale = FINE * (1 << FIXED_POINT_BITS)
    return round(float(point[0]) * scale), round(float(point[1]) * scale)


def line(mask: Mask, path: Sequence[Point], width: float, value: int = 255) -> None:
    """Draw a path; `width` in the camera's pixels."""
    points = np.array([_fixed(point) for point in path], dtype=np.int32)
    cv2.polylines(
        mask,
        [points],
        isClosed=False,
        color=value,
        thickness=max(1, round(width * FINE)),
        lineType=cv2.LINE_AA,
        shift=FIXED_POINT_BITS,
    )


def box(mask: Mask, corner: Point, opposite: Point) -> None:
    """Fill a rectangle."""
    (left, top), (right, bottom) = _fixed(corner), _fixed(opposite)
    points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, FIXED_POINT_BITS)


def dot(mask: Mask, centre: Point, radius: float, value: int = 255) -> None:
    """Fill a circle."""
    scale = FINE * (1 << FIXED_POINT_BITS)
    cv2.circle(mask, _fixed(centre), round(radius * scale), value, -1, cv2.LINE_AA, FIXED_POINT_BITS)


def via(drawing: Drawing, centre: Point, *, pad: float, hole: float, bare: bool) -> None:
    """Draw a round pad with a drilled hole; a bare one is not covered by the film."""
    dot(drawing.copper, centre, pad)
    if bare:
        dot(drawing.finish, centre, pad - 1.0)
    dot(drawing.holes, centre, hole)


def text(mask: Mask, words: str, left_middle: Point) -> None:
    """Print words."""
    place = (round(left_middle[0] * FINE), round(left_middle[1] * FINE))
    cv2.putText(mask, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.62 * FINE, 255, 2 * FINE - 1, cv2.LINE_AA)
