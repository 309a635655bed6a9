"""Measure how a strip looks: level, contrast, noise, sharpness, and how its references lie on its target.

The exporter measures the calibration strips with the same code, so that a box compares like with like. All of it works
on whole grey levels and takes about 2 ms for a strip of 976 x 176.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import cv2
import numpy as np

from agent.contract.exposure import WHITE
from agent.contract.measures import Measures
from agent.worker.light import BRIGHTEST, MIDDLE, USED

Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]

COUNTED = np.s_[::4]  # rows: a quarter of the pixels says as much as all of them
EDGE = 0.01  # the steepest hundredth of the pixels
EDGES_ABOVE = 8.0  # times the noise between dark and bright: with less, noise would be taken for edges
FEWEST_GREY_LEVELS = 8.0  # between dark and bright
SOBEL_GAIN = 8.0  # what a ramp of one grey level a pixel has in a 3 x 3 Sobel filter
SOBEL_SCALE = 0.25  # so that the steepest possible edge still fits into 8 bits
SMALLEST_SIDE_PX = 32  # of strips in which a shift is looked for
REDUCED = 4  # times: shifts are looked for in pictures that much smaller
NEAR_PX = 1.0  # what lies so near needs no second look
FAR = 0.25  # of a side: what seems shifted by more is taken for something else
LOOKS = 5  # at a shift, nearly always each closer than the one before
OF_ONE_PLACE = 0.5  # correlation from which on two pictures show the same, so that their shift means something
ONE, OTHER, DOWN, RIGHT = range(4)  # two pictures, and the slopes of both
_SECOND_DERIVATIVE = np.array([1, -2, 1], np.float32)  # across and down: Immerkaer, as in light.py
_NOISE_GAIN = 6 * 0.6745  # of the median of what it gives


def measure(fed: Pixels, white: float, score: float) -> Measures:
    """Measure a strip as the model is fed, (3, height, width) from 0 to `white`, whose heatmap reaches `score`."""
    channels = [cv2.convertScaleAbs(channel, alpha=WHITE / white) for channel in fed]
    values: dict[str, float | None] = {"score": score}
    for name, channel in zip(USED, channels, strict=True):
        found = _channel(channel)
        values |= {f"{what}_{name.replace(' ', '_')}": value for what, value in found.items()}
    target, *references = channels
    for number, reference in enumerate(references, start=1):
        rows, columns, unlike = _compare(target, reference)
        values |= {f"rows_{number}": rows, f"columns_{number}": columns, f"unlike_{number}": unlike}
    return Measures(**values)  # type: ignore[arg-type] # only what may be None is


def _channel(channel: Pixels) -> dict[str, float | None]:
    """Level, contrast, noise and sharpness of (height, width) uint8."""
    counts = _counts(channel[COUNTED])
    dark, bright = (_reached(counts, percent / 100) for percent in MIDDLE)
    span = max(bright - dark, 0.0)
    unexplained = cv2.sepFilter2D(channel, cv2.CV_16S, _SECOND_DERIVATIVE, _SECOND_DERIVATIVE)
    noise = _reached(_counts(cv2.convertScaleAbs(unexplained[COUNTED])), 0.5) / _NOISE_GAIN
    slopes = [cv2.convertScaleAbs(way[COUNTED], alpha=SOBEL_SCALE) for way in cv2.spatialGradient(channel)]
    slope = _reached(_counts(cv2.max(*slopes)), 1 - EDGE) / (SOBEL_SCALE * SOBEL_GAIN)
    shows_edges = span > max(FEWEST_GREY_LEVELS, EDGES_ABOVE * noise)
    return {
        "level": max(_reached(counts, 1 - BRIGHTEST), 0.0),
        "contrast": span / (2 * math.sqrt(2)),
        "noise": max(noise, 0.0),
        "sharpness": slope / span if shows_edges else None,
    }


def _counts(rows: Pixels) -> Pixels:
    """How often each of the 256 grey levels occurs."""
    counts: Pixels = cv2.calcHist([rows], [0], None, [256], [0, 256]).ravel()
    return counts


def _reached(counts: Pixels, share: float) -> float:
    """Return the grey level that `share` of the pixels stay below, between two levels as if they were spread evenly."""
    up_to = np.cumsum(counts)
    place = float(share * up_to[-1])
    level = int(np.searchsorted(up_to, place))
    before = float(up_to[level - 1]) if level else 0.0
    return level - 0.5 + (place - before) / max(float(counts[level]), 1.0)


def _compare(target: Pixels, reference: Pixels) -> tuple[float | None, float | None, float | None]:
    """Where `reference` lies from `target`, rows down and columns right in pixels, and how unlike it is there, 0..2."""
    if min(target.shape) < SMALLEST_SIDE_PX:
        return None, None, None
    found = _look(target, reference, 0.0, 0.0, 1)
    if found is not None and (max(abs(found[0]), abs(found[1])) > NEAR_PX or found[2] > 1 - OF_ONE_PLACE):
        found = _look(target, reference, *_coarse_shift(target, reference), LOOKS)
    if found is None:
        return None, None, None
    down, right, unlike = found
    return (down, right, unlike) if unlike <= 1 - OF_ONE_PLACE else (None, None, unlike)


def _look(
    target: Pixels, reference: Pixels, down: float, right: float, looks: int
) -> tuple[float, float, float] | None:
    """Come closer to a shift that is known to some pixels; None where one of the two shows nothing."""
    found: dict[tuple[int, int], tuple[float, float, float]] = {}  # by the whole pixels that it was looked for at
    while len(found) < looks and (step := (round(down), round(right))) not in found:
        one, other = (_reduced(part) for part in _on_each_other(target, reference, *step))
        vary = _vary_together(one, other)
        product = vary[ONE][ONE] * vary[OTHER][OTHER]
        if product < one.size**4:  # no more than a grey level
            return None
        rest_down, rest_right = _fine_shift(vary)
        down, right = step[0] + REDUCED * rest_down, step[1] + REDUCED * rest_right
        found[step] = down, right, 1 - vary[ONE][OTHER] / math.sqrt(product)
    return min(found.values(), key=lambda one: one[2])  # half way between two steps each may lead to the other


def _reduced(channel: Pixels) -> Pixels:
    """Take the mean of REDUCED x REDUCED pixels each, in whole grey levels; rows and columns left over are left out."""
    height, width = (side // REDUCED * REDUCED for side in channel.shape)
    grey = channel[:height, :width].astype(np.uint16)
    rows = reduce(np.add, (grey[first::REDUCED] for first in range(REDUCED)))
    sums = reduce(np.add, (rows[:, first::REDUCED] for first in range(REDUCED)))
    means: Pixels = (sums + REDUCED**2 // 2) // REDUCED**2
    return means


def _coarse_shift(target: Pixels, reference: Pixels) -> tuple[float, float]:
    """Find any shift, in double precision: only whole pixels of it are used."""
    height, width = (_even_for_dft(side // REDUCED) for side in target.shape)
    one, other = (_reduced(channel)[:height, :width].astype(np.float64) for channel in (target, reference))
    window = _window(one.shape)
    (right, down), _ = cv2.phaseCorrelate((one - one.mean()) * window, (other - other.mean()) * window)
    near = abs(down) <= FAR * one.shape[0] and abs(right) <= FAR * one.shape[1]
    return (REDUCED * down, REDUCED * right) if near else (0.0, 0.0)


def _even_for_dft(side: int) -> int:
    """Return the largest even length up to `side` that needs no padding, which would move what is found."""
    return next(length for length in range(side // 2 * 2, 0, -2) if cv2.getOptimalDFTSize(length) == length)


_WINDOWS: dict[tuple[int, ...], Pixels] = {}  # of the one size that a worker's strips have


def _window(shape: tuple[int, ...]) -> Pixels:
    if shape not in _WINDOWS:
        _WINDOWS.clear()
        _WINDOWS[shape] = cv2.createHanningWindow((shape[1], shape[0]), cv2.CV_64F)
    return _WINDOWS[shape]


def _on_each_other(target: Pixels, reference: Pixels, down: int, right: int) -> tuple[Pixels, Pixels]:
    """Cut out what both show when `reference` lies that far down and right of `target`."""
    limit_down, limit_right = (int(2 * FAR * side) for side in target.shape)
    down, right = max(-limit_down, min(down, limit_down)), max(-limit_right, min(right, limit_right))
    height, width = target.shape[0] - abs(down), target.shape[1] - abs(right)
    top, left = max(-down, 0), max(-right, 0)
    one = target[top : top + height, left : left + width]
    other = reference[top + down : top + down + height, left + right : left + right + width]
    return one, other


def _vary_together(one: Pixels, other: Pixels) -> list[list[int]]:
    """Return (4, 4) covariances times the square of the number of pixels: both, and slopes DOWN and RIGHT of their sum.

    Whole numbers come out the same in whatever order a processor adds them up; float64 holds them exactly up to 2**53.
    """
    seen = np.empty((4, *one.shape))
    seen[ONE], seen[OTHER] = one, other
    both = seen[ONE] + seen[OTHER]
    cv2.Sobel(both, cv2.CV_64F, 0, 1, dst=seen[DOWN])
    cv2.Sobel(both, cv2.CV_64F, 1, 0, dst=seen[RIGHT])
    flat = seen.reshape(len(seen), -1)
    sums = [int(value) for value in flat.sum(axis=1)]
    products = cv2.mulTransposed(flat, aTa=False).tolist()
    return [
        [one.size * int(product) - this * that for that, product in zip(sums, row, strict=True)]
        for this, row in zip(sums, products, strict=True)
    ]


def _fine_shift(vary: list[list[int]]) -> tuple[float, float]:
    """Find the rest of a shift, up to a pixel or two, by least squares (Lucas and Kanade, 1981)."""
    gain = math.sqrt(vary[ONE][ONE] / vary[OTHER][OTHER])
    slope = 2 * gain / (1 + gain) / (2 * SOBEL_GAIN)  # of both, `other` matched to `one`, for that of their plain sum
    a, b, c = vary[DOWN][DOWN], vary[DOWN][RIGHT], vary[RIGHT][RIGHT]
    p, q = ((vary[way][ONE] - gain * vary[way][OTHER]) / slope for way in (DOWN, RIGHT))
    determinant = a * c - b * b
    if determinant <= 1e-3 * a * c:  # edges of one direction only: the other shift cannot be seen
        return (p / a if a > c else 0.0), (q / c if c >= a and c else 0.0)
    return (p * c - q * b) / determinant, (q * a - p * b) / determinant
