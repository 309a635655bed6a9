"""Strips for calibrating and proving: read from TIFF files as the box reads them, or made up when there are none.

A strip here is (3, H, W) float32 grey levels 0..255: target, reference 1, reference 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.config import ChecksSection
from agent.contract.model import CHANNELS
from agent.errors import Reason, Reject, Retry
from agent.records import show_name
from agent.worker import tiff
from agent.worker.checks import check_strip, to_model_input
from tools.exporter.errors import ExportError, short
from tools.exporter.progress import say

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
    stretched: bool = False  # it left the grey levels


def read_strip(path: Path, image_size: tuple[int, int]) -> NamedStrip:
    """Read a TIFF as the box does, with its reader and its checks; ExportError says why a box would not judge it.

    Levels outside 0..255 are stretched to 0..255 over the three channels jointly, as the box does by default.
    """
    try:
        return _read_strip(path, image_size)[0]
    except (Reject, Retry) as refused:
        raise _no_strip(path, refused) from refused


def read_strip_and_fourth(path: Path, image_size: tuple[int, int]) -> tuple[NamedStrip, Array]:
    """Read a TIFF of four channels; the fourth is given as it is stored, (height, width). Raises ExportError."""
    try:
        strip, fourth = _read_strip(path, image_size)
    except (Reject, Retry) as refused:
        raise _no_strip(path, refused) from refused
    if fourth is None:
        raise ExportError(f"{show_name(path.name)} has three channels: a mask in the fourth is expected.")
    return strip, fourth


def _no_strip(path: Path, refused: Reject | Retry) -> ExportError:
    return ExportError(
        f"{show_name(path.name)} is no strip that a box would judge ({refused.reason}: "
        f"{short(refused.detail, 200)}): give TIFF files of this model's size as the camera writes them."
    )


def _read_strip(path: Path, image_size: tuple[int, int]) -> tuple[NamedStrip, Array | None]:
    checks = ChecksSection()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Reject(Reason.UNREADABLE, error.strerror or str(error)) from error
    pixels = tiff.read_strip(data, height=image_size[0], width=image_size[1])
    check_strip(pixels, checks)
    fed, stretched = to_model_input(pixels, checks, "gray8")
    return NamedStrip(show_name(path.name), fed[0], stretched), pixels[CHANNELS] if len(pixels) > CHANNELS else None


def read_folder(folder: Path, image_size: tuple[int, int], fewest: int = 1) -> list[NamedStrip]:
    """Read all strips of a folder in the order of their names; what is no strip is passed over and named.

    Raises ExportError where less than `fewest` are left.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PATTERNS)
    except OSError as error:
        raise ExportError(f"Cannot read the folder {folder} ({error.strerror}): give a folder with strips.") from error
    strips, passed = [], []
    for path in paths:
        try:
            strips.append(_read_strip(path, image_size)[0])
        except (Reject, Retry) as refused:
            passed.append(f"{show_name(path.name)} ({refused.reason}: {short(refused.detail, 120)})")
    for sentence in passed:
        say(f"passed over, no strip that a box would judge: {sentence}")
    if len(strips) < fewest:
        why = f", {len(passed)} files were passed over, the first is {passed[0]}" if passed else ""
        raise ExportError(
            f"{folder} holds {len(strips)} strips of {image_size[0]} x {image_size[1]}, {fewest} are needed{why}: put "
            "strips of the line there."
        )
    return strips


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
