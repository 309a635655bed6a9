"""How bright the strips were that a model was calibrated with: in the model file, so that a box can tell other light.

Only the standard library is imported: the supervisor reads metadata, too. The measuring is in worker/light.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

WHITE = 255.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """Of channels 0 to 2 of all calibration strips, as the model is fed, in grey levels of 0..255.

    The level of a channel is its 99th percentile: it stays the same whatever the strip shows, as long as a hundredth of
    it is bright.
    """

    level_low: float  # of the darkest channel of any strip
    level_high: float  # of the brightest
    contrast: float  # the least of any channel
    noise: float  # standard deviation of the sensor's noise, the median of all channels
    white: float  # largest share of a channel's pixels that are white, 0..1


def format_exposure(exposure: Exposure) -> str:
    """Write it as the metadata's JSON, to four digits."""
    return json.dumps({key: float(f"{value:.4g}") for key, value in asdict(exposure).items()})


def parse_exposure(text: str) -> Exposure:
    """Read what `format_exposure` wrote; further keys are left for later versions. Raises ValueError."""
    try:
        found = json.loads(text)
        exposure = Exposure(**{key: float(found[key]) for key in Exposure.__dataclass_fields__})
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no exposure: {error!r:.80}") from error
    values = asdict(exposure).values()
    if not (all(math.isfinite(value) and 0 <= value <= WHITE for value in values) and exposure.white <= 1):
        raise ValueError("a value is not between 0 and 255, or its share of white not between 0 and 1")
    if not 0 < exposure.level_low <= exposure.level_high:
        raise ValueError("level_low must be above 0 and not above level_high")
    return exposure
