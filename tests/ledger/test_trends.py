"""Scores over time and what-if: what is told is what a count by hand gives, for any range and after anything."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.ledger import Ledger, NewResult, open_ledger, strips, trends
from agent.ledger.schema import MIGRATIONS
from agent.ledger.schema_scores import HOUR_MS
from agent.ledger.strips import LIVE
from agent.ledger.trends import FLIPS_NAMED, Bin
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 472_222 * HOUR_MS  # a whole hour
THRESHOLD = 0.6


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


class Line:
    """Brings results at any time; `said` has (time, verdict, score, in pixels) of each one of `top`."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = ledger
        self.said: list[tuple[int, str, float, bool]] = []
        self._monkeypatch = monkeypatch

    def judge(
        self, at_ms: int, score: float, *, in_pixels: bool = False, valid: bool = True, camera: str = "top"
    ) -> None:
        """Commit a result at that time."""
        verdict = "invalid" if not valid else "anomalous" if score >= (7 if in_pixels else THRESHOLD) else "ok"
        result = NewResult(
            verdict, "" if valid else "low_contrast", score if valid else -1.0, "m", 0, "d", "event/strip/top",
            dispose=False, in_pixels=in_pixels,
        )  # fmt: skip
        name = f"{len(self.said)}-{at_ms}.tif"
        self.ledger.strips.begin([SettledFile(camera, name, FileIdentity(10, 1, 1))])
        strip = self.ledger.strips.next_waiting(camera, LIVE, ())
        assert strip is not None
        message = json.dumps({"threshold": THRESHOLD}).encode()
        self._monkeypatch.setattr(strips, "now_ms", lambda: at_ms)
        self.ledger.strips.commit(strip, result, lambda _seq, _ms: message, 10**6)
        if camera == "top":
            self.said.append((at_ms, verdict, result.score, in_pixels))

    def shift(self, number: int) -> None:
        """Bring so many results over three days, of all verdicts, a few in pixels, the clock set back once."""
        rng = random.Random(7)  # noqa: S311 - the same shift each time
        at_ms = START + 17
        for place in range(number):
            at_ms += rng.randrange(2 * 3 * 24 * HOUR_MS // number)
            if place == number // 2:
                at_ms -= 5 * HOUR_MS
            in_pixels = rng.random() < 0.1
            score = float(rng.randrange(40)) if in_pixels else rng.choice((0.0, 1.0, THRESHOLD, rng.random()))
            self.judge(at_ms, score, in_pixels=in_pixels, valid=rng.random() < 0.9)
        self.judge(at_ms, 0.9, camera="side")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Bring results of three days, once for all tests that only look."""
    ledger = open_ledger(tmp_path_factory.mktemp("line") / "ledger.db")
    with pytest.MonkeyPatch.context() as patch:
        line = Line(ledger, patch)
        line.shift(300)
    yield line
    ledger.database.close()


@pytest.mark.parametrize("in_pixels", [False, True])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("from_hour", "to_hour"), [(0, 24 * 30), (10, 30), (30.5, 31.25), (-50, 0), (24 * 20, 24 * 21), (0, 24 * 3000)]
)
def test_a_trend_counts_what_a_count_by_hand_does(
    line: Line, monkeypatch: pytest.MonkeyPatch, from_hour: float, to_hour: float, *, exact: bool, in_pixels: bool
) -> None:
    """Each result of the range is in one bucket and one bin, and no bucket hides its lowest or highest score."""
    if not exact:
        monkeypatch.setattr(trends, "EXACT_UP_TO", -1)
    from_ms, to_ms = START + round(from_hour * HOUR_MS), START + round(to_hour * HOUR_MS)
    found = line.ledger.trends.trend("top", from_ms, to_ms, in_pixels=in_pixels)
    assert found.exact is exact
    if exact:
        assert (found.from_ms, found.to_ms) == (from_ms, to_ms)
    else:  # whole hours
        assert found.from_ms == from_ms // HOUR_MS * HOUR_MS <= from_ms < to_ms <= found.to_ms < to_ms + HOUR_MS
    inside = [one for one in line.said if found.from_ms <= one[0] < found.to_ms]
    assert found.results == len(inside)
    assert found.other_unit == sum(verdict != "invalid" and unit != in_pixels for _, verdict, _, unit in inside)
    mine = [one for one in inside if one[1] == "invalid" or one[3] == in_pixels]
    assert len(found.buckets) <= trends.BUCKETS
    for bucket in found.buckets:
        part = [one for one in mine if bucket.ts_ms <= one[0] < bucket.ts_ms + found.width_ms]
        for verdict in ("ok", "anomalous", "invalid"):
            assert getattr(bucket, verdict) == sum(one[1] == verdict for one in part)
        scores = [score for _, verdict, score, _ in part if verdict != "invalid"]
        assert (bucket.lowest, bucket.highest) == (min(scores, default=None), max(scores, default=None))
        assert bucket.threshold == THRESHOLD
    assert sum(bucket.ok + bucket.anomalous + bucket.invalid for bucket in found.buckets) == len(mine)
    judged = [one for one in mine if one[1] != "invalid"]
    assert sum(one.ok + one.anomalous for one in found.bins) == len(judged)
    for one in found.bins:
        last = not in_pixels and one is found.bins[-1]
        here = [v for _, v, score, _ in judged if one.low <= score and (score < one.high or last)]
        assert (one.ok, one.anomalous) == (here.count("ok"), here.count("anomalous"))


@pytest.mark.parametrize("in_pixels", [False, True])
@pytest.mark.parametrize("last", [1, 50, 100_000])
@pytest.mark.parametrize("threshold", [0.0, 0.3, THRESHOLD, 1.0, 7.0, 20.0, 1e9])
def test_what_if_numbers_equal_a_count_by_hand(line: Line, threshold: float, last: int, *, in_pixels: bool) -> None:
    """How many would flip, which ones, and which never do: invalid strips, and scores in another unit."""
    before = line.ledger.report.list_strips(state=None, camera=None, limit=1000)
    found = line.ledger.trends.what_if("top", threshold, last, in_pixels=in_pixels)
    looked_at = line.said[-last:]
    judged = [one for one in looked_at if one[1] != "invalid" and one[3] == in_pixels]
    assert found.looked_at == len(looked_at)
    assert found.judged == len(judged)
    assert found.invalid == sum(verdict == "invalid" for _, verdict, _, _ in looked_at)
    assert found.other_unit == len(looked_at) - len(judged) - found.invalid
    assert found.anomalous == sum(verdict == "anomalous" for _, verdict, _, _ in judged)
    assert found.to_anomalous == sum(verdict == "ok" and score >= threshold for _, verdict, score, _ in judged)
    assert found.to_ok == sum(verdict == "anomalous" and score < threshold for _, verdict, score, _ in judged)
    assert found.since_ms == min(at for at, *_ in looked_at)
    flips = [one for one in judged if (one[1] == "anomalous") != (one[2] >= threshold)]
    told = [(flip.ts_ms, flip.verdict, flip.score) for flip in found.flips]
    assert told == [one[:3] for one in flips[::-1]][:FLIPS_NAMED]
    assert found.threshold == THRESHOLD
    assert line.ledger.report.list_strips(state=None, camera=None, limit=1000) == before


def test_a_camera_without_results_has_an_empty_trend(ledger: Ledger) -> None:
    """Nothing is divided by nothing."""
    trend = ledger.trends.trend("top", START, START + 1, in_pixels=False)
    assert (trend.results, trend.buckets, trend.bins) == (0, [], [])
    found = ledger.trends.what_if("top", 0.5, 100, in_pixels=False)
    assert (found.looked_at, found.flips, found.since_ms, found.threshold) == (0, [], 0, None)


def test_bins_of_pixels_are_each_twice_as_wide(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one pixel to the whole strip; empty ones between them are told."""
    line = Line(ledger, monkeypatch)
    for place, score in enumerate((0.0, 1.0, 9.0, 171_776.0)):
        line.judge(START + place, score, in_pixels=True)
    bins = ledger.trends.trend("top", START, START + HOUR_MS, in_pixels=True).bins
    assert bins[:5] == [Bin(0, 1, 1, 0), Bin(1, 2, 1, 0), Bin(2, 4, 0, 0), Bin(4, 8, 0, 0), Bin(8, 16, 0, 1)]
    assert bins[-1] == Bin(131_072, 262_144, 0, 1)


def test_the_tally_is_forgotten_with_old_rows_and_not_before(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no row that grows for ever."""
    line = Line(ledger, monkeypatch)
    line.shift(40)
    monkeypatch.setattr(trends, "EXACT_UP_TO", -1)
    whole = line.ledger.trends.trend("top", START, START + 720 * HOUR_MS, in_pixels=False)
    line.ledger.purge.forget_events(START + 24 * HOUR_MS)
    left = line.ledger.trends.trend("top", START, START + 720 * HOUR_MS, in_pixels=False)
    assert left.results == sum(at >= START + 24 * HOUR_MS for at, *_ in line.said) < whole.results
    line.ledger.purge.forget_events(2**62)
    assert line.ledger.trends.trend("top", START, START + 720 * HOUR_MS, in_pixels=False).results == 0


def test_a_ledger_of_before_and_one_that_was_damaged_have_their_trend(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both count their results in; a score above 1 can only be a number of pixels."""
    line = Line(ledger, monkeypatch)
    line.shift(40)
    monkeypatch.setattr(trends, "EXACT_UP_TO", -1)
    asked = ("top", START, START + 720 * HOUR_MS)
    whole = line.ledger.trends.trend(*asked, in_pixels=False)
    line.ledger.database.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("DROP TABLE meta")
    again = open_ledger(tmp_path / "ledger.db")
    assert again.database.set_aside is not None
    found = again.trends.trend(*asked, in_pixels=False)
    assert (found.buckets, found.bins) == (whole.buckets, whole.bins)
    again.database.close()
    older = tmp_path / "older.db"
    number = next(place for place, step in enumerate(MIGRATIONS) if "score_hours" in step)
    with closing(sqlite3.connect(older)) as db:
        for step in MIGRATIONS[:number]:
            db.executescript(step)
        db.executescript(
            f"PRAGMA user_version = {number};"  # noqa: S608 - constants
            "INSERT INTO strips (id, strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, occurrence, lane, state, "
            "seen_ms) VALUES (1, 'a', 'top', CAST('a' AS BLOB), 1, 1, 1, 0, 0, 'judged', 1);"
            "INSERT INTO results (seq, strip, camera, revision, committed_ms, captured_ts_ms, verdict, reason, score, "
            f"model_sha256, heatmap_bytes) VALUES (1, 1, 'top', 1, {START}, 1, 'ok', '', 0.31, 'm', 0),"
            f"(2, 1, 'top', 2, {START}, 1, 'anomalous', '', 12.0, 'm', 0)"
        )
    migrated = open_ledger(older)
    assert migrated.trends.trend(*asked, in_pixels=False).bins[15] == Bin(0.3, 0.32, 1, 0)
    assert migrated.trends.trend(*asked, in_pixels=True).bins == [Bin(8.0, 16.0, 0, 1)]
    migrated.database.close()
