"""Damages a drawing: what goes wrong when circuits are etched, drilled and handled."""

# ruff: noqa: PLR2004  (the sizes in a drawing are the drawing; names would not say more)

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.demo.drawing import FINE, FIXED_POINT_BITS, HEIGHT, WIDTH, Drawing, Mask, Point, line

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("open", "short", "mouse_bite", "spur", "pin_hole", "spurious_copper", "missing_hole", "scratch")


def damage(rng: np.random.Generator, drawing: Drawing, kind: str) -> Drawing | None:
    """Return a copy of the drawing with one more defect of this kind, or None when it has no place for one."""
    copper, finish, silk, holes = (layer.copy() for layer in _layers(drawing))
    solid = ((copper > 127) & (holes < 128)).astype(np.uint8)
    inside = _distance(solid)  # to the nearest edge, in fine pixels
    outside = _distance((copper <= 127).astype(np.uint8))
    size = float(rng.uniform(4.5, 8.5))
    if kind == "missing_hole":
        return _fill_hole(rng, drawing)
    if kind == "scratch":
        _scratch(rng, copper, finish)
        return Drawing(copper, finish, silk, holes)
    places, extra, value = {
        "open": (_ridge(inside) & (inside > 2.5) & (inside < 9), 4.0, 0),
        "short": (_ridge(outside) & (outside > 2.5) & (outside < 11), 4.0, 255),
        "mouse_bite": ((inside >= 1) & (inside < 2.5), size, 0),
        "spur": ((outside >= 1) & (outside < 2.5), size, 255),
        "pin_hole": (inside > size + 3, size - inside.max(), 0),
        "spurious_copper": (outside > size + 5, size - outside.max(), 255),
    }[kind]
    place = _choose(rng, places)
    if place is None:
        return None
    row, column = place
    reach = float(inside[row, column] if value == 0 else outside[row, column])
    radius = size if kind in {"pin_hole", "spurious_copper"} else min(reach + extra, 15.0)
    blob = _blob(rng, (column, row), radius)
    cv2.fillPoly(copper, [blob], value, cv2.LINE_AA, FIXED_POINT_BITS)
    if value == 0:
        cv2.fillPoly(finish, [blob], 0, cv2.LINE_AA, FIXED_POINT_BITS)
    return Drawing(copper, finish, silk, holes)


def _layers(drawing: Drawing) -> tuple[Mask, Mask, Mask, Mask]:
    return drawing.copper, drawing.finish, drawing.silk, drawing.holes


def _distance(inside: Mask) -> NDArray[np.float32]:
    return cv2.distanceTransform(inside, cv2.DIST_L2, 3).astype(np.float32)


def _ridge(distance: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels in the middle of a trace or of a gap: nothing near them is farther from an edge."""
    return np.asarray(distance >= cv2.dilate(distance, np.ones((3, 3), dtype=np.uint8)) - 0.01)


def _choose(rng: np.random.Generator, places: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Choose one of the places, (row, column) in fine pixels, away from the strip's border."""
    margin = 8 * FINE
    rows, columns = np.nonzero(places[margin:-margin, margin:-margin])
    if rows.size == 0:
        return None
    index = int(rng.integers(rows.size))
    return int(rows[index]) + margin, int(columns[index]) + margin


def _blob(rng: np.random.Generator, centre: Point, radius: float) -> NDArray[np.int32]:
    """Make an irregular outline around `centre`, all in fine pixels, as fixed point."""
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radii = radius * rng.uniform(0.8, 1.25, angles.size)
    outline = np.stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)], axis=1)
    return np.round(outline * (1 << FIXED_POINT_BITS)).astype(np.int32)


def _fill_hole(rng: np.random.Generator, drawing: Drawing) -> Drawing | None:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((drawing.holes > 127).astype(np.uint8))
    whole = [
        label
        for label in range(1, count)
        if stats[label, cv2.CC_STAT_TOP] > 0
        and stats[label, cv2.CC_STAT_TOP] + stats[label, cv2.CC_STAT_HEIGHT] < HEIGHT * FINE
    ]
    if not whole:
        return None
    chosen = (labels == whole[int(rng.integers(len(whole)))]).astype(np.uint8)
    around = cv2.dilate(chosen, np.ones((5, 5), dtype=np.uint8))
    return Drawing(
        drawing.copper, drawing.finish, drawing.silk, np.where(around > 0, 0, drawing.holes).astype(np.uint8)
    )


def _scratch(rng: np.random.Generator, copper: Mask, finish: Mask) -> None:
    """Scrape the film off along a curved line: metal is laid bare, and film without metal gets brighter."""
    start = np.array([rng.uniform(20, WIDTH - 20), rng.uniform(30, HEIGHT - 30)])
    angle, bend, path = (
        float(rng.uniform(0, np.pi)),
        float(rng.uniform(-0.12, 0.12)),
        [(float(start[0]), float(start[1]))],
    )
    for _ in range(int(rng.integers(5, 14))):
        start = start + 5.0 * np.array([np.cos(angle), np.sin(angle)])
        angle += bend
        path.append((float(start[0]), float(start[1])))
    strength, width = int(rng.integers(190, 256)), float(rng.uniform(2.0, 3.5))
    trace = np.zeros_like(copper)
    line(trace, path, width)
    np.maximum(finish, np.where(trace > 127, strength, 0).astype(np.uint8), out=finish)
    np.maximum(copper, np.where(trace > 127, strength // 2, 0).astype(np.uint8), out=copper)
