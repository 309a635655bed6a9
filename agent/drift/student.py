"""Student's t distribution: how far the mean of a few strips may be from the truth."""

from __future__ import annotations

import math
from functools import lru_cache

_MANY = 400  # degrees of freedom; above, nothing changes that matters here
_FAR = 1e6


@lru_cache(maxsize=1024)
def t_quantile(doubt: float, degrees: int) -> float:
    """Return what |t| exceeds with the probability `doubt`, for whole degrees of freedom from 1 on."""
    degrees = min(degrees, _MANY)
    low, high = 0.0, _FAR
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - _inside(middle, degrees) > doubt else (low, middle)
    return high


def _inside(t: float, degrees: int) -> float:
    """Return the probability that |t| is smaller. Source: Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
