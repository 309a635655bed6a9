"""Pictures of one strip: its channels in grey, its heat in colours, small ones for lists, and the values of a pixel.

Where the camera's file is gone, its target and first reference are taken out of the picture that was kept, and so is
the heat where no float heatmap was kept: the layout of that picture is known (`worker/picture.py`).

Tall strips are turned by 90 degrees counter-clockwise, as they are in the kept picture: their row 0 is left.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import tifffile

from agent.errors import Reason, Reject, Retry
from agent.regular_files import read_regular_file
from agent.worker.picture import HEAT_COLOURS, HEAT_OPACITY, TRANSPARENT_BELOW, panel_boxes
from agent.worker.tiff import read_strip
from agent.worker.tiff_structure import check_directories

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, int]
"""(height, width) in pixels, as the strip is stored."""

COMMON_SHAPES: tuple[Shape, ...] = ((976, 176), (384, 384))
CHANNELS = {"target": 0, "reference1": 1, "reference2": 2}
PANEL_OF = {"target": 0, "heat": 1, "reference1": 2}
MAX_HEATMAP_FILE_BYTES = 64 << 20
MAX_SIDE_PX = 16384
MAX_PIXELS = 1 << 26
MAX_REGIONS = 200
THUMB_WIDTH, THUMB_HEIGHT = 244, 96
THUMB_LEAST = 20  # pixels of the shorter side

cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True)
class Files:
    """Where a strip's files are: the camera's, (root, relative) each with its size and mtime, and the kept ones."""

    strip: list[tuple[str, str]]
    size_bytes: int
    mtime_ns: int
    max_bytes: int
    heatmaps: str  # the root of the three below; "" of them: none was kept
    tiff: str
    png: str
    regions: str
    shape: Shape | None  # that the model takes, where the agent knows it


_last: tuple[Files, Array] | None = None  # the strip that was decoded last: a finger moves over one at a time


def paint(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Do a job; return facts about it, and the picture as PNG, b"" where the job is about numbers.

    Raises Reject, Retry and OSError where the files do not allow it.
    """
    files = Files(**{**job["files"], "strip": [tuple(one) for one in job["files"]["strip"]], "shape": _shape(job)})
    kind = job["kind"]
    if kind == "value":
        return _value(files, int(job["row"]), int(job["col"])), b""
    if kind in _NUMBERS:
        return _NUMBERS[kind](files), b""
    if kind in _PICTURES:
        return {}, _PICTURES[kind](files)
    raise Reject(Reason.NOT_A_REGULAR_FILE, f"no picture is called {kind!r}")


def _shape(job: dict[str, Any]) -> Shape | None:
    height, width = job["files"]["shape"] or (0, 0)
    return (height, width) if 0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX else None


# Files


def _kept(files: Files, relative: str) -> bytes:
    if not relative:
        raise Reject(Reason.FILE_VANISHED, "none was kept")
    return read_regular_file(files.heatmaps, relative, max_bytes=MAX_HEATMAP_FILE_BYTES)[0]


def _facts(files: Files) -> dict[str, Any]:
    """Return what the regions' file says, with a shape that can be true; {} where there is none."""
    try:
        facts = json.loads(_kept(files, files.regions))
        height, width = int(facts["height"]), int(facts["width"])
    except (Reject, Retry, ValueError, KeyError, TypeError):
        return {}
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX and height * width <= MAX_PIXELS):
        return {}
    return dict(facts)


def _shapes(files: Files) -> list[Shape]:
    """Return the shapes that the strip may have, the likeliest first."""
    facts = _facts(files)
    said = [(int(facts["height"]), int(facts["width"]))] if facts else []
    return list(dict.fromkeys([*said, *([files.shape] if files.shape else []), *COMMON_SHAPES]))


