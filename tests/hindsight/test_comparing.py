"""What a second judgement says otherwise than a first one."""

from __future__ import annotations

import pytest

from agent.comparing import Verdict, Verdicts, change_of, change_rows, most_changed_first, verdict_at


def pair(before: float | None, after: float | None, *, defective: bool | None = None, name: str = "a") -> Verdicts:
    """Make what was said of one strip at a threshold of 0.5; None: it was not judged."""
    verdicts: list[Verdict] = ["invalid" if score is None else verdict_at(score, 0.5) for score in (before, after)]
    return Verdicts(name, (verdicts[0], verdicts[1]), (before, after), defective)


@pytest.mark.parametrize(
    ("before", "after", "defective", "expected"),
    [
        (0.4, 0.4, True, (False, False, False)),  # wrong before, wrong now: nothing flips
        (0.4, 0.5, True, (True, True, False)),
        (0.5, 0.4, True, (True, False, True)),
        (0.4, 0.5, False, (True, False, True)),
        (0.5, 0.4, None, (True, False, False)),  # nobody knows
        (0.5, None, True, (True, False, True)),  # what is not judged is not found
        (None, 0.5, True, (True, True, False)),
        (None, None, True, (False, False, False)),
    ],
)
def test_flips_are_told_apart_by_what_is_true(
    before: float | None, after: float | None, defective: bool | None, expected: tuple[bool, bool, bool]
) -> None:
    """A flip mends where it ends at the truth, breaks where it does not, and is only a flip where nobody knows."""
    found = pair(before, after, defective=defective)
    assert (found.flips, found.mends, found.breaks) == expected


def test_the_sum_of_changes() -> None:
    """Strips without two scores are counted and have no shift; the verdicts' changes are named by kind."""
    change = change_of([pair(0.1, 0.2), pair(0.4, 0.8), pair(0.9, 0.1), pair(None, 0.3), pair(0.2, None)])
    assert (change.strips, change.known, change.flips, change.flipped_share) == (5, 0, 4, 0.8)
    assert change.kinds == {"anomalous to ok": 1, "invalid to ok": 1, "ok to anomalous": 1, "ok to invalid": 1}
    assert change.median_shift == pytest.approx(0.1)
    assert change.largest_shift == pytest.approx(-0.8)
    assert ("verdicts that change", "4") in change_rows(change)


def test_without_any_score_there_is_no_shift() -> None:
    """Nothing is divided by nothing."""
    change = change_of([])
    assert (change.flipped_share, change.median_shift, change.largest_shift) == (0.0, None, None)
    assert change_rows(change) == [("strips", "0"), ("verdicts that change", "0")]


def test_what_becomes_wrong_stands_first() -> None:
    """Then the other flips, then the scores that changed most."""
    pairs = [
        pair(0.1, 0.3, name="shifted"),
        pair(0.1, 0.1, name="same"),
        pair(0.4, 0.6, defective=True, name="mended"),
        pair(0.45, 0.55, defective=False, name="broken"),
    ]
    assert [one.name for one in most_changed_first(pairs)] == ["broken", "mended", "shifted", "same"]
