"""Scores, regions and peaks out of heatmaps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ScoringSection
from agent.worker.scoring import MAX_REGIONS, Heatmap, score_heatmap

Method = Literal["max", "top_k_mean", "area"]


def _heatmap(*spots: tuple[Any, float]) -> Heatmap:
    heatmap = np.full((60, 40), 0.05, np.float32)
    for place, value in spots:
        heatmap[place] = value
    return heatmap


BIG, SMALL = np.s_[10:14, 5:10], np.s_[30:32, 20:22]


def test_the_maximum_is_the_score_and_its_place_the_peak() -> None:
    """The default score is the highest pixel; the peak is where it is."""
    scored = score_heatmap(_heatmap((BIG, 0.8), ((31, 21), 0.9)), ScoringSection())
    assert (scored.peak_row, scored.peak_col) == (31, 21)
    assert scored.score == pytest.approx(0.9)
    assert isinstance(scored.score, float)


def test_regions_come_with_box_area_and_peak_largest_first() -> None:
    """Ends are excluded, as in slices."""
    first, second = score_heatmap(
        _heatmap((SMALL, 0.9), (BIG, 0.6), ((12, 7), 0.7)), ScoringSection(min_area_px=1)
    ).regions
    assert (first.top, first.left, first.bottom, first.right, first.area_px) == (10, 5, 14, 10, 20)
    assert (first.peak_row, first.peak_col) == (12, 7)
    assert first.peak == pytest.approx(0.7)
    assert (second.area_px, second.peak_row, second.peak_col) == (4, 30, 20)


def test_a_neighbours_higher_peak_is_not_taken() -> None:
    """Where boxes overlap, each region has the peak of its own pixels."""
    heatmap = _heatmap((np.s_[10:30, 10], 0.6), (np.s_[29, 10:30], 0.6), ((15, 20), 0.9))
    hook, dot = score_heatmap(heatmap, ScoringSection()).regions
    assert (hook.peak, dot.peak) == pytest.approx((0.6, 0.9))


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    """A diagonal scratch is one defect."""
    heatmap = _heatmap(*(((5 + step, 5 + step), 0.9) for step in range(6)))
    assert [region.area_px for region in score_heatmap(heatmap, ScoringSection()).regions] == [6]


def test_a_pixel_at_the_threshold_belongs_to_a_region() -> None:
    """At or above, as the verdict has it."""
    scored = score_heatmap(_heatmap((BIG, 0.5)), ScoringSection())
    assert (scored.anomaly_area_px, scored.defect_count) == (20, 1)


@pytest.mark.parametrize(("method", "expected"), [("max", 0.9), ("area", 20.0), ("top_k_mean", 0.9)])
def test_small_regions_count_in_area_and_number_but_never_change_the_maximum(method: Method, expected: float) -> None:
    """`min_area_px` hides specks from the counts, not from the score."""
    scoring = ScoringSection(method=method, top_k=4, threshold=1.0, min_area_px=5)
    scored = score_heatmap(_heatmap((BIG, 0.6), (SMALL, 0.9)), scoring)
    assert scored.score == pytest.approx(expected)
    assert (scored.anomaly_area_px, scored.defect_count, len(scored.regions)) == (20, 1, 1)
    assert (scored.peak_row, scored.peak_col) == (30, 20)


def test_the_mean_of_the_top_pixels() -> None:
    """Of the `top_k` highest; of all of them where there are fewer."""
    heatmap = np.arange(100, dtype=np.float32).reshape(10, 10) / np.float32(100)
    assert score_heatmap(heatmap, ScoringSection(method="top_k_mean", top_k=3)).score == pytest.approx(0.98)
    assert score_heatmap(heatmap, ScoringSection(method="top_k_mean", top_k=5000)).score == pytest.approx(0.495)


def test_a_heatmap_without_regions() -> None:
    """Nothing found is a result like any other."""
    scored = score_heatmap(np.zeros((60, 40), np.float32), ScoringSection(method="area", threshold=1.0))
    assert (scored.score, scored.anomaly_area_px, scored.defect_count, scored.regions) == (0.0, 0, 0, ())
    assert (scored.peak_row, scored.peak_col) == (0, 0)


def test_a_heatmap_that_is_one_region() -> None:
    """The background may be empty."""
    (region,) = score_heatmap(np.ones((60, 40), np.float32), ScoringSection()).regions
    assert (region.top, region.left, region.bottom, region.right, region.area_px) == (0, 0, 60, 40, 2400)


def test_all_regions_are_counted_and_the_largest_kept() -> None:
    """A heatmap of specks gives true totals and a list of bounded length."""
    heatmap = np.zeros((200, 200), np.float32)
    heatmap[::2, ::2] = 0.9
    heatmap[100:103, 100:103] = 0.9
    scored = score_heatmap(heatmap, ScoringSection())
    assert scored.defect_count > MAX_REGIONS == len(scored.regions)
    assert scored.anomaly_area_px == np.count_nonzero(heatmap)
    assert scored.regions[0].area_px > scored.regions[1].area_px == 1
    assert scored.regions[1].top == 0  # of the same area, in reading order


def _grow(mask: Any) -> list[set[tuple[int, int]]]:
    """Find the regions the slow and obvious way."""
    left = {(int(row), int(col)) for row, col in np.argwhere(mask)}
    regions = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            row, col = edge.pop()
            region.add((row, col))
            near = {(row + down, col + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        regions.append(region)
    return regions


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.integers(1, 6), st.integers(1, 12), st.integers(1, 12))
def test_regions_agree_with_the_obvious_way(seed: int, threshold: float, least: int, height: int, width: int) -> None:
    """Count, areas, boxes and peaks are those of a plain flood fill."""
    heatmap = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    expected = [region for region in _grow(heatmap >= threshold) if len(region) >= least]
    scored = score_heatmap(heatmap, ScoringSection(pixel_threshold=threshold, min_area_px=least))
    assert scored.defect_count == len(expected) == len(scored.regions)
    assert scored.anomaly_area_px == sum(map(len, expected))
    found = {
        (region.top, region.left, region.bottom, region.right, region.area_px, region.peak) for region in scored.regions
    }
    assert found == {
        (
            min(row for row, _ in region),
            min(col for _, col in region),
            max(row for row, _ in region) + 1,
            max(col for _, col in region) + 1,
            len(region),
            max(float(heatmap[place]) for place in region),
        )
        for region in expected
    }
    assert all(heatmap[region.peak_row, region.peak_col] == region.peak for region in scored.regions)
    assert scored.score == float(heatmap.max()) == float(heatmap[scored.peak_row, scored.peak_col])
