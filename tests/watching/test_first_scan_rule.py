"""What the first scan calls backlog and what the backlog rule skips, without files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.names import natural_key
from agent.records import FileIdentity
from agent.watching.first_scan import FirstScan

Files = dict[str, FileIdentity]

files = st.dictionaries(
    st.from_regex(r"img_[0-9]{1,2}", fullmatch=True),
    st.builds(FileIdentity, st.just(1), st.integers(0, 3), st.just(1)),
    max_size=8,
)


def read_first(first: FirstScan, found: Files) -> dict[str, tuple[bool, bool]]:
    """Do the passes that are asked for over these files; return the lane of each in the first scan itself."""
    first.scan_begins()
    if first.counting:
        first.count(found.items())
        assert first.scan_ended(failed=False)
        first.scan_begins()
    assert not first.counting
    lanes = {path: first.lane(path, seen) for path, seen in found.items()}
    assert not first.scan_ended(failed=False)
    assert first.read
    return lanes


@given(files, st.one_of(st.sampled_from(["all", "none"]), st.integers(0, 9)), st.data())
def test_the_newest_are_scored_and_what_arrives_meanwhile_is_live(
    found: Files, rule: str | int, data: st.DataObject
) -> None:
    """Newest by time, within one time by the order that people count in; `img_10` is newer than `img_9`."""
    arrived = data.draw(st.sets(st.sampled_from(sorted(found)))) if found else set()
    first = FirstScan(rule, ever=True)
    for path in arrived:
        first.arrived(path)
    lanes = read_first(first, found)
    by_age = sorted(set(found) - arrived, key=lambda path: (found[path].mtime_ns, natural_key(path)))
    kept = {"all": len(found), "none": 0}[rule] if isinstance(rule, str) else rule
    scored = by_age[max(0, len(by_age) - kept) :]
    assert lanes == {path: (path not in arrived, path not in arrived and path not in scored) for path in found}
    assert all(first.lane(path, seen) == (False, False) for path, seen in found.items())


@given(files, st.integers(0, 9))
def test_the_rule_is_for_the_first_scan_ever(found: Files, rule: int) -> None:
    """Later runs have a backlog, and score all of it; they need no pass that counts."""
    first = FirstScan(rule, ever=False)
    first.scan_begins()
    assert not first.counting
    assert set(read_first(first, found).values()) <= {(True, False)}


@pytest.mark.parametrize("entered", [False, True])
def test_a_folder_that_takes_the_place_of_the_counted_one_is_counted_anew(entered: bool) -> None:
    """An empty mount point was counted, then the share was mounted: its old files are not all among the newest."""
    first = FirstScan(1, ever=True)
    first.scan_begins()
    first.count([])
    assert first.scan_ended(failed=False)
    if entered:
        first.folder_entered()
    share = {f"img_{number}": FileIdentity(1, number, 1) for number in range(5)}
    skipped = [path for path, (_, skip) in read_first(first, share).items() if skip]
    assert skipped == ([f"img_{number}" for number in range(4)] if entered else [])


def test_a_count_that_failed_is_done_again() -> None:
    """Half of a count would keep files that are not among the newest."""
    first = FirstScan(1, ever=True)
    old, new = {"img_1": FileIdentity(1, 1, 1)}, {"img_2": FileIdentity(1, 2, 1)}
    first.scan_begins()
    first.count(old.items())
    assert not first.scan_ended(failed=True)
    lanes = read_first(first, old | new)
    assert lanes == {"img_1": (True, True), "img_2": (True, False)}