def _strip(files: Files) -> Array:
    """Return the camera's file as it was judged, (3 or 4, height, width) as stored."""
    global _last  # noqa: PLW0603 - one at a time, in a process that does nothing else
    if _last is not None and _last[0] == files:
        return _last[1]
    error: Reject | Retry = Reject(Reason.FILE_VANISHED, "the camera's file is not there any more")
    for root, relative in files.strip:
        try:
            data, before, _ = read_regular_file(root, relative, max_bytes=files.max_bytes)
        except (Reject, Retry) as found:
            error = found
            continue
        if (before.st_size, before.st_mtime_ns) != (files.size_bytes, files.mtime_ns):
            error = Reject(Reason.FILE_REPLACED, "another file is there now")
            continue
        pixels = _decoded(data, _shapes(files))
        _last = files, pixels
        return pixels
    raise error


def _decoded(data: bytes, shapes: list[Shape]) -> Array:
    for number, (height, width) in enumerate(shapes, start=1):
        try:
            return read_strip(data, height=height, width=width)
        except Reject as error:
            if error.reason is not Reason.WRONG_SHAPE or number == len(shapes):
                raise
    raise AssertionError("there is a shape at least")


def _heatmap(files: Files) -> Array:
    """Return the float heatmap, (height, width) float32."""
    data = _kept(files, files.tiff)
    check_directories(data)
    with BytesIO(data) as stream, tifffile.TiffFile(stream, _multifile=False) as file:
        page = file.pages[0]
        shape = tuple(page.shape)
        plain = len(shape) == 2 and page.dtype == np.float32 and page.is_contiguous  # noqa: PLR2004
        if not plain or page.dataoffsets[0] + page.nbytes > len(data):
            raise Reject(Reason.WRONG_SHAPE, "it is no heatmap")
        return (
            np.frombuffer(
                data, np.dtype(np.float32).newbyteorder(file.byteorder), shape[0] * shape[1], page.dataoffsets[0]
            )
            .reshape(shape)
            .astype(np.float32)
        )


def _panel(files: Files, number: int) -> Array:
    """Return a panel of the kept picture, (height, width, 3) blue, green, red, turned as it is there."""
    data = _kept(files, files.png)
    _check_png(data)
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if whole is None:
        raise Reject(Reason.NOT_A_TIFF, "the kept picture cannot be read")
    for height, width in _shapes(files):
        corners, (high, wide), enlarged = panel_boxes(*((width, height) if height > width else (height, width)))
        x, y = corners[number]
        if y + high <= whole.shape[0] and x + wide <= whole.shape[1]:
            return np.asarray(whole[y : y + high : enlarged, x : x + wide : enlarged])
    raise Reject(Reason.WRONG_SHAPE, "the kept picture has another layout")


def _check_png(data: bytes) -> None:
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    if data[:8] != b"\x89PNG\r\n\x1a\n" or not 0 < width * height <= MAX_PIXELS:
        raise Reject(Reason.DECOMPRESSION_BOMB, f"the kept picture is none, or declares {width} x {height} pixels")


# Pictures


def _turned(image: Array) -> Array:
    return np.rot90(image) if image.shape[0] > image.shape[1] else image


def _channel(files: Files, kind: str) -> Array:
    try:
        return _grey(_strip(files), CHANNELS[kind])
    except (Reject, Retry):
        if kind not in PANEL_OF or not files.png:
            raise
        return _panel(files, PANEL_OF[kind])


def _grey(pixels: Array, channel: int) -> Array:
    """Return a channel as (height, width) uint8, stretched as the others are, so that they can be compared."""
    shown = pixels[:3].astype(np.float64)
    shown = np.nan_to_num(shown, posinf=0.0, neginf=0.0)
    low, high = shown.min(), shown.max()
    grey = (shown[channel] - low) * (255 / max(high - low, 1e-12))
    return _turned(np.clip(grey, 0, 255).astype(np.uint8))


def _heat(files: Files) -> Array:
    """Return the heat to lay over the target: transparent where there is none; opaque out of the kept picture."""
    try:
        heat = np.nan_to_num(_heatmap(files))
    except (Reject, Retry):
        if not files.png:
            raise
        return _panel(files, PANEL_OF["heat"])
    level = np.clip((heat - TRANSPARENT_BELOW) / (1 - TRANSPARENT_BELOW), 0, 1)
    stops = np.linspace(0, 1, len(HEAT_COLOURS))
    channels = [np.interp(level, stops, channel) for channel in zip(*HEAT_COLOURS, strict=True)]
    low, high = HEAT_OPACITY
    opacity = np.where(heat > TRANSPARENT_BELOW, (low + (high - low) * level) * 255, 0)
    return _turned(np.stack([*channels[::-1], opacity], axis=-1).round().astype(np.uint8))


