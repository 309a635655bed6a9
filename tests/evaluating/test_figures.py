"""The figures of an evaluation against definitions written down again here, and against what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.records import Region
from tools.evaluating import figures
from tools.evaluating.comparing import compare
from tools.evaluating.figures import confusion, evaluate, ranking, rate, recall_at
from tools.evaluating.judging import Defect, Outcome
from tools.evaluating.thresholds import for_false_alarms, for_recall
from tools.exporter.errors import ExportError
from tools.exporter.matching import match_regions

SCORES = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=2, max_size=40)


def outcome(name: str, score: float, *, defective: bool = False, **more: Any) -> Outcome:
    """Make what was judged of one strip."""
    facts: dict[str, Any] = {"peak": (0, 0), "regions": (), "defects": (), "detections": (), "seconds": 1.0} | more
    return Outcome(Path(name), defective, score, **facts)


def pairs_in_order(truth: np.ndarray, scores: np.ndarray) -> float:
    """Count the pairs of a defective and a good strip in which the defective one scores higher; ties count half."""
    bad, good = scores[truth], scores[~truth]
    wins = (bad[:, None] > good[None, :]).sum() + (bad[:, None] == good[None, :]).sum() / 2
    return float(wins / (len(bad) * len(good)))


def precision_by_steps(truth: np.ndarray, scores: np.ndarray) -> float:
    """Add up precision at each score, weighted by the recall that it adds."""
    total, before = 0.0, 0.0
    for at in sorted(set(scores.tolist()), reverse=True):
        named = scores >= at
        recall = float((truth & named).sum() / truth.sum())
        total += (recall - before) * float((truth & named).sum() / named.sum())
        before = recall
    return total


@settings(max_examples=25)  # each draws again and again
@given(SCORES.filter(lambda drawn: len({kind for kind, _ in drawn}) > 1))
def test_rankings_equal_their_definitions(drawn: list[tuple[bool, float]]) -> None:
    """AUROC is the share of pairs in order; average precision the area below the steps; both within 1e-9."""
    outcomes = [outcome(f"{number}.tif", score, defective=kind) for number, (kind, score) in enumerate(drawn)]
    truth = np.array([kind for kind, _ in drawn])
    scores = np.array([score for _, score in drawn])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "RESAMPLES", 3)
        found = evaluate(outcomes, None, 0.5)
    assert found.auroc is not None
    assert found.average_precision is not None
    assert found.auroc.value == pytest.approx(pairs_in_order(truth, scores), abs=1e-9)
    assert found.average_precision.value == pytest.approx(precision_by_steps(truth, scores), abs=1e-9)
    at = found.confusion
    assert (at.found + at.missed, at.passed + at.false_alarms) == (truth.sum(), (~truth).sum())
    assert at.found == sum(kind and score >= 0.5 for kind, score in drawn)


def test_one_kind_of_strips_gives_no_ranking() -> None:
    """Good strips alone have false alarms, and no AUROC; the recall is not known."""
    found = evaluate([outcome("a.tif", 0.2), outcome("b.tif", 0.7)], None, 0.5)
    assert (found.auroc, found.average_precision) == (None, None)
    assert found.confusion.false_alarms_per_1000.value == 500
    assert (found.confusion.recall.low, found.confusion.recall.high, found.confusion.recall.count) == (0, 1, 0)
    assert "2 good and 0 defective" in found.warnings[0]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_the_interval_of_a_rate_holds_the_truth(share: float) -> None:
    """In at least 95 of 100 draws, whatever the rate."""
    random = np.random.default_rng(1)
    hits = random.binomial(40, share, 2000)
    intervals = {int(count): rate(int(count), 40) for count in set(hits.tolist())}
    covered = [intervals[int(count)].low <= share <= intervals[int(count)].high for count in hits]
    assert np.mean(covered) >= 0.95


def test_the_interval_of_a_ranking_holds_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of two normal distributions, 40 strips of each: the known AUROC lies inside in about 95 of 100 draws."""
    monkeypatch.setattr(figures, "RESAMPLES", 200)
    random = np.random.default_rng(2)
    expected = 0.8413447  # of N(1.414, 1) against N(0, 1): the normal distribution at 1
    truth = np.repeat([True, False], 40)
    covered = 0
    for _ in range(200):
        scores = np.concatenate([random.normal(2**0.5, 1, 40), random.normal(0, 1, 40)])
        found = ranking(truth, scores, pairs_in_order)
        covered += found.low <= expected <= found.high
    assert covered >= 178  # 190 are expected; 178 or less come once in 500 such tests


def test_a_perfect_ranking_of_few_strips_claims_little() -> None:
    """Five strips in order do not prove an AUROC of 1."""
    truth = np.repeat([True, False], 5)
    found = ranking(truth, truth.astype(float), pairs_in_order)
    assert found.value == 1
    assert found.low < 0.5


def test_a_score_at_the_threshold_is_anomalous() -> None:
    """As on a box."""
    assert confusion(np.array([False]), np.array([0.5]), 0.5).false_alarms == 1


