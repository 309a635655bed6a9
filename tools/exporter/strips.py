"""Strips for calibrating and proving: read from TIFF files, or made up when there are none.

A strip here is (3, H, W) float32 grey levels 0..255: target, reference 1, reference 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from agent.contract.model import CHANNELS
from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

    from tools.exporter.graph import Array

WHITE = 255.0
PATTERNS = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class NamedStrip:
    """A strip and the name that it has in messages and in the report."""

    name: str
    pixels: Array


def read_strip(path: Path, image_size: tuple[int, int]) -> NamedStrip:
    """Read a TIFF of 3 or 4 channels, channels first or last; ExportError when it is not such a strip.

    Levels outside 0..255 are stretched to 0..255 over the three channels jointly, as the box does by default.
    """
    try:
        pixels = tifffile.imread(path)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise ExportError(
            f"Cannot read the strip {path.name} ({error}): give TIFF files as the camera writes them."
        ) from error
    channel_counts = (CHANNELS, CHANNELS + 1)
    if pixels.ndim == CHANNELS and pixels.shape[2] in channel_counts and pixels.shape[:2] == image_size:
        pixels = np.moveaxis(pixels, 2, 0)
    if pixels.ndim != CHANNELS or pixels.shape[0] not in channel_counts or pixels.shape[1:] != image_size:
        wanted = f"(3 or 4, {image_size[0]}, {image_size[1]})"
        raise ExportError(f"The strip {path.name} is {pixels.shape}, not {wanted}: give strips of this model's size.")
    pixels = np.ascontiguousarray(pixels[:CHANNELS], np.float32)
    if not np.isfinite(pixels).all():
        raise ExportError(f"The strip {path.name} has values that are not finite: leave it out.")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > WHITE:
        pixels = (pixels - low) * np.float32(WHITE / max(high - low, 1e-6))
    return NamedStrip(path.name, pixels)


def read_folder(folder: Path, image_size: tuple[int, int]) -> list[NamedStrip]:
    """Read all strips of a folder in the order of their names; ExportError when there are none."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PATTERNS)
    except OSError as error:
        raise ExportError(f"Cannot read the folder {folder} ({error.strerror}): give a folder with strips.") from error
    if not paths:
        raise ExportError(f"There are no .tif or .tiff files in {folder}: put strips of the line there.")
    return [read_strip(path, image_size) for path in paths]


def made_up_strips(image_size: tuple[int, int]) -> list[NamedStrip]:
    """Make strips that exercise a network: noise, smooth shapes that differ between the channels, black and white."""
    random = np.random.default_rng(0)
    height, width = image_size
    rows, columns = np.mgrid[:height, :width]
    waves = [
        np.sin(rows / random.uniform(4, 40) + random.uniform(0, 6)) * np.cos(columns / random.uniform(4, 40))
        for _ in range(CHANNELS)
    ]
    shapes = np.stack([np.where(wave > random.uniform(-0.5, 0.5), 200, 40) for wave in waves])
    noise = random.uniform(0, WHITE, (CHANNELS, height, width))
    black, white = np.zeros_like(noise), np.full_like(noise, WHITE)
    named = {"noise": noise, "shapes": shapes, "black": black, "white": white}
    return [NamedStrip(name, np.rint(pixels).astype(np.float32)) for name, pixels in named.items()]


def feed(strip: NamedStrip, input_scale: str) -> Array:
    """Scale grey levels to what the model takes: `unit` 0..1, `gray8` 0..255."""
    return strip.pixels / np.float32(WHITE) if input_scale == "unit" else strip.pixels
