"""The light that a model knows travels in its file, and the worker compares every strip with it."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.cli.oneshot import score_files
from agent.worker.light import contrast, measure_exposure
from tests.helpers.models import difference_model
from tests.helpers.strips import encode, make_pixels

if TYPE_CHECKING:
    from pathlib import Path

FACTORS = (1.0, 0.75, 0.5, 0.25, 1 / 8, 1 / 16)


@pytest.mark.parametrize("is_stamped", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_defect_in_the_dark_is_never_ok_for_a_model_that_knows_its_light(
    tmp_path: Path, dtype: str, is_stamped: bool
) -> None:
    """With the entry what is too dark is invalid; a file without it judges as before, and misses the defect."""
    pixels = make_pixels(defect=True)
    exposure = measure_exposure([make_pixels(seed=1)[:3]]) if is_stamped else None
    difference_model(tmp_path / "m.onnx", exposure=exposure, threshold=0.4)
    files = []
    for number, factor in enumerate(FACTORS):
        files.append(tmp_path / f"{number}.tif")
        files[-1].write_bytes(encode((pixels * factor).astype(dtype)))
        os.utime(files[-1], ns=(number, number))
    answers = [facts["reason"] or facts["verdict"] for facts in score_files(files, tmp_path / "m.onnx", None, None)]
    assert answers[:2] == ["anomalous", "anomalous"]
    if is_stamped:
        assert answers[2:] == ["exposure_differs"] * 4
    else:
        assert answers[4:] == ["ok", "ok"]


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
@pytest.mark.parametrize("shape", [(976, 176), (97, 131), (1, 1), (1, 2), (10, 10)])
def test_contrast_is_what_the_middle_98_percent_span(shape: tuple[int, int], dtype: str) -> None:
    """To the last digits as `np.percentile` finds it, whatever the pixels are stored as; they stay as they were."""
    channel = np.random.default_rng(0).normal(120, 30, shape).clip(0, 255).astype(dtype)
    before = channel.copy()
    low, high = np.percentile(channel.astype(np.float64), (1, 99))
    assert contrast(channel) == pytest.approx((high - low) / (2 * math.sqrt(2)), rel=1e-12, abs=1e-12)
    np.testing.assert_array_equal(channel, before)
