"""The picture that a person judges a strip by: what was seen, what was found, and how sure the model is.

From top to bottom (side by side if the image is not long): the target; the target with the heatmap laid over it and
the regions boxed; the first reference. Tall strips are turned by 90 degrees counter-clockwise: their row 0 is left.

It is drawn in a palette from the start. An indexed picture is a third of the size of a coloured one, and compresses
in 3 ms instead of 40. Greys are consecutive numbers, so that OpenCV's smooth lettering, which mixes the numbers of ink
and paper, mixes their colours as well.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import imagecodecs
import numpy as np

if TYPE_CHECKING:
    from agent.worker.ignored import Mask
    from agent.worker.scoring import Heatmap, Scored

Image = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

# The palette: greys, then inks, then each heat level over each of a few greys.
GREYS = 64
BLACK, DIM, WHITE = 0, 40, GREYS - 1
CYAN, RED, GREEN, VIOLET = GREYS, GREYS + 1, GREYS + 2, GREYS + 3
INKS = ((0, 229, 255), (208, 32, 32), (24, 128, 56), (190, 110, 255))  # red, green, blue
FIRST_HEAT = GREYS + len(INKS)
HEAT_LEVELS, HEAT_GREYS = 11, 16
TRANSPARENT_BELOW = 0.1  # an untroubled heatmap is a few hundredths everywhere
# Yellow to red: no blue in it, so that the cyan boxes stand out, and readable without telling red from green.
HEAT_COLOURS = ((255, 240, 120), (255, 190, 50), (255, 130, 30), (250, 60, 30), (240, 0, 60))
HEAT_OPACITY = (0.45, 0.85)  # of the lowest and the highest level

MARGIN, HEADER, TITLE, FOOTER = 14, 66, 20, 76
LONG = 1.5  # panels longer than this many times their height are stacked
MIN_PANEL_WIDTH = 720  # of all panels of a row together; smaller images are enlarged
BOX_GAP = 4
MAX_BOXES = 50
PANELS = 3  # target, overlay, first reference
DETECTION_RADIUS = 10
HATCH = 4  # pixels between the lines
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(
    heatmap: Heatmap,
    pixels: np.ndarray[Any, Any],
    scored: Scored,
    ignored: Mask | None = None,
    *,
    threshold: float,
    anomalous: bool,
    name: str,
) -> bytes:
    """Return the picture as PNG: heatmap (height, width) float32 in 0..1, pixels (3 or 4, height, width).

    `ignored`, (height, width), says where the heatmap was blanked: it is hatched there.
    """
    target, reference = _to_grey(pixels)
    overlay, title = _overlay(target, heatmap, scored, anomalous=anomalous), "heatmap over target"
    if ignored is not None and ignored.any():
        rows, columns = np.indices(ignored.shape, sparse=True)
        overlay[ignored & ((rows + columns) % HATCH == 0)] = VIOLET
        title += "; hatched: ignored"
    panels = [("target", target), (title, overlay)]
    panels.append(("reference 1", reference))
    turned = heatmap.shape[0] > heatmap.shape[1]
    shown = [(title, _turn(panel) if turned else panel) for title, panel in panels]
    canvas = _lay_out(shown, "row" if turned else "column")
    _write_header(canvas, scored, threshold, name, anomalous=anomalous)
    _mark_on_scale(canvas, scored.score, threshold)
    return encode_png(canvas, PALETTE)


def _turn(panel: Image) -> Image:
    return np.asarray(cv2.rotate(panel, cv2.ROTATE_90_COUNTERCLOCKWISE), np.uint8)


def _to_grey(pixels: np.ndarray[Any, Any]) -> list[Image]:
    """Return target and reference 1 as numbers of greys, stretched alike so that they can be compared."""
    shown = pixels[:2]
    low, high = float(shown.min()), float(shown.max())
    if shown.dtype == np.uint8:
        table = _stretch(np.arange(256, dtype=np.uint8), low, high)
        return [np.asarray(cv2.LUT(channel, table), np.uint8) for channel in shown]
    return list(_stretch(shown, low, high))


def _stretch(levels: np.ndarray[Any, Any], low: float, high: float) -> Image:
    factor = (GREYS - 1) / max(high - low, 1e-6)
    # Multiplied first: a difference of two float32 may be too large for a float32.
    grey = levels * np.float32(factor)
    grey -= np.float32(low * factor)
    return np.clip(grey, 0, GREYS - 1, out=grey).astype(np.uint8)


def _overlay(target: Image, heatmap: Heatmap, scored: Scored, *, anomalous: bool) -> Image:
    """Lay the heatmap over the target; box the regions, circle detections, mark the peak of an anomalous strip."""
    overlay = target.copy()
    if heatmap.max() > TRANSPARENT_BELOW:
        level = _heat_level(heatmap)
        hot = level > 0
        overlay[hot] = FIRST_HEAT + (level[hot] - 1) * HEAT_GREYS + target[hot] // (GREYS // HEAT_GREYS)
    for region in scored.regions[:MAX_BOXES]:
        corner = (region.left - BOX_GAP, region.top - BOX_GAP)
        cv2.rectangle(overlay, corner, (region.right - 1 + BOX_GAP, region.bottom - 1 + BOX_GAP), CYAN, 1)
    for detection in scored.detections:
        cv2.circle(overlay, (detection.col, detection.row), DETECTION_RADIUS, CYAN, 1)
    if anomalous:
        cv2.drawMarker(overlay, (scored.peak_col, scored.peak_row), CYAN, cv2.MARKER_CROSS, 9, 1)
    return overlay


def _heat_level(heat: Heatmap) -> Image:
    """Return 0 where the heat is too low to be shown, else 1 to HEAT_LEVELS."""
    level = np.ceil((heat - np.float32(TRANSPARENT_BELOW)) * np.float32(HEAT_LEVELS / (1 - TRANSPARENT_BELOW)))
    shown: Image = np.clip(level, 0, HEAT_LEVELS).astype(np.uint8)
    return shown


def panel_boxes(height: int, width: int, panels: int = PANELS) -> tuple[list[tuple[int, int]], tuple[int, int], int]:
    """Return where the panels of an image of (height, width) are, turned already: corners (x, y), size, enlargement.

    The size is (height, width) of each on the canvas, which is that many times the image's.
    """
    stacked = width > LONG * height
    across = width if stacked else width * panels
    enlarged = max(1, -(-MIN_PANEL_WIDTH // across))
    height, width = height * enlarged, width * enlarged
    step_x, step_y = (0, height + TITLE) if stacked else (width + MARGIN, 0)
    corners = [(MARGIN + number * step_x, HEADER + number * step_y + TITLE) for number in range(panels)]
    return corners, (height, width), enlarged


def _lay_out(panels: list[tuple[str, Image]], across: str) -> Image:
    """Return a canvas with the panels, each below its title; `across` is what is counted from left to right."""
    height, width = panels[0][1].shape
    canvas = _blank(height, width, tuple(title for title, _ in panels), across).copy()
    corners, (height, width), enlarged = panel_boxes(height, width, len(panels))
    for (_, panel), (x, y) in zip(panels, corners, strict=True):
        shown = panel if enlarged == 1 else panel.repeat(enlarged, 0).repeat(enlarged, 1)
        canvas[y : y + height, x : x + width] = shown
    return canvas


@lru_cache(2)  # strips of a worker are of one size; of some cameras a part is ignored
def _blank(height: int, width: int, titles: tuple[str, ...], across: str) -> Image:
    """Draw what stands on every picture of images of (height, width): lettering takes half a millisecond."""
    corners, (high, wide), enlarged = panel_boxes(height, width, len(titles))
    last_x, last_y = corners[-1]
    canvas = np.full((last_y + high + FOOTER, last_x + wide + MARGIN), BLACK, np.uint8)
    for title, (x, y) in zip(titles, corners, strict=True):
        _write(canvas, title, x, y - 6, 0.42, DIM)
    _draw_ticks(canvas, across, width, enlarged)
    _draw_scale(canvas)
    return canvas


def _write_header(canvas: Image, scored: Scored, threshold: float, name: str, *, anomalous: bool) -> None:
    x = MARGIN + _write_badge(canvas, *(("ANOMALOUS", RED) if anomalous else ("OK", GREEN))) + 16
    x += _write(canvas, f"score {_number(scored.score)}", x, 34, 0.8, WHITE) + 24
    _write(canvas, f"threshold {_number(threshold)}", x, 34, 0.6, DIM)
    kind, peak = ("detection", "best") if scored.detections else ("region", "highest")
    found = f"{scored.defect_count} {kind}{'' if scored.defect_count == 1 else 's'}, {scored.anomaly_area_px} px"
    x = _write(canvas, f"{found}, {peak} at row {scored.peak_row}, column {scored.peak_col}", MARGIN, 60, 0.42, DIM)
    _write(canvas, name, max(canvas.shape[1] - MARGIN - _width(name, 0.42), MARGIN + x + 24), 60, 0.42, DIM)


def _write_badge(canvas: Image, text: str, ink: int) -> int:
    """Write white on ink, without mixing the two; return the width."""
    (width, _), _ = cv2.getTextSize(text, FONT, 0.8, 2)
    badge = np.zeros((32, width + 20), np.uint8)
    cv2.putText(badge, text, (10, 24), FONT, 0.8, WHITE, 2)
    canvas[10:42, MARGIN : MARGIN + badge.shape[1]] = np.where(badge > WHITE // 2, WHITE, ink)
    return badge.shape[1]


def _draw_ticks(canvas: Image, name: str, length: int, enlarged: int) -> None:
    """Draw row or column numbers below the first panel, to find the regions of the JSON file."""
    y = canvas.shape[0] - FOOTER
    step = max(1, length // 500) * 100
    for position in range(0, length, step):
        x = MARGIN + position * enlarged
        cv2.line(canvas, (x, y), (x, y + 4), DIM, 1)
        _write(canvas, str(position) if position else f"{name} 0", x - 4 * (position > 0), y + 16, 0.38, DIM)


def _draw_scale(canvas: Image) -> None:
    """Draw what the colours mean, 0 to 1."""
    top, left, length = _place_of_scale(canvas)
    _write(canvas, "probability of a defect", MARGIN, top + 11, 0.42, DIM)
    levels = _heat_level(np.arange(length, dtype=np.float32) / np.float32(length))
    bar = np.where(levels > 0, FIRST_HEAT + (levels - 1) * HEAT_GREYS + HEAT_GREYS // 2, GREYS // 2)
    canvas[top : top + 14, left : left + length] = bar.astype(np.uint8)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + round(tick * length)
        cv2.line(canvas, (x, top + 14), (x, top + 18), DIM, 1)
        _write(canvas, f"{tick:g}", x - 4 * len(f"{tick:g}"), top + 31, 0.38, DIM)


def _mark_on_scale(canvas: Image, score: float, threshold: float) -> None:
    """Mark the threshold and the score where they are probabilities."""
    top, left, length = _place_of_scale(canvas)
    if 0 <= threshold <= 1:
        x = left + round(threshold * length)
        cv2.line(canvas, (x, top - 4), (x, top + 17), WHITE, 2)
        _write(canvas, "threshold", x - 30, top - 7, 0.38, WHITE)
    if 0 <= score <= 1:
        cv2.drawMarker(canvas, (left + round(score * length), top + 7), CYAN, cv2.MARKER_DIAMOND, 9, 2)


def _place_of_scale(canvas: Image) -> tuple[int, int, int]:
    """Top, left and length in pixels."""
    return canvas.shape[0] - 38, MARGIN + 170, 400


def _number(value: float) -> str:
    return f"{value:.3f}" if value <= 1 else f"{value:.6g}"


def _write(canvas: Image, text: str, x: int, y: int, scale: float, grey: int) -> int:
    """Write on black; return the width."""
    cv2.putText(canvas, text, (x, y), FONT, scale, grey, 1, cv2.LINE_AA)
    return _width(text, scale)


def _width(text: str, scale: float) -> int:
    (width, _), _ = cv2.getTextSize(text, FONT, scale, 1)
    return width


def _make_palette() -> Image:
    """Return (256, 3) red, green, blue."""
    greys = np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1)
    stops = np.linspace(0, 1, len(HEAT_COLOURS))
    at = np.linspace(0, 1, HEAT_LEVELS)
    colours = np.stack([np.interp(at, stops, channel) for channel in zip(*HEAT_COLOURS, strict=True)], axis=1)
    opacity = np.linspace(*HEAT_OPACITY, HEAT_LEVELS)[:, None, None]
    below = np.linspace(0, 255, HEAT_GREYS)[None, :, None]
    heat = (colours[:, None, :] * opacity + below * (1 - opacity)).reshape(-1, 3)
    palette = np.concatenate([greys, INKS, heat])
    return np.concatenate([palette, np.zeros((256 - len(palette), 3))]).round().astype(np.uint8)


PALETTE = _make_palette()


def encode_png(indices: Image, palette: Image) -> bytes:
    """Encode (height, width) numbers of a (256, 3) palette; the same input gives the same bytes.

    Source: the PNG specification, https://www.w3.org/TR/png/, sections 5 and 11.2. OpenCV writes no palettes.
    """
    height, width = indices.shape
    rows = bytearray(height * (width + 1))  # each row begins with its filter, 0: none
    np.frombuffer(rows, np.uint8).reshape(height, width + 1)[:, 1:] = indices
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    data = bytes(imagecodecs.deflate_encode(rows, level=1))
    chunks = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
