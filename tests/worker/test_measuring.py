"""How a strip looks, in numbers: each moves with what it is named after, and with nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from agent.contract.measures import NAMES, Measures
from agent.worker import light
from agent.worker.measuring import measure
from tests.drift.line import NOISE, draw, moved, strip
from tests.helpers.strips import make_pixels

RNG = np.random.default_rng(0)
PLAIN = strip(RNG, draw(RNG))
GRAIN = RNG.normal(0, NOISE, PLAIN.shape)


def look(pixels: np.ndarray, noise: float = 1.0) -> Measures:
    """Measure a strip with the same noise each time."""
    return measure(np.clip(pixels + GRAIN * noise, 0, 255).astype(np.float32), 255.0, 0.2)


def test_level_and_contrast_and_noise_are_those_of_the_light_check() -> None:
    """To a fraction of a grey level: people meet the same numbers in both places."""
    pixels = np.clip(PLAIN + GRAIN, 0, 255).astype(np.float32)
    found = measure(pixels, 255.0, 0.2)
    assert found.level_target == pytest.approx(light.level(pixels[0]), abs=1.0)
    assert found.contrast_reference_1 == pytest.approx(light.contrast(pixels[1]), abs=1.0)
    assert found.noise_target == pytest.approx(NOISE, rel=0.15)
    assert found.score == 0.2


def test_both_input_scales_measure_the_same() -> None:
    """What a model is fed with is no property of the line."""
    pixels = np.rint(PLAIN).astype(np.float32)
    assert measure(pixels / np.float32(255), 1.0, 0.2) == measure(pixels, 255.0, 0.2)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 0), (0, -1), (3, -2), (-9, 5), (40, 12), (0.5, 0.5)])
def test_a_shift_of_the_references_is_found_to_a_fraction_of_a_pixel(rows: float, columns: float) -> None:
    """Down and to the right are positive; how alike the pictures are is asked where they lie on each other."""
    pixels = PLAIN.copy()
    pixels[1] = moved(pixels[0], rows, columns)
    found = look(pixels)
    assert found.rows_1 == pytest.approx(rows, abs=0.2)
    assert found.columns_1 == pytest.approx(columns, abs=0.2)
    assert found.unlike_1 is not None
    assert found.unlike_1 < 0.02


def test_sharpness_does_not_depend_on_the_light_and_falls_with_blur() -> None:
    """Otherwise a weak lamp would look like a lens out of focus."""
    sharp = look(PLAIN).sharpness_target
    assert sharp is not None
    for other in (PLAIN * 0.6, 60 + PLAIN * 0.5):
        assert look(other).sharpness_target == pytest.approx(sharp, rel=0.06)
    blurred = look(np.stack([cv2.GaussianBlur(one, (0, 0), 1.2) for one in PLAIN]))
    assert blurred.sharpness_target is not None
    assert blurred.sharpness_target < 0.75 * sharp
    assert blurred.level_target == pytest.approx(look(PLAIN).level_target, rel=0.02)


def test_references_of_another_part_are_unlike_and_lie_nowhere() -> None:
    """Where two pictures show different things a shift between them means nothing."""
    pixels = PLAIN.copy()
    pixels[1] = strip(RNG, draw(RNG))[0]
    found = look(pixels)
    assert found.unlike_1 is not None
    assert found.unlike_1 > 0.4
    if found.unlike_1 > 0.5:
        assert found.rows_1 is None
    assert found.unlike_2 is not None
    assert found.unlike_2 < 0.05


@pytest.mark.parametrize("level", [0.0, 120.0, 255.0])
def test_a_blank_field_has_a_level_and_no_edges(level: float) -> None:
    """It is a legitimate strip; noise alone is never taken for edges."""
    found = look(np.full_like(PLAIN, level))
    assert found.level_target == pytest.approx(min(level + 4.65, 255), abs=3)
    for name in ("sharpness_target", "sharpness_reference_1", "rows_1", "columns_2", "unlike_1", "unlike_2"):
        assert getattr(found, name) is None
    assert look(np.full_like(PLAIN, level), noise=0.0).noise_target == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("size", [(8, 8), (31, 200), (33, 35), (384, 384), (488, 88)])
def test_strips_of_any_size_are_measured(size: tuple[int, int]) -> None:
    """Also odd ones, and such as are too small for a shift."""
    found = measure(make_pixels(channels=3, height=size[0], width=size[1])[:3], 255.0, 0.2)
    assert (found.rows_1 is None) == (min(size) < 32)
    assert all(np.isfinite(getattr(found, name)) for name in NAMES if getattr(found, name) is not None)
