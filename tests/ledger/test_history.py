"""Looking back: what was said of strips, in pages, by what it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.ledger import Choice, Ledger, NewResult, NewReview, history, open_ledger
from agent.ledger.shadow import Opinion
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.ledger.reviews import Finding

SCORES = {"low.tif": 0.1, "under.tif": 0.45, "over.tif": 0.52, "high.tif": 0.9, "bad.tif": -1.0}
THRESHOLD = 0.5


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a ledger with one strip for each of SCORES; what a shadow and people say of some of them."""
    opened = open_ledger(tmp_path / "ledger.db")
    opened.strips.begin([SettledFile("top", name, FileIdentity(10, at, 1)) for at, name in enumerate(SCORES)])
    for _ in SCORES:
        judge(opened)
    findings: list[tuple[int, Finding]] = [(1, "no_defect"), (1, "unsure"), (2, "defect")]
    for row, finding in findings:
        review = NewReview(row, finding, "ann", "", "root")
        opened.reviews.add(review, "event/review", lambda *_: b"{}", 100)
    published = {one.strip.path: one for one in opened.shadow.published(["top"], 0, 100, 100)}
    opinions = [
        Opinion(published["low.tif"], "ok", 0.2, 0.5, 1.0),
        Opinion(published["high.tif"], "ok", 0.3, 0.5, 1.0),
    ]
    opened.shadow.record("default", "ab", 100, opinions, {})
    yield opened
    opened.database.close()


def judge(ledger: Ledger) -> None:
    """Commit a result of the next strip."""
    strip = ledger.strips.next_waiting("top", 0, ()) or ledger.strips.next_waiting("top", 2, ())
    assert strip is not None
    score = SCORES[strip.path]
    verdict = "invalid" if score < 0 else "anomalous" if score >= THRESHOLD else "ok"
    result = NewResult(verdict, "unreadable" if score < 0 else "", score, "m", 0, "d", "event/strip/top", dispose=False)
    message = json.dumps({"threshold": THRESHOLD, "file": strip.path, "model_id": "net"}).encode()
    ledger.strips.commit(strip, result, lambda *_: message, 1_000_000)


def files(ledger: Ledger, choice: Choice, **more: Any) -> list[str]:
    """Name what is chosen, in order."""
    usual: dict[str, Any] = {"cameras": ["top"], "since_ms": 0, "before_row": None, "limit": 100}
    return [one.file for one in ledger.history.said(choice, **usual | more)[0]]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), ["bad.tif", "high.tif", "over.tif", "under.tif", "low.tif"]),
        (Choice(verdicts=("anomalous",)), ["high.tif", "over.tif"]),
        (Choice(reviewed=True), ["under.tif", "low.tif"]),
        (Choice(near=0.05 + 1e-9), ["over.tif", "under.tif"]),
        (Choice(near=0.0), []),
        (Choice(disagreeing=True), ["high.tif"]),
        (Choice(verdicts=("invalid",), near=0.03), ["bad.tif", "over.tif"]),
    ],
)
def test_strips_are_chosen_by_any_of_what_is_asked(ledger: Ledger, choice: Choice, expected: list[str]) -> None:
    """The newest first; what is asked twice for comes once."""
    assert files(ledger, choice) == expected
    assert files(ledger, choice, cameras=["side"]) == []


def test_what_people_and_a_shadow_said_comes_with_it(ledger: Ledger) -> None:
    """The last word, of a result of that revision; a shadow's verdict where it is another one."""
    found = {one.file: one for one in ledger.history.said(
        Choice(), cameras=["top"], since_ms=0, before_row=None, limit=9)[0]}  # fmt: skip
    assert (found["low.tif"].finding, found["low.tif"].found_at_revision) == ("unsure", 1)
    assert (found["high.tif"].shadow_verdict, found["high.tif"].shadow_score) == ("ok", 0.3)
    assert (found["low.tif"].shadow_verdict, found["over.tif"].finding) == ("", "")
    assert (found["over.tif"].threshold, found["over.tif"].model_id) == (0.5, "net")


def test_pages_follow_each_other_to_the_end(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, and by the rows that are looked at in one go, which may hold nothing that is wanted."""
    for scanned, limit in ((50_000, 2), (2, 100)):
        monkeypatch.setattr(history, "SCANNED_AT_ONCE", scanned)
        seen: list[str] = []
        before: int | None = None
        for _ in range(10):
            page, before = ledger.history.said(Choice(), cameras=["top"], since_ms=0, before_row=before, limit=limit)
            seen += [one.file for one in page]
            if before is None:
                break
        assert seen == [*reversed(SCORES)]


def test_a_strip_counts_once_by_its_newest_result(ledger: Ledger) -> None:
    """While it waits to be judged again nothing is said of it; then the new result is."""
    assert ledger.strips.retry([3]) == {}
    assert "over.tif" not in files(ledger, Choice())
    judge(ledger)
    [again] = [one for one in ledger.history.said(
        Choice(), cameras=["top"], since_ms=0, before_row=None, limit=9)[0] if one.file == "over.tif"]  # fmt: skip
    assert again.revision == 2
