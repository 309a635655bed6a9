"""Is a strip lit like those that the model was calibrated with; and how those were lit, which the exporter asks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract.exposure import WHITE, Exposure
from agent.errors import Reason, Reject

if TYPE_CHECKING:
    from collections.abc import Iterable

Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]

USED = ("target", "reference 1", "reference 2")
BRIGHTEST = 0.01  # the level of a channel is what this share of it reaches
DARKER, BRIGHTER = 1.5, 1.25  # times: how far a strip may be from what the calibration strips reach
WHITE_ABOVE = WHITE - 0.5
MUCH = 0.05  # of a channel is no defect any more that shines
SOME_WHITE = (
    0.01  # of a channel: where calibration strips have more they are clipped themselves, and white says nothing
)
MIDDLE = (1, 99)  # percentiles


def check_light(strip: Pixels, white: float, exposure: Exposure) -> None:
    """Refuse a strip, (3, height, width) as the model is fed, 0 to `white`, in other light than the model knows.

    Raises Reject(EXPOSURE_DIFFERS).
    """
    low, high = exposure.level_low, exposure.level_high
    glaring = high * BRIGHTER
    if exposure.white < SOME_WHITE:
        glaring = min(glaring, WHITE_ABOVE)
    known = f"the calibration strips reach {low:.3g} to {high:.3g}"
    for name, channel in zip(USED, strip, strict=True):
        found = level(channel) * WHITE / white
        if found < low / DARKER:
            detail = f"the {name} reaches a grey level of {found:.3g}, {known}; {DARKER:g} times darker is allowed"
            raise Reject(Reason.EXPOSURE_DIFFERS, detail)
        share = share_above(channel, glaring * white / WHITE)
        if share > MUCH:
            detail = (
                f"{share:.0%} of the {name} is above a grey level of {glaring:.3g}, {known}; {MUCH:.0%} are allowed"
            )
            raise Reject(Reason.EXPOSURE_DIFFERS, detail)


def level(channel: Pixels) -> float:
    """Return the grey level that the brightest hundredth of (height, width) reaches."""
    place = min(int(channel.size * (1 - BRIGHTEST)), channel.size - 1)
    return float(np.partition(channel, place, axis=None)[place])


def share_above(channel: Pixels, grey: float) -> float:
    """Return the share of (height, width) that is brighter, 0..1."""
    return float(np.count_nonzero(channel > grey)) / channel.size


def contrast(channel: Pixels) -> float:
    """Return the contrast of (height, width), in its own grey levels.

    It is the standard deviation of a wave that spans what the middle 98 of 100 pixels span: single hot pixels, of which
    every sensor has some, do not count. Noise alone has 1.645 times its standard deviation.
    """
    levels = channel.ravel().astype(np.float32)  # a copy; holds each of 8 and 16 bits as well
    low, high = (_percentile(levels, percent) for percent in MIDDLE)
    return (high - low) / (2 * math.sqrt(2))


def _percentile(levels: Pixels, percent: int) -> float:
    """Return what `np.percentile` does, and leave `levels` in another order.

    numpy places one level at a time eight times as fast as the four that `np.percentile` asks for at once.
    """
    place = percent / 100 * (levels.size - 1)
    below = int(place)
    levels.partition(below)
    level = float(levels[below])
    above = float(levels[below + 1 :].min()) if below + 1 < levels.size else level
    return level + (above - level) * (place - below)


def noise(channel: Pixels) -> float:
    """Estimate the standard deviation of the noise in (height, width): what neighbours do not explain.

    Source: Immerkaer, "Fast noise variance estimation", 1996; the median instead of the mean leaves edges out.
    """
    grey = channel.astype(np.float32)
    across = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    return float(np.median(np.abs(both))) / (0.6745 * 6)


def measure_exposure(strips: Iterable[Pixels]) -> Exposure | None:
    """Measure strips, each (3, height, width) in 0..255; None where one is so dark that there is no level."""
    channels = [channel for strip in strips for channel in strip]
    levels = [level(channel) for channel in channels]
    if min(levels) <= 0:
        return None
    return Exposure(
        level_low=min(levels),
        level_high=max(levels),
        contrast=min(contrast(channel) for channel in channels),
        noise=float(np.median([noise(channel) for channel in channels])),
        white=max(share_above(channel, WHITE_ABOVE) for channel in channels),
    )
