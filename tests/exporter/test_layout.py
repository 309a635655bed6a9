"""Where the patches lie: the contract's layouts, and that nothing is left out for any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.exporter.errors import ExportError
from tools.exporter.layout import make_layout
from tools.exporter.regions import Span, needed_below, plan_axis, resize_roi


def test_strip_layout_is_the_contracts() -> None:
    """976 x 176: rows 0, 106, ..., 848 and columns 0, 48, with the kept parts that the contract states."""
    layout = make_layout((976, 176), (128, 128))
    assert [window.start for window in layout.rows] == list(range(0, 849, 106))
    kept = [(window.keep_start, window.keep_stop) for window in layout.rows]
    assert kept == [(0, 117), *[(11, 117)] * 7, (11, 128)]
    assert [(window.start, window.keep_start, window.keep_stop) for window in layout.columns] == [
        (0, 0, 88),
        (48, 40, 128),
    ]


def test_square_layout_is_the_contracts() -> None:
    """384 x 384: rows and columns 0, 85, 170, 256, margin 21, later patches win."""
    layout = make_layout((384, 384), (128, 128))
    assert layout.rows == layout.columns
    assert [window.start for window in layout.rows] == [0, 85, 170, 256]
    first_kept = [window.start + window.keep_start for window in layout.rows]
    assert first_kept == [0, 106, 191, 277]


def test_grid_asks_for_another_tiling() -> None:
    """8 x 2 on a strip: rows evenly spaced."""
    layout = make_layout((976, 176), (128, 128), (8, 2))
    assert [window.start for window in layout.rows] == [index * 848 // 7 for index in range(8)]


@pytest.mark.parametrize("grid", [(7, 2), (9, 1), (900, 2)])
def test_grid_that_does_not_cover_is_refused(grid: tuple[int, int]) -> None:
    """Gaps between patches, or patches in the same place, are refused with what to do."""
    with pytest.raises(ExportError, match="--grid"):
        make_layout((976, 176), (128, 128), grid)


@given(st.integers(32, 600), st.integers(32, 600), st.sampled_from([32, 64, 128]))
def test_every_pixel_is_kept_from_exactly_one_patch(height: int, width: int, patch: int) -> None:
    """Whatever the size: patches lie inside the strip and their kept parts tile it."""
    if min(height, width) < patch:
        with pytest.raises(ExportError):
            make_layout((height, width), (patch, patch))
        return
    layout = make_layout((height, width), (patch, patch))
    counted = np.zeros((height, width), int)
    for row, column in layout.windows:
        assert 0 <= row.start <= height - patch
        assert 0 <= row.keep_start < row.keep_stop <= patch
        top, left = row.start + row.keep_start, column.start + column.keep_start
        counted[top : row.start + row.keep_stop, left : column.start + column.keep_stop] += 1
    assert (counted == 1).all()


@given(st.integers(128, 600), st.lists(st.integers(0, 5), min_size=2, max_size=5))
def test_regions_hold_what_the_stage_above_reads(height: int, convolutions: list[int]) -> None:
    """Each stage's region holds what upsampling reads for the next one, and the last holds what is kept."""
    windows = make_layout((height, height), (128, 128)).rows
    plan = plan_axis(windows, 128, convolutions)
    lengths = [128 >> (len(plan) - 1 - stage) for stage in range(len(plan))]
    for number, window in enumerate(windows):
        assert plan[-1][number].start <= window.keep_start
        assert plan[-1][number].stop >= window.keep_stop
        for below, above, length in zip(plan, plan[1:], lengths[1:], strict=False):
            needed = needed_below(above[number], length)
            assert below[number].start <= needed.start
            assert below[number].stop >= needed.stop


@given(st.sampled_from([16, 32, 64, 128]), st.data())
def test_upsampling_a_part_keeps_to_its_pixels(length: int, data: st.DataObject) -> None:
    """The region of interest never reaches beyond the last pixel: there onnxruntime would fill in 0."""
    start = data.draw(st.integers(0, length - 2))
    span = Span(start, data.draw(st.integers(start + 2, length)))
    below = needed_below(span, length)
    last = below.stop - below.start - 1
    if last == 0:
        return
    first_at, last_at = resize_roi(span, below, length)
    assert first_at * last >= -1e-6
    assert last_at * last <= last
    assert last_at * last == pytest.approx((span.stop - 1) * (length // 2 - 1) / (length - 1) - below.start, abs=1e-4)
