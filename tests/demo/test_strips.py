"""The simulated strips: valid, the same again, and the truth about them is true."""

from __future__ import annotations

import numpy as np
import pytest

from agent.demo.strips import VISIBLE_GREY_LEVELS, make_strip


def _strip(seed: int, defects: int) -> tuple[np.ndarray, np.ndarray, int]:
    strip, truth = make_strip(np.random.default_rng(seed), defects=defects)
    return strip, truth.mask, len(truth.defects)


@pytest.mark.parametrize("defects", [0, 1, 4])
def test_a_strip_is_what_the_cameras_of_the_line_write(defects: int) -> None:
    """Four channels of 976 x 176 float32, whole grey levels 0..255, the fourth empty, contrast in the others."""
    strip, mask, found = _strip(7, defects)
    assert strip.shape == (4, 976, 176)
    assert strip.dtype == np.float32
    assert strip.min() >= 0
    assert 150 < strip.max() <= 255
    assert np.array_equal(strip, np.rint(strip))
    assert not strip[3].any()
    assert all(channel.std() > 20 for channel in strip[:3])
    assert found == defects
    assert mask.any() == (defects > 0)


def test_the_same_seed_draws_the_same_strip_and_another_seed_another_one() -> None:
    """A run of the demo or of the training can be repeated."""
    first, first_mask, _ = _strip(11, 2)
    again, again_mask, _ = _strip(11, 2)
    other, _, _ = _strip(12, 2)
    assert np.array_equal(first, again)
    assert np.array_equal(first_mask, again_mask)
    assert not np.array_equal(first, other)


def test_a_defect_can_be_seen_in_the_target_against_both_references() -> None:
    """Where the truth says defect, the target differs from both references; elsewhere it seldom does."""
    for seed in range(4):
        strip, truth = make_strip(np.random.default_rng(seed), defects=2)
        difference = np.minimum(np.abs(strip[0] - strip[1]), np.abs(strip[0] - strip[2]))
        for defect in truth.defects:
            box = (slice(defect.top, defect.bottom), slice(defect.left, defect.right))
            assert np.median(difference[box][truth.mask[box]]) > VISIBLE_GREY_LEVELS * 0.8
        assert np.mean(difference[~truth.mask] > VISIBLE_GREY_LEVELS) < 0.05
