"""Pictures for people: a strip, its heatmaps in torch and in the file, and what differs, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from tools.exporter.graph import Array

GAP_PX = 6
LABEL_PX, LETTER_PX = 20, 9
RING_PX, RING = 9, (60, 60, 255)  # red


def side_by_side(pixels: Array, expected: Array, found: Array) -> Array:
    """Draw target, heatmap in torch, in the file, and the difference stretched to 1; (H, 4 W + gaps, 3) uint8 BGR.

    A ring marks the pixel that differs most.
    """
    change = np.abs(found - expected)
    target = cv2.cvtColor(np.clip(pixels[0], 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    panels = [target, coloured(expected), coloured(found), coloured(change / max(float(change.max()), 1e-9))]
    row, column = np.unravel_index(int(change.argmax()), change.shape)
    for panel in panels:
        cv2.circle(panel, (int(column), int(row)), RING_PX, RING)
    gap = np.full((target.shape[0], GAP_PX, 3), 255, np.uint8)
    joined = [part for panel in panels for part in (panel, gap)][:-1]
    return np.hstack(joined)


def labelled(pixels: Array, expected: Array, found: Array) -> Array:
    """Draw the same with a line above each part that says what it is, as the picture lies alone in a folder."""
    change = np.abs(found - expected)
    row, column = np.unravel_index(int(change.argmax()), change.shape)
    drawn = side_by_side(pixels, expected, found)
    parts = ("target", "torch", "file", f"difference: {change.max():.2g} at row {row}, column {column}")
    part_px = pixels.shape[2] + GAP_PX
    width = max(drawn.shape[1], 3 * part_px + LETTER_PX * len(parts[-1]))
    picture = np.full((drawn.shape[0] + LABEL_PX, width, 3), 255, np.uint8)
    picture[LABEL_PX:, : drawn.shape[1]] = drawn
    for number, text in enumerate(parts):
        where = (number * part_px, LABEL_PX - 6)
        cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def encode_png(picture: Array) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8, BGR."""
    _, encoded = cv2.imencode(".png", picture)
    return encoded.tobytes()


def coloured(heat: Array) -> Array:
    """Colour a heatmap, (height, width) in 0..1; (height, width, 3) uint8 BGR."""
    return cv2.applyColorMap((np.clip(heat, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
