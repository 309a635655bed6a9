"""Pictures for people: a strip, its heatmaps in torch and in the file, and what differs, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from tools.exporter.graph import Array

GAP_PX = 6


def side_by_side(pixels: Array, expected: Array, found: Array) -> Array:
    """Draw target, heatmap in torch, in the file, and the difference stretched to 1; (H, 4 W + gaps, 3) uint8 BGR."""
    change = np.abs(found - expected)
    target = cv2.cvtColor(np.clip(pixels[0], 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    panels = [target, _coloured(expected), _coloured(found), _coloured(change / max(float(change.max()), 1e-9))]
    gap = np.full((target.shape[0], GAP_PX, 3), 255, np.uint8)
    joined = [part for panel in panels for part in (panel, gap)][:-1]
    return np.hstack(joined)


def encode_png(picture: Array) -> bytes:
    """Encode (H, W, 3) uint8 BGR."""
    _, encoded = cv2.imencode(".png", picture)
    return encoded.tobytes()


def write_png(path: Path, picture: Array) -> None:
    """Write a picture."""
    path.write_bytes(encode_png(picture))


def _coloured(heat: Array) -> Array:
    return cv2.applyColorMap((np.clip(heat, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