def _thumb(files: Files) -> Array:
    """Return the target with its heat, small."""
    try:
        image = _panel(files, PANEL_OF["heat"])
    except (Reject, Retry):
        image = cv2.cvtColor(_grey(_strip(files), 0), cv2.COLOR_GRAY2BGR)
        try:
            heat = _heat(files)
        except (Reject, Retry):
            heat = np.zeros((*image.shape[:2], 4), np.uint8)
        opacity = heat[..., 3:].astype(np.float32) / 255
        image = (image * (1 - opacity) + heat[..., :3] * opacity).astype(np.uint8)
    height, width = image.shape[:2]
    shrink = max(width / THUMB_WIDTH, height / THUMB_HEIGHT, 1.0)
    size = max(THUMB_LEAST, round(width / shrink)), max(THUMB_LEAST, round(height / shrink))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _png(image: Array) -> bytes:
    done, data = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise Reject(Reason.WRONG_SHAPE, "the picture cannot be written")
    return data.tobytes()


# Numbers


def _look(files: Files) -> dict[str, Any]:
    """Say what can be shown, from where, and which regions were found."""
    found = _regions(files)
    has_png, has_tiff = _is_there(files, files.png), _is_there(files, files.tiff)
    target, problem = "strip", ""
    try:
        found["height"], found["width"] = map(int, _strip(files).shape[1:])
    except (Reject, Retry) as error:
        target, problem = "picture" if has_png else "", error.detail
    heat = "tiff" if has_tiff else "picture" if has_png else ""
    return {**found, "target": target, "heat": heat, "picture": has_png, "problem": problem}


def _regions(files: Files) -> dict[str, Any]:
    """Return what was found, and the shape that it was found in; without looking at any picture."""
    facts = _facts(files)
    height, width = (facts["height"], facts["width"]) if facts else files.shape or (0, 0)
    return {
        "height": int(height),
        "width": int(width),
        "regions": _list(facts, "regions"),
        "detections": _list(facts, "detections"),
        "ignored_px": facts.get("ignored_px", 0) if isinstance(facts.get("ignored_px", 0), int) else 0,
    }


def _is_there(files: Files, relative: str) -> bool:
    try:
        return bool(_kept(files, relative))
    except (Reject, Retry):
        return False


def _list(facts: dict[str, Any], name: str) -> list[dict[str, float]]:
    """Return entries of numbers alone, up to a number of them."""
    entries = facts.get(name, [])
    if not isinstance(entries, list):
        return []
    return [
        {str(key): value for key, value in entry.items() if isinstance(value, int | float)}
        for entry in entries[:MAX_REGIONS]
        if isinstance(entry, dict)
    ]


def _value(files: Files, row: int, col: int) -> dict[str, Any]:
    """Return what is stored at a pixel: each channel and the heat; None where that is not there any more."""
    found: dict[str, float | None] = dict.fromkeys((*CHANNELS, "heat"))
    with contextlib.suppress(Reject, Retry):  # the None tells it
        pixels = _strip(files)
        for name, channel in CHANNELS.items():
            found[name] = _number(pixels[channel], row, col)
    with contextlib.suppress(Reject, Retry):
        found["heat"] = _number(_heatmap(files), row, col)
    return found


def _number(plane: Array, row: int, col: int) -> float | None:
    if not (0 <= row < plane.shape[0] and 0 <= col < plane.shape[1]):
        return None
    value = float(plane[row, col])
    return value if np.isfinite(value) else None


_NUMBERS: dict[str, Callable[[Files], dict[str, Any]]] = {"look": _look, "regions": _regions}
_PICTURES: dict[str, Callable[[Files], bytes]] = {
    **{kind: partial(lambda kind, files: _png(_channel(files, kind)), kind) for kind in CHANNELS},
    "heat": lambda files: _png(_heat(files)),
    "thumb": lambda files: _png(_thumb(files)),
    "picture": lambda files: _kept(files, files.png),
}
