"""Blend faint defects into real strips, so that the guard also sees scores that are neither near 0 nor near 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from tools.exporter.progress import progress
from tools.exporter.separation import NOISE
from tools.exporter.strips import WHITE, NamedStrip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tools.exporter.graph import Array
    from tools.exporter.layout import Layout

    HeatOf = Callable[[Array], Array]

FAINT = " + faint defect"  # behind the name of a strip
LOWEST, HIGHEST = 0.3, 0.7  # scores of blended strips
DISTANCE_FROM_THRESHOLD = 0.08  # a verdict right at the threshold would flip by rounding
CLEAN_BELOW = 0.2
NOTICED = CLEAN_BELOW / 2  # from this heat on the reference takes the place of what is there
CLOSE = DISTANCE_FROM_THRESHOLD / 2  # to what a score is to be
ATTEMPTS = 8
STRENGTHS = 8  # tried at once, then as many between the best two
DARK, BRIGHT = 30.0, 200.0  # grey levels of a defect on bright and on dark ground


def blend_defects(
    strips: Sequence[NamedStrip],
    heatmaps: Sequence[Array],
    layout: Layout,
    heat_of: HeatOf,
    threshold: float,
    exact_heat_of: HeatOf | None = None,
) -> list[NamedStrip]:
    """Make one strip with a faint spot from each strip where that works.

    `heatmaps` are those of the strips in torch, `heat_of` maps patches (N, 3, h, w) in 0..1 to heat (N, h, w). Where
    that comes so near to what is decided by that processors might differ, `exact_heat_of` is asked. Strips take turns
    to lie below and above the threshold.
    """
    aims = [max(LOWEST + 0.02, threshold - 0.12), min(HIGHEST - 0.02, threshold + 0.12)]
    blended = []
    for number, (strip, heatmap) in enumerate(progress(list(zip(strips, heatmaps, strict=True)), "faint defects")):
        clean = _without_defects(strip.pixels, heatmap)
        random = np.random.default_rng(number)
        pixels = _blend_one(clean, layout, heat_of, aims[number % 2], random, exact_heat_of)
        if pixels is not None:
            blended.append(NamedStrip(strip.name + FAINT, pixels))
    return blended


def is_telling(score: float, threshold: float) -> bool:
    """Tell whether a blended strip's score is where it is wanted."""
    return LOWEST <= score <= HIGHEST and abs(score - threshold) >= DISTANCE_FROM_THRESHOLD


def _without_defects(pixels: Array, heatmap: Array) -> Array:
    """Put the reference in the place of everything that the network notices."""
    noticed = cv2.dilate((heatmap > NOTICED).astype(np.uint8), np.ones((21, 21), np.uint8)).astype(bool)
    clean = pixels.copy()
    clean[0][noticed] = pixels[1][noticed]
    return clean


def _is_doubtful(scores: Array, aim: float) -> bool:
    """Tell whether the processor's rounding might choose another spot, or another strength of it."""
    far = np.sort(np.abs(scores - aim))
    return bool(min(np.abs(scores - CLEAN_BELOW).min(), far[0], far[1] - far[0], abs(far[0] - CLOSE)) <= NOISE)


def _blend_one(
    clean: Array,
    layout: Layout,
    heat_of: HeatOf,
    aim: float,
    random: np.random.Generator,
    exact_heat_of: HeatOf | None,
) -> Array | None:
    for _ in range(ATTEMPTS):
        row, column = layout.windows[int(random.integers(len(layout.windows)))]
        radius = random.uniform(2.5, 7.0)
        top, bottom = row.start + row.keep_start, row.start + row.keep_stop
        left, right = column.start + column.keep_start, column.start + column.keep_stop
        spot = _spot(layout, random.uniform(top, bottom), random.uniform(left, right), radius)
        level = (
            BRIGHT
            if float((clean[0] * spot).sum(dtype=np.float64) / spot.sum(dtype=np.float64)) < (DARK + BRIGHT) / 2
            else DARK
        )
        patch = (
            slice(row.start, row.start + layout.patch_height),
            slice(column.start, column.start + layout.patch_width),
        )
        kept = (slice(row.keep_start, row.keep_stop), slice(column.keep_start, column.keep_stop))

        def with_spot(strength: float, spot: Array = spot, level: float = level) -> Array:
            mixed = clean.copy()
            mixed[0] += np.float32(strength) * spot * (np.float32(level) - clean[0])
            return mixed

        def scores(strengths: Array, patch: tuple[slice, slice] = patch, kept: tuple[slice, slice] = kept) -> Array:
            patches = np.stack([with_spot(strength)[:, *patch] for strength in strengths]) / np.float32(WHITE)
            found: Array = heat_of(patches)[:, *kept].max((1, 2))
            if exact_heat_of and _is_doubtful(found, aim):
                found = exact_heat_of(patches)[:, *kept].max((1, 2))
            return found

        coarse = np.linspace(0, 1, STRENGTHS)
        found = scores(coarse)
        if found[0] > CLEAN_BELOW or found.max() < aim:
            continue
        above = int(np.argmax(found >= aim))
        fine = np.linspace(coarse[above - 1], coarse[above], STRENGTHS)
        found = scores(fine)
        best = int(np.argmin(np.abs(found - aim)))
        if abs(float(found[best]) - aim) < CLOSE:
            return with_spot(float(fine[best]))
    return None


def _spot(layout: Layout, row: float, column: float, radius: float) -> Array:
    rows, columns = np.mgrid[: layout.height, : layout.width]
    distance = np.hypot(rows - row, columns - column)
    spot: Array = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
    return spot