def test_detections_of_all_strips_are_ranked_together() -> None:
    """Of the best 30, those within 3 pixels of their strip's point count, each strip once; good ones take places."""
    far = float("inf")
    good = [outcome(f"good{n}.tif", 0.9, detections=((0.9, far),)) for n in range(29)]
    first = outcome("a.tif", 0.95, defective=True, detections=((0.95, 3.0), (0.91, 1.0), (0.1, 50.0)))
    second = outcome("b.tif", 0.8, defective=True, detections=((0.8, 3.1), (0.5, 0.0)))
    found = recall_at([*good, first, second])
    assert (found[30].value, found[30].count) == (0.5, 2)
    assert found[50].value == 1.0
    assert recall_at(good) == {}


def test_defects_are_counted_by_overlap_and_by_size() -> None:
    """A defect that was found with an IoU of 0.3 counts for 0.1 and 0.3, not for 0.5."""
    judged = outcome("a.tif", 1.0, defective=True, defects=(Defect(10, 0.3), Defect(500, 0.0)))
    found = evaluate([judged], None, 0.5).defects
    assert [found[name].value for name in ("IoU 0.1", "IoU 0.3", "IoU 0.5")] == [0.5, 0.5, 0.0]
    assert (found["IoU 0.1, small"].value, found["IoU 0.1, large"].value) == (1.0, 0.0)


@given(st.data())
def test_regions_are_matched_as_counted_by_hand(data: st.DataObject) -> None:
    """IoU of each expected region with all found ones that touch it: counted again with sets of pixels."""
    size = (6, 7)
    drawn = [np.array(data.draw(st.lists(st.booleans(), min_size=42, max_size=42))).reshape(size) for _ in "ab"]

    def pieces(mask: np.ndarray) -> list[set[tuple[int, int]]]:
        left = {(int(row), int(col)) for row, col in np.argwhere(mask)}
        found = []
        while left:
            piece, edge = set(), [min(left)]
            while edge:
                at = edge.pop()
                if at in left:
                    left.discard(at)
                    piece.add(at)
                    edge += [(at[0] + down, at[1] + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
            found.append(piece)
        return found

    answers = pieces(drawn[1])
    expected = []
    for piece in pieces(drawn[0]):
        touching = set().union(*(answer for answer in answers if answer & piece))
        expected.append((len(piece), len(piece & touching) / len(piece | touching)))
    found = sorted((one.area_px, one.iou) for one in match_regions(drawn[0], drawn[1], 1))
    assert np.array(found) == pytest.approx(np.array(sorted(expected)))


def test_a_threshold_from_good_strips_keeps_its_promise() -> None:
    """5 in 1,000 new strips reach what is carried on from 1,000, within a factor of three; the interval holds it."""
    random = np.random.default_rng(3)

    def scores(count: int) -> np.ndarray:
        return 1 / (1 + np.exp(-random.normal(-3, 1, count)))

    true = float(1 / (1 + np.exp(3 - 2.5758)))  # the normal distribution's 99.5 %
    held = 0
    for _ in range(10):
        found = for_false_alarms(scores(1000).tolist(), 5)
        reached = float((scores(200_000) >= found.threshold).mean() * 1000)
        assert 5 / 3 <= reached <= 15
        held += found.low <= true <= found.high
    assert held >= 8


def test_a_rate_that_the_strips_cannot_show_is_said() -> None:
    """One in 1,000 from 50 strips is guessed from the tail, and says so; from 19 it is refused."""
    random = np.random.default_rng(4)
    assert "1000 good strips would show it" in for_false_alarms(random.uniform(0, 0.3, 50).tolist(), 1).warnings[0]
    with pytest.raises(ExportError, match="19 good strips are too few"):
        for_false_alarms([0.1] * 19, 1)
    assert for_false_alarms([0.1] * 50, 1).threshold == pytest.approx(0.1)


def test_a_threshold_for_a_recall_is_the_highest_that_has_it() -> None:
    """Of ten defective strips one may be missed at 0.9, none at 1."""
    scores = [n / 10 for n in range(1, 11)]
    assert for_recall(scores, 0.9).threshold == 0.2
    assert for_recall(scores, 1.0).threshold == 0.1
    with pytest.raises(ExportError, match="No strip has a defect"):
        for_recall([], 0.9)


def test_a_comparison_counts_what_becomes_right_and_what_becomes_wrong() -> None:
    """Each model's verdicts are those at its own threshold; the strip that becomes wrong stands first."""
    region = Region(0, 0, 4, 4, 16, 0.9, 1, 1)
    before = [
        outcome("missed.tif", 0.4, defective=True, defects=(Defect(16, 0.0),)),
        outcome("good.tif", 0.2),
        outcome("same.tif", 0.9, defective=True, regions=(region,), defects=(Defect(16, 0.9),)),
    ]
    after = [
        outcome("missed.tif", 0.5, defective=True, defects=(Defect(16, 0.5),), seconds=2.0),
        outcome("good.tif", 0.3, seconds=2.0),
        outcome("same.tif", 0.9, defective=True, regions=(region,), defects=(Defect(16, 0.05),), seconds=2.0),
    ]
    found = compare(before, after, (0.5, 0.3))
    change = found.change
    assert (change.flips, change.mended, change.broken) == (2, 1, 1)
    assert change.kinds == {"ok to anomalous": 2}
    assert (found.defects_won, found.defects_lost) == (1, 1)
    assert [pair.name for pair in found.pairs] == ["good.tif", "missed.tif", "same.tif"]
    assert found.time_ratio == 2
    assert [change.largest_shift, change.median_shift] == pytest.approx([0.1, 0.1])
