"""What happens to a simulated box, and when: a story of two hundred strips that begins anew. Pure functions.

It is made so that in a few minutes a SCADA system sees everything that it has to deal with, each of it once.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

from agent.errors import Reason

Act = Literal["raise", "clear", "cut", "mend", "stop", "start", "reject", "activate", "roll_back", "review"]

LENGTH = 200  # strips
ANOMALOUS_SHARE, INVALID_SHARE = 0.06, 0.01
BURST = range(60, 66)  # a camera that writes nonsense for a while
AWAY = range(30, 50)  # the last camera's folder is not there
INVALID = (Reason.INCOMPLETE, Reason.DAMAGED_TIFF, Reason.LOW_CONTRAST, Reason.NOT_A_TIFF, Reason.EXPOSURE_DIFFERS)

# Strip of the story -> what happens before it; for `raise` and `clear` which alarm ({camera} is the last camera), for
# `review` what somebody says of the strip before.
ACTS: dict[int, tuple[Act, str]] = {
    AWAY.start: ("raise", "camera_{camera}_missing"),
    AWAY.stop: ("clear", "camera_{camera}_missing"),
    80: ("cut", ""),
    105: ("mend", ""),
    115: ("reject", ""),
    125: ("activate", ""),
    135: ("roll_back", ""),
    140: ("review", "no_defect"),
    145: ("review", "defect"),
    150: ("raise", "heatmaps_no_space"),
    165: ("clear", "heatmaps_no_space"),
    180: ("stop", ""),
    185: ("start", ""),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a simulated strip; `reason` is "" unless it could not be judged. Peak in pixels of the heatmap."""

    camera: str
    score: float = -1.0
    area_px: int = 0
    defects: int = 0
    peak: tuple[int, int] = (-1, -1)
    inference_ms: float = 0.0
    reason: str = ""


def act_before(number: int) -> tuple[Act, str] | None:
    """Say what happens before strip `number`, from 0."""
    return ACTS.get(number % LENGTH)


def judge(seed: int, number: int, cameras: tuple[str, ...], threshold: float) -> Judged:
    """Say what becomes of strip `number`; the same arguments give the same."""
    rng = random.Random(f"{seed} {number}")
    place = number % LENGTH
    present = cameras[:-1] if place in AWAY and len(cameras) > 1 else cameras
    camera = present[number % len(present)]
    if place in BURST or rng.random() < INVALID_SHARE:
        return Judged(camera, reason=INVALID[number % len(INVALID)])
    peak = rng.randrange(976), rng.randrange(176)
    inference_ms = round(rng.gauss(42.0, 2.5), 3)
    if rng.random() < ANOMALOUS_SHARE:
        defects = rng.choice((1, 1, 1, 2, 3))
        score = threshold + (1.0 - threshold) * rng.betavariate(4.0, 1.5)
        return Judged(camera, score, int(rng.lognormvariate(3.4, 0.7)) * defects + 1, defects, peak, inference_ms)
    # The line drifts slowly, as lines do: a trend has something to show.
    level = 0.12 + 0.05 * math.sin(2 * math.pi * number / (3 * LENGTH))
    score = min(threshold * 0.95, max(0.0, level + threshold * 0.5 * rng.betavariate(1.5, 6.0)))
    return Judged(camera, score, 0, 0, peak, inference_ms)
