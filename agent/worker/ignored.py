"""Pixels of a camera that are ignored: dead ones of its sensor, and what a mask covers.

`python -m agent.worker.ignored CAMERAS` examines such files for `strip-agent check-config`: JSON in, JSON out.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from agent.config.ignored import AWAY, KEYS, MISFIT, AwayError, IgnoreFiles, read_plain
from agent.records import show_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.worker.scoring import Heatmap

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

HALF_SIDE = 5  # of the square around a dead pixel: from 5 pixels before it to 4 behind it
MAX_DEAD_PIXELS = 10_000
MAX_MASK_PIXELS = 16 << 20
MAX_SHARE = 0.1  # of the strip: more than that is no dead pixel, and defects would hide in it
USUAL_SIZE = (976, 176)  # what a share is told of where no model says the size
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_NUMBER = re.compile(r"[0-9]{1,6}(\.0*)?")
_COLOURS = {3: 3, 4: 3, 2: 1}  # number of channels -> those that are not transparency


@dataclass(frozen=True, slots=True)
class Ignored:
    """What is ignored in a camera's strips: (height, width), and the digests of the files that say so ("": none)."""

    mask: Mask
    ignore_pixels_sha256: str
    ignore_mask_sha256: str

    def blank(self, heatmap: Heatmap) -> Heatmap:
        """Return the heatmap with 0 where it is ignored."""
        return np.where(self.mask, np.float32(0), heatmap)


class UnusableError(ValueError):
    """Such a file cannot be used; `key` is the configuration's, `kind` AWAY, MISFIT, or "" for its content."""

    def __init__(self, key: str, message: str, kind: str) -> None:
        super().__init__(message)
        self.key = key
        self.kind = kind


class MisfitError(ValueError):
    """A file does not fit strips of that size; it may fit those of another model."""


def read_all(files: Mapping[str, IgnoreFiles], height: int, width: int) -> dict[str, Ignored | str]:
    """Read the files of every camera for strips of that size; a text says why a camera's cannot be used."""
    found: dict[str, Ignored | str] = {}
    for camera, named in files.items():
        try:
            found[camera] = read_ignored(named, height, width)
        except UnusableError as error:
            found[camera] = f"{error.key}: {error}"
    return found


def read_ignored(files: IgnoreFiles, height: int, width: int) -> Ignored:
    """Read a camera's files for strips of `height` x `width`; 0 x 0: not known yet. Raises UnusableError."""
    size = (height, width) if height and width else None
    digests = dict.fromkeys(KEYS, "")
    mask: Mask | None = None
    for key, read in (("ignore_mask", _read_mask), ("ignore_pixels", _read_pixels)):
        path = getattr(files, key)
        if not path:
            continue
        try:
            data = read_plain(path)
            found = read(data, size)
            mask = found if mask is None else mask | found
            _refuse_too_much(mask, ValueError if key == "ignore_mask" else MisfitError)
        except ValueError as error:
            kind = AWAY if isinstance(error, AwayError) else MISFIT if isinstance(error, MisfitError) else ""
            raise UnusableError(key, f"{show_name(path)} {error}", kind) from error
        digests[key] = hashlib.sha256(data).hexdigest()
        size = mask.shape[0], mask.shape[1]
    if mask is None:
        mask = np.zeros(size or USUAL_SIZE, np.bool_)
    return Ignored(mask, *(digests[key] for key in KEYS))


def _refuse_too_much(mask: Mask, refusal: type[ValueError]) -> None:
    share = float(mask.mean())
    if share > MAX_SHARE:
        inverted = "; what is not black is ignored, so the mask may be inverted" if share >= 1 - MAX_SHARE else ""
        limit = f"at most {MAX_SHARE:.0%} may be, so that no defect hides there{inverted}"
        raise refusal(f"would leave {share:.1%} of every strip ignored; {limit}")


def _read_pixels(data: bytes, size: tuple[int, int] | None) -> Mask:
    """Read a CSV with the columns dead_x and dead_y: columns and rows of the strip, from 0."""
    height, width = size or USUAL_SIZE
    mask = np.zeros((height, width), np.bool_)
    for line, x, y in _dead_pixels(data):
        if size is not None and (x >= width or y >= height):
            where = f"dead_x (the column) is {x} and dead_y (the row) {y}"
            raise MisfitError(f"line {line}: {where}; strips are {width} pixels wide and {height} high, counted from 0")
        mask[max(0, y - HALF_SIDE) : y + HALF_SIDE, max(0, x - HALF_SIDE) : x + HALF_SIDE] = True
    return mask


def _dead_pixels(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (line, x, y)."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text; a CSV file with the columns dead_x and dead_y is expected") from error
    separator = ";" if ";" in text.partition("\n")[0] else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if not {"dead_x", "dead_y"} <= set(header):
            raise ValueError("has no columns dead_x and dead_y in its first line")
        at = header.index("dead_x"), header.index("dead_y")
        for number, row in enumerate(row for row in rows if any(row)):
            if number >= MAX_DEAD_PIXELS:
                raise ValueError(f"names more than {MAX_DEAD_PIXELS} dead pixels")
            x, y = (row[column].strip() if column < len(row) else "" for column in at)
            if not (_NUMBER.fullmatch(x) and _NUMBER.fullmatch(y)):
                what = show_name(f"dead_x '{x[:20]}', dead_y '{y[:20]}'")
                raise ValueError(f"line {rows.line_num}: {what}; whole numbers from 0 are expected")
            yield rows.line_num, int(float(x)), int(float(y))
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error


def _read_mask(data: bytes, size: tuple[int, int] | None) -> Mask:
    """Read a PNG of the strip's size: black is judged, one other grey or colour is ignored."""
    if not data.startswith(_PNG) or len(data) < len(_PNG) + 8:
        raise ValueError("is no PNG image; a black one with white where the strip is to be ignored is expected")
    width, height = struct.unpack_from(">II", data, len(_PNG))
    if size is not None and (height, width) != size:
        shown = f"is {width} pixels wide and {height} high; strips are {size[1]} wide and {size[0]} high"
        turned = ": it is turned, as the agent's pictures of strips are" if (width, height) == size else ""
        raise MisfitError(f"{shown}{turned}")
    if not 0 < width * height <= MAX_MASK_PIXELS:
        raise ValueError(f"is {width} pixels wide and {height} high, which no strip is")
    try:
        image = np.asarray(imagecodecs.png_decode(data))
    except (imagecodecs.PngError, ValueError, MemoryError) as error:
        raise ValueError(f"is a damaged PNG image ({show_name(str(error))[:100]})") from error
    levels = image if image.ndim == len(("rows", "columns")) else image[..., : _COLOURS[image.shape[2]]].max(axis=2)
    different = np.unique(levels)
    if len(different) > (1 if different[0] else 2):  # black, and what is not
        greys = f"has {len(different)} grey levels from {different[0]} to {different[-1]}"
        raise ValueError(f"{greys}; black where the strip is judged and one other where it is ignored are expected")
    mask: Mask = levels > 0
    return mask


def examine(cameras: list[dict[str, Any]]) -> list[tuple[int, str, str, str]]:
    """Return (number of the camera, key, what is wrong, kind) for the files of all cameras."""
    problems = []
    for camera in cameras:
        try:
            read_ignored(IgnoreFiles(*(camera[key] for key in KEYS)), camera["height"], camera["width"])
        except UnusableError as error:
            problems.append((camera["number"], error.key, str(error), error.kind))
    return problems


if __name__ == "__main__":
    json.dump(examine(json.loads(sys.argv[1])), sys.stdout)
