"""Believable good strips for tests, in every layout that is read: traces on a board, noise, and a defect if wanted."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tifffile

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH = 488, 88
Layout = Literal["planar", "interleaved", "pages", "imagej", "one_directory"]
Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]


def make_pixels(
    *, defect: bool = False, channels: int = 4, height: int = HEIGHT, width: int = WIDTH, seed: int = 0
) -> Pixels:
    """Return (channels, height, width) float32, grey levels within 20..230; the defect is 16 rows from 2/5 down."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    board = 60 + 120 * (np.sin(columns / 9 + 6 * np.sin(rows / 80 + seed)) > 0)
    noisy = board + rng.normal(0, 3, (channels, height, width))
    if defect:
        top, left = height * 2 // 5, width // 3
        noisy[0, top : top + 16, left : left + 12] = 250 - board[top : top + 16, left : left + 12]
    strip: Pixels = np.clip(noisy, 20, 230).astype(np.float32)
    strip[3:] = 0  # the unused channel
    return strip


def encode(pixels: Pixels, *, layout: Layout = "planar", **options: Any) -> bytes:
    """Return the bytes of a TIFF file; `options` are tifffile's."""
    file = BytesIO()
    options = {"photometric": "minisblack", **options}
    match layout:
        case "planar":
            tifffile.imwrite(file, pixels, planarconfig="separate", **options)
        case "interleaved":
            tifffile.imwrite(file, np.ascontiguousarray(np.moveaxis(pixels, 0, -1)), planarconfig="contig", **options)
        case "pages":
            whole_file = {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
            with tifffile.TiffWriter(file, **whole_file) as writer:
                for channel in pixels:
                    writer.write(channel, contiguous=False, metadata=None, **options)
        case "imagej":
            tifffile.imwrite(file, pixels, imagej=True, **options)
        case "one_directory":  # as ImageJ writes what is larger than 4 GiB
            description = f"ImageJ=1.54\nimages={len(pixels)}\n"
            tifffile.imwrite(file, pixels, metadata=None, description=description, truncate=True, **options)
    return file.getvalue()


def write_strip(
    path: Path,
    *,
    defect: bool = False,
    dtype: str = "float32",
    layout: Layout = "planar",
    channels: int = 4,
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
    **options: Any,
) -> Pixels:
    """Write a good strip and return its pixels as stored, (channels, height, width)."""
    pixels = make_pixels(defect=defect, channels=channels, height=height, width=width, seed=seed)
    if dtype != "float32":
        pixels = pixels.round()
    stored = pixels.astype(dtype)
    path.write_bytes(encode(stored, layout=layout, **options))
    return stored
