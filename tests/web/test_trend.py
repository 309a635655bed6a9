"""The page *Trend*: its numbers are the agent's, its form works without scripts, and no address breaks it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agent.web import charts
from tests.web.served import ServedBox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCORES = (0.1, 0.2, 0.3, 0.45, 0.55, 0.7, None)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ServedBox]:
    """Serve a box with six judged strips, two of them anomalous, and an invalid one."""
    with ServedBox(tmp_path) as served:
        for number, score in enumerate(SCORES):
            served.judge(f"{number}.tif", score)
        yield served


def test_the_page_shows_what_is_in_the_ledger(box: ServedBox) -> None:
    """Counts, a line for each bucket of scores, the threshold, and no script within the page."""
    with box.browser() as browser:
        page = browser.get("/trend").text
    assert "7 results" in page
    assert "ANOMALY 2" in page
    assert "NOT JUDGED 1" in page
    assert 'class="line-threshold" d="M' in page
    assert re.findall(r"<script(?! src=\"/static/)", page) == []
    assert "style=" not in page, "the policy forbids it"


@pytest.mark.parametrize(("threshold", "flips", "to_anomalous"), [("0.25", 2, 2), ("0.6", 1, 0), ("0.5", 0, 0)])
def test_what_if_without_a_script_is_a_form(box: ServedBox, threshold: str, flips: int, to_anomalous: int) -> None:
    """The numbers equal a count by hand, each strip is a link, and the answer alone says the same as the page."""
    with box.browser() as browser:
        page = browser.get(f"/trend?camera=top&hours=8&last=100&threshold={threshold}").text
        alone = browser.get(f"/trend/what-if?camera=top&last=100&threshold={threshold}").text
    assert f"{flips} of 6 would be judged otherwise" in page
    assert len(re.findall(r'<th scope="row"><a href="/strips/[0-9a-f]{16}\?revision=1">', page)) == flips
    assert f"<dt>OK, would be anomalous</dt><dd>{to_anomalous}</dd>" in alone
    assert alone.strip() in page
    assert "<html" not in alone


@pytest.mark.parametrize(
    "query",
    [
        "camera=../../etc/passwd", "camera=%22%3E%3Cscript%3E", "hours=-1", "hours=99999999999", "threshold=nan",
        "threshold=1e999", "threshold=%3Cb%3E", "last=1000000000", "last=", "camera=side", "threshold=7",
    ],
)  # fmt: skip
def test_an_address_that_means_nothing_shows_the_default_or_says_so(box: ServedBox, query: str) -> None:
    """No error of the page, nothing unescaped, nothing endless."""
    with box.browser() as browser:
        answer = browser.get(f"/trend?{query}")
        assert answer.status_code == 200
        assert "<script>" not in answer.text
        assert "<b>" not in answer.text
        if query == "threshold=7":
            assert "from 0 to 1" in answer.text
        assert browser.get(f"/trend/what-if?{query}").status_code == 200


def test_the_page_speaks_chinese(box: ServedBox) -> None:
    """Every text of it."""
    box.config.web.__dict__["language"] = "zh-TW"
    with box.browser() as browser:
        page = browser.get("/trend?threshold=0.25").text
    assert "假設分析" in page
    assert "6 筆中有 2 筆判定會改變" in page


def test_nothing_is_drawn_outside() -> None:
    """Whatever the scores and thresholds are."""
    buckets = [
        {"ts_ms": ts, "ok": 1, "anomalous": 1, "invalid": 1, "lowest": 0.0, "highest": high, "threshold": 7.0}
        for ts, high in ((0, 0.0), (90, 1.0), (-50, 99.0))
    ]
    for in_pixels in (False, True):
        trend = {"from_ms": 0, "to_ms": 100, "width_ms": 10, "in_pixels": in_pixels, "buckets": buckets}
        drawn = charts.scores(trend)
        numbers = [float(one) for one in re.findall(r"[\d.]+", drawn.below + drawn.above + drawn.threshold)]
        assert all(0 <= number <= charts.WIDTH for number in numbers)
        shares = charts.shares(trend)
        assert all(bar.y >= 0 and bar.y + bar.height <= charts.HEIGHT for bar in shares.anomalous + shares.invalid)
    few = [{"ts_ms": ts, "ok": ok, "anomalous": 1, "invalid": 0} for ts, ok in ((0, 1), (40, 3), (50, 0))]
    shares = charts.shares({"from_ms": 0, "to_ms": 100, "width_ms": 10, "buckets": few})
    assert [(bar.x, round(bar.height)) for bar in shares.anomalous] == [(0, 67), (500, 200)], "two of six, one of one"
    assert charts.histogram([]) == ([], [])
    bins = [{"low": 0.0, "high": 1.0, "ok": 9, "anomalous": 0}, {"low": 1.0, "high": 2.0, "ok": 0, "anomalous": 9}]
    (ok,), (anomalous,) = charts.histogram(bins)
    assert ok.x == 0
    assert anomalous.x + anomalous.width <= charts.WIDTH
    assert charts.place_in_bins(1.5, bins) == 750
    assert charts.place_in_bins(5.0, bins) is None
