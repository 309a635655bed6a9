"""Measure strips and print every digit: run by itself, so that its processor can be made another one.

    python -m tests.worker.looks_here STRIPS.npz

writes as JSON which kernels the libraries have there, and how the strips look. They come from a file: what makes them
up may round in another way there, too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agent.contract.exposure import WHITE
from agent.contract.measures import format_reference, make_reference
from agent.worker.light import measure_exposure
from agent.worker.measuring import measure
from tests.drift.line import NOISE, draw, moved, strip
from tests.helpers.strips import make_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOVES = [(0.0, 0.0), (0.3, -0.6), (1.5, 0.4), (5.0, -3.0), (-9.3, 7.6), (31.0, 12.0)]  # rows, columns
SCORE = 0.2


def make_strips() -> Iterator[np.ndarray]:
    """Make (3, height, width): references that lie elsewhere, in other light, noisy ones, some that show nothing."""
    random = np.random.default_rng(0)
    for gain in (1.0, 0.6):
        for rows, columns in MOVES:
            pixels = strip(random, draw(random))
            pixels[1:] = [moved(pixels[0], rows, columns), moved(pixels[0], -columns, rows) * gain]
            yield np.clip(pixels + random.normal(0, NOISE, pixels.shape), 0, WHITE).astype(np.float32)
    yield random.uniform(0, WHITE, (3, 150, 97)).astype(np.float32)
    yield np.full((3, 64, 64), 120, np.float32)
    yield strip(random, draw(random))  # no noise at all
    yield make_pixels(channels=3)
    yield make_pixels(channels=3, height=33, width=35)


def looks(strips: Sequence[np.ndarray]) -> list[str]:
    """Give every measure of every strip to the last bit, and what an export writes of all of them."""
    measured = [measure(one, WHITE, SCORE) for one in strips]
    found = [f"{name} {value!r}" for one in measured for name, value in asdict(one).items()]
    reference = make_reference(measured, stretched=False, good_below=0.5)
    assert reference is not None
    return [*found, repr(measure_exposure(strips)), format_reference(reference)]


def kernels() -> dict[str, str]:
    """Give what tells the libraries' kernels apart; of the BLAS that is a sum in single precision."""
    numpys: Any = np._core._multiarray_umath  # type: ignore[attr-defined]
    values = np.random.default_rng(0).random(9973).astype(np.float32)
    return {
        "OpenCV": f"{cv2.getCPUFeaturesLine()} IPP {cv2.ipp.useIPP()}",
        "numpy": " ".join(name for name in numpys.__cpu_dispatch__ if numpys.__cpu_features__[name]),
        "BLAS": repr(np.vdot(values, values)),
    }


if __name__ == "__main__":
    with np.load(sys.argv[1]) as stored:
        sys.stdout.write(json.dumps([kernels(), looks([stored[name] for name in stored.files])]))
