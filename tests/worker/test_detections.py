"""`scoring.method: detections` against the rule, written down once more in the slow and obvious way."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import DetectionsSection, HeatmapsSection, ScoringSection
from agent.worker.heatmaps import HeatmapWriter, encode_heatmaps
from agent.worker.scoring import Detection, Heatmap, find_detections, score_heatmap
from tests.helpers.strips import make_pixels

if TYPE_CHECKING:
    from pathlib import Path

SCORING = ScoringSection(method="detections")
STRIPS = 60


def by_the_rule(heatmap: Any, rule: DetectionsSection) -> list[tuple[int, int, float]]:
    """Percentile, highest pixel, mean of the highest around it, a blank disk, and again: with lists and loops alone."""
    rows: list[list[float]] = heatmap.astype(float).tolist()
    in_order = sorted(value for row in rows for value in row)
    place = (len(in_order) - 1) * (100 - rule.top_percent) / 100
    below, above = in_order[math.floor(place)], in_order[math.ceil(place)]
    percentile = below + (above - below) * (place - math.floor(place))
    taken = [(-value, r, c) for r, row in enumerate(rows) for c, value in enumerate(row) if value >= percentile]
    half = rule.window_px // 2
    found: list[tuple[int, int, float]] = []
    for _, r, c in sorted(taken):
        if len(found) == rule.max_detections:
            break
        if any((y - r) ** 2 + (x - c) ** 2 <= rule.radius_px**2 for y, x, _ in found):
            continue
        around = [
            rows[y][x]
            for y in range(max(r - half, 0), min(r + half + 1, len(rows)))
            for x in range(max(c - half, 0), min(c + half + 1, len(rows[0])))
        ]
        highest = sorted(around, reverse=True)[: rule.top_k]
        found.append((r, c, sum(highest) / len(highest)))
    return found


def _as_tuples(detections: tuple[Detection, ...]) -> list[tuple[int, int, float]]:
    return [(one.row, one.col, one.score) for one in detections]


def _heatmap(number: int) -> Heatmap:
    """Make the heatmap of a made-up strip: how much target and reference differ, with defects of every strength."""
    target, reference = make_pixels(defect=number % 3 == 0, seed=number)[:2]
    rng = np.random.default_rng(number)
    for row, col in zip(rng.integers(0, 976, number % 9), rng.integers(0, 176, number % 9), strict=True):
        target[row : row + 4, col : col + 3] += rng.uniform(5, 120)
    difference = cv2.GaussianBlur(np.abs(target - reference), (0, 0), 1 + number % 4) / 120
    heatmap = np.clip(difference, 0, 1)
    if number % 5 == 0:  # with many equal pixels
        heatmap = np.round(heatmap * 64) / 64
    return np.asarray(heatmap, np.float32)


@pytest.mark.parametrize("number", range(STRIPS))
def test_the_detections_of_a_strip_are_those_of_the_rule(number: int) -> None:
    """Places in the same order, scores to the last bit; the best one gives score and peak, their number the count."""
    heatmap = _heatmap(number)
    expected = by_the_rule(heatmap, SCORING.detections)
    scored = score_heatmap(heatmap, SCORING)
    assert _as_tuples(scored.detections) == expected
    best = max(expected, key=lambda one: one[2])
    assert (scored.peak_row, scored.peak_col, scored.score) == best
    assert scored.defect_count == len(expected) <= 5
    plain = score_heatmap(heatmap, ScoringSection())
    assert (scored.regions, scored.anomaly_area_px) == (plain.regions, plain.anomaly_area_px)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(1, 25), st.sampled_from([0.3, 1, 2.5, 20, 99, 100]),
    st.integers(0, 9), st.sampled_from([1, 3, 5, 9]), st.integers(1, 30), st.integers(1, 8), st.integers(2, 40),
)  # fmt: skip
def test_any_numbers_follow_the_rule(
    seed: int, height: int, width: int, top: float, radius: int, window: int, top_k: int, most: int, levels: int
) -> None:
    """Small images, windows beyond the edge, everything equal, more asked for than there is."""
    rule = DetectionsSection(
        top_percent=float(top), radius_px=radius, window_px=window, top_k=top_k, max_detections=most
    )
    heatmap = (np.random.default_rng(seed).integers(0, levels, (height, width)) / 64).astype(np.float32)
    found, expected = _as_tuples(find_detections(heatmap, rule)), by_the_rule(heatmap, rule)
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    assert [one[2] for one in found] == pytest.approx([one[2] for one in expected], rel=1e-12)


def test_the_score_is_the_best_ones_not_the_first_ones() -> None:
    """A single hot pixel comes first, and a real defect beside it is the better detection."""
    heatmap = np.zeros((200, 100), np.float32)
    heatmap[20, 20] = 0.9
    heatmap[120:124, 50:54] = 0.8
    scored = score_heatmap(heatmap, SCORING)
    assert [(one.row, one.col) for one in scored.detections[:2]] == [(20, 20), (120, 50)]
    assert (scored.peak_row, scored.peak_col) == (120, 50)
    assert scored.score == pytest.approx(0.8)
    assert scored.detections[0].score == pytest.approx(0.3)


def test_all_detections_stand_in_the_regions_file_and_are_circled(tmp_path: Path) -> None:
    """Row, column and score of each; and the picture shows where they are."""
    heatmap = _heatmap(3)
    settings = HeatmapsSection(png="all", tiff="none", min_free_gib=0)
    pictures = {}
    for method in ("max", "detections"):
        scored = score_heatmap(heatmap, ScoringSection(method=method))
        contents = encode_heatmaps(
            heatmap, make_pixels(), scored, threshold=0.5, anomalous=True, settings=settings, name=method
        )
        HeatmapWriter(tmp_path, 0.0, 60.0).write(method, contents)
        pictures[method] = (tmp_path / f"{method}.png").read_bytes()
        facts = json.loads((tmp_path / f"{method}.json").read_text())
        listed = [(one["row"], one["col"], one["score"]) for one in facts["detections"]]
        assert listed == (by_the_rule(heatmap, SCORING.detections) if method == "detections" else [])
        assert facts["defect_count"] == scored.defect_count
    cyan = {name: _cyan(png) for name, png in pictures.items()}
    assert cyan["detections"] - cyan["max"] > 5 * 30, cyan  # five circles


def _cyan(png: bytes) -> int:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    return int(np.count_nonzero((np.asarray(image) == (0, 229, 255)).all(axis=2)))
