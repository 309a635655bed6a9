"""What the page on the box asks for costs the same whatever the ledger holds, and goes on where it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.clock import DAY_MS
from agent.ledger import Ledger, open_ledger, pages
from agent.ledger.pages import Filter
from tests.helpers.large_ledger import DAYS, fill_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 4000
SEQ_2000_MS = 1_700_000_000_000 + 2000 * (DAYS * DAY_MS // ROWS)  # when that result was committed
STEPS = 5_000  # of the machine inside SQLite; going through all rows takes 20,000 and more


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Open a ledger of some thousand results, a few of which are not ok; each three of them are one part's."""
    path: Path = tmp_path_factory.mktemp("pages") / "ledger.db"
    fill_ledger(path, ROWS)
    ledger = open_ledger(path)
    with ledger.database.transaction() as db:
        db.execute("UPDATE results SET verdict = 'anomalous' WHERE seq % 500 = 7")
        db.execute("UPDATE results SET verdict = 'invalid', reason = 'empty_file' WHERE seq = 11")
        db.execute("UPDATE outbox SET payload = CAST('{\"part_id\":\"P' || (seq / 3) || '\"}' AS BLOB)")
    yield ledger
    ledger.database.close()


def steps(ledger: Ledger, wanted: Filter, *, before: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return what is found, and about how many steps SQLite took for it."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 100

    with ledger.database.reading() as db:
        db.set_progress_handler(count, 100)
        try:
            top = before or ROWS + 1
            if wanted.until_ms is not None:
                top = pages._first_after(db, wanted.until_ms)
            found = pages._search(db, wanted, top, 50, older=True)
        finally:
            db.set_progress_handler(None, 0)
    return found.results, taken


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (Filter(), 50), (Filter(camera="top"), 50), (Filter(camera="side"), 0), (Filter(verdict="anomalous"), 8),
        (Filter(verdict="anomalous", camera="side"), 0), (Filter(verdict="invalid"), 1), (Filter(verdict="ok"), 50),
        (Filter(reason="empty_file"), 1), (Filter(reason="damaged_tiff"), 0), (Filter(part="P7"), 3),
        (Filter(part="P7", verdict="anomalous"), 0), (Filter(part="P"), 0),
        (Filter(until_ms=SEQ_2000_MS), 50),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_found_by_an_index(filled: Ledger, wanted: Filter, number: int) -> None:
    """However rare it is: nobody waits for a search through all rows."""
    results, taken = steps(filled, wanted)
    assert len(results) == number
    assert taken < STEPS


def test_a_time_is_where_the_list_begins(filled: Ledger) -> None:
    """The newest result up to then comes first."""
    assert filled.pages.older(Filter(until_ms=SEQ_2000_MS), None, 1).results[0]["seq"] == 2000
    assert filled.pages.older(Filter(until_ms=1), None, 1).results == []


def test_a_search_that_takes_too_long_says_how_far_it_came(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on from there, in both directions, and finds everything in the end."""
    monkeypatch.setattr(pages, "SEARCH_SECONDS", 0.0)
    monkeypatch.setattr(pages, "LOOKED_THROUGH", 100)
    found: list[int] = []
    before: int | None = None
    for _ in range(ROWS):
        part = filled.pages.older(Filter(verdict="invalid"), before, 50)
        found += [result["seq"] for result in part.results]
        before = part.looked_to
        if before is None:
            break
    assert found == [11]
    assert before is None
    after, found = 0, []
    for _ in range(ROWS):
        part = filled.pages.newer(Filter(verdict="anomalous"), after, 50)
        found += [result["seq"] for result in part.results]
        if part.looked_to is None:
            break
        after = part.looked_to
    assert found == [number for number in range(1, ROWS + 1) if number % 500 == 7]


def test_a_search_that_took_long_and_is_through_has_no_further_page(
    filled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is led to a page on which there can be nothing."""
    monkeypatch.setattr(pages, "SEARCH_SECONDS", -1.0)
    assert filled.pages.older(Filter(camera="top"), 30, 50).looked_to is None
    assert filled.pages.newer(Filter(camera="top"), ROWS - 30, 50).looked_to is None


def test_neighbours_are_the_nearest(filled: Ledger) -> None:
    """One in each direction, by the same filter."""
    assert [filled.pages.newer(Filter(), 2000, 1).results[0]["seq"]] == [2001]
    assert [filled.pages.older(Filter(), 2000, 1).results[0]["seq"]] == [1999]
    assert filled.pages.newer(Filter(), ROWS, 1).results == []
    assert filled.pages.newer(Filter(verdict="anomalous"), 8, 1).results[0]["seq"] == 507
    assert [one["seq"] for one in filled.pages.newest("top", 3)] == [ROWS, ROWS - 1, ROWS - 2]
