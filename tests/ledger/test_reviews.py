"""What people say about strips: nothing said is lost while the strip is there, and the last word of a person counts."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from agent.ledger import Ledger, NewResult, NewReview, Review, open_ledger
from agent.ledger.reviews import MAX_REVIEWS, Finding, ReviewCount
from agent.ledger.strips import LIVE, RETRIED
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A, B = "aa" * 32, "bb" * 32
TOPIC = "event/review"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def judge(ledger: Ledger, name: str, verdict: str = "anomalous", model: str = A, lane: int = LIVE) -> int:
    """Bring a strip to a result; return its row."""
    ledger.strips.begin([SettledFile("top", name, FileIdentity(10, 1, 1))])
    strip = ledger.strips.next_waiting("top", lane, ())
    assert strip is not None
    result = NewResult(verdict, "", 0.7, model, 0, "d", "event/strip/top", dispose=False)
    ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
    return strip.row


def say(ledger: Ledger, strip: int, finding: Finding, person: str = "Lin", revision: int | None = None) -> Review:
    """Review a strip."""

    def payload(review: Review, result: dict[str, Any], replaces: bool, msg_id: str) -> bytes:
        told = {"said": review.finding, "seq": result.get("seq"), "replaces": replaces, "msg_id": msg_id}
        return json.dumps(told).encode()

    return ledger.reviews.add(NewReview(strip, finding, person, "a remark", "tester", revision), TOPIC, payload, 10**6)


def events(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the reviews that wait for the broker."""
    waiting = ledger.outbox.next_outbox_messages(0, 1000)
    return [json.loads(message.payload) for message in waiting if message.topic == TOPIC]


def counts(ledger: Ledger) -> set[tuple[str, str, str, int]]:
    """Return what is counted."""
    return {(count.model_sha256, count.verdict, count.finding, count.number) for count in ledger.reviews.counts()}


def test_a_later_review_of_the_same_person_replaces_the_earlier_one_in_the_counts(ledger: Ledger) -> None:
    """Who corrects himself is counted once, however he writes his name; what he said before stays in the history."""
    strip = judge(ledger, "1.tif")
    say(ledger, strip, "defect")
    say(ledger, strip, "no_defect", "lin")
    say(ledger, strip, "defect", "Chen")
    assert counts(ledger) == {(A, "anomalous", "no_defect", 1), (A, "anomalous", "defect", 1)}
    history = ledger.reviews.of_strip(strip)
    assert [(review.person, review.finding, review.replaced) for review in history] == [
        ("Lin", "defect", True),
        ("lin", "no_defect", False),
        ("Chen", "defect", False),
    ]
    assert [event["replaces"] for event in events(ledger)] == [False, True, False]


def test_a_review_never_changes_a_result(ledger: Ledger) -> None:
    """Strip, result, its message and the audit stay as they are."""
    strip = judge(ledger, "1.tif")
    (strip_id,) = (row["strip_id"] for row in ledger.report.list_strips(state=None, camera=None, limit=1))
    before = ledger.report.show_strip(strip_id)
    say(ledger, strip, "no_defect")
    assert ledger.report.show_strip(strip_id) == before
    assert ledger.report.audit().balanced


def test_a_review_counts_for_the_model_whose_result_it_is_about(ledger: Ledger) -> None:
    """Of several results the newest is meant, unless the person saw another one."""
    strip = judge(ledger, "1.tif", "ok", A)
    ledger.strips.retry([strip])
    judge(ledger, "1.tif", "anomalous", B, RETRIED)
    newest, first = say(ledger, strip, "defect", "Lin"), say(ledger, strip, "defect", "Chen", revision=1)
    assert (newest.revision, newest.verdict, newest.model_sha256) == (2, "anomalous", B)
    assert (first.revision, first.verdict, first.model_sha256) == (1, "ok", A)
    assert counts(ledger) == {(B, "anomalous", "defect", 1), (A, "ok", "defect", 1)}
    assert [event["seq"] for event in events(ledger)] == [2, 1]
    with pytest.raises(LookupError, match="no result of revision 3"):
        say(ledger, strip, "defect", revision=3)


def test_a_strip_without_a_result_can_be_reviewed(ledger: Ledger) -> None:
    """People may know of a defect before the box does; no model is blamed for it."""
    ledger.strips.begin([SettledFile("top", "waits.tif", FileIdentity(10, 1, 1))])
    review = say(ledger, 1, "defect")
    assert (review.revision, review.verdict, review.model_sha256) == (0, "", "")
    assert counts(ledger) == {("", "", "defect", 1)}
    with pytest.raises(LookupError, match="no such strip"):
        say(ledger, 2, "defect")


def test_the_last_word_on_each_strip_is_listed_since_a_time_and_in_parts(ledger: Ledger) -> None:
    """Who collects strips for training asks again with where he was."""
    strips = [judge(ledger, f"{number}.tif") for number in range(3)]
    for strip in strips:
        say(ledger, strip, "unsure")
    say(ledger, strips[0], "defect", "Chen")
    latest = ledger.reviews.latest()
    assert [(review.strip, review.finding) for review in latest] == [
        (strips[1], "unsure"),
        (strips[2], "unsure"),
        (strips[0], "defect"),
    ]
    assert ledger.reviews.latest(after_row=latest[1].row) == latest[2:]
    assert ledger.reviews.latest(limit=1) == latest[:1]
    assert ledger.reviews.latest(since_ms=latest[-1].reviewed_ms + 1) == []
    assert len(ledger.reviews.since()) == 4
    assert latest[2].path == "0.tif"


def test_reviews_go_with_their_strip_and_the_models_counts_stay(ledger: Ledger) -> None:
    """What a model did wrong is not forgotten with the old rows."""
    strip = judge(ledger, "1.tif")
    say(ledger, strip, "no_defect")
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 10)])
    ledger.purge.forget([strip])
    assert ledger.reviews.of_strip(strip) == []
    assert ledger.reviews.since() == []
    assert ledger.reviews.counts() == [ReviewCount(A, "anomalous", "no_defect", 1)]
    assert ledger.report.audit().balanced


def test_nobody_can_fill_the_disk_with_reviews(ledger: Ledger) -> None:
    """A strip takes only so many, and one too many changes nothing."""
    strip = judge(ledger, "1.tif")
    for _ in range(MAX_REVIEWS):
        say(ledger, strip, "defect")
    before = counts(ledger)
    with pytest.raises(LookupError, match="no more are taken"):
        say(ledger, strip, "no_defect")
    assert counts(ledger) == before == {(A, "anomalous", "defect", 1)}
    assert len(events(ledger)) == MAX_REVIEWS


def test_reviews_outlive_a_damaged_ledger(tmp_path: Path) -> None:
    """What people said is brought over with the strips, and counted again."""
    path = tmp_path / "ledger.db"
    old = open_ledger(path)
    strips = [judge(old, f"{number}.tif") for number in range(2)]
    said = [say(old, strips[0], "defect"), say(old, strips[0], "no_defect"), say(old, strips[1], "unsure")]
    before, history = counts(old), old.reviews.since()
    old.database.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE meta")
    db.close()
    new = open_ledger(path)
    try:
        assert new.database.set_aside is not None
        assert counts(new) == before
        assert new.reviews.since() == history
        assert len(history) == len(said)
        say(new, strips[1], "defect")  # goes on with new numbers
        assert counts(new) == {(A, "anomalous", "no_defect", 1), (A, "anomalous", "defect", 1)}
    finally:
        new.database.close()
