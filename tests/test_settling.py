"""When a file has settled, which names are strips, which old files the backlog rule skips."""

from __future__ import annotations

import fnmatch
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records import FileIdentity
from agent.settling import BacklogCutoff, Settling, compile_patterns

FIRST = FileIdentity(size_bytes=10, mtime_ns=1, ctime_ns=1)
GROWN = FileIdentity(size_bytes=11, mtime_ns=1, ctime_ns=1)
REWRITTEN = FileIdentity(size_bytes=10, mtime_ns=2, ctime_ns=1)
CHMODDED = FileIdentity(size_bytes=10, mtime_ns=1, ctime_ns=2)


def test_a_file_that_stands_still_settles_at_the_second_look() -> None:
    """One look is never enough; the second, settle_seconds later, is."""
    settling = Settling(0.5)
    assert settling.look("a", FIRST, 100.0) is None
    assert settling.look("a", FIRST, 100.4) is None
    assert settling.due(100.49, 9) == []
    assert settling.next_due() == 100.5
    assert settling.due(100.5, 9) == ["a"]
    settled = settling.look("a", FIRST, 100.5)
    assert settled is not None
    assert settled.identity == FIRST


@pytest.mark.parametrize("changed", [GROWN, REWRITTEN])
def test_any_change_of_size_or_mtime_starts_the_wait_again(changed: FileIdentity) -> None:
    """A file that is being written never settles before it has stood still for the whole time."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    assert settling.look("a", changed, 100.5) is None
    assert settling.look("a", changed, 100.9) is None
    assert settling.look("a", changed, 101.0) is not None


def test_a_ctime_that_changes_alone_does_not_delay_and_is_handed_on() -> None:
    """A chmod or a hard link is no write, but the identity that is handed out is the last one seen."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    settled = settling.look("a", CHMODDED, 100.5)
    assert settled is not None
    assert settled.identity == CHMODDED


def test_settle_seconds_zero_settles_at_once_but_still_looks_twice() -> None:
    """With 0 the second look may follow the first immediately."""
    settling = Settling(0.0)
    assert settling.look("a", FIRST, 100.0) is None
    assert settling.due(100.0, 9) == ["a"]
    assert settling.look("a", FIRST, 100.0) is not None


def test_a_file_that_vanishes_before_it_settled_is_counted_once() -> None:
    """Vanished candidates are a number in health; a path that never was a candidate is not."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    settling.look("a", None, 100.1)
    settling.look("a", None, 100.2)
    assert (len(settling), settling.vanished) == (0, 1)


def test_a_settled_file_stays_until_it_is_forgotten() -> None:
    """When handing it out fails, the next look settles it again."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0)
    assert settling.look("a", FIRST, 100.5) == settling.look("a", FIRST, 100.6)
    settling.forget("a")
    assert "a" not in settling


def test_live_files_come_before_the_backlog() -> None:
    """However long the backlog has been due, a live file that is due is looked at first."""
    settling = Settling(0.5)
    for number in range(50):
        settling.look(f"old{number}", FIRST, 100.0, backlog=True)
    settling.look("new", FIRST, 100.2)
    assert settling.due(200.0, 3) == ["new", "old0", "old1"]


@pytest.mark.parametrize("change", ["content", "event"])
def test_a_backlog_file_that_moves_is_a_live_one(change: str) -> None:
    """Somebody writes it now: it is neither skipped by the backlog rule nor served behind live strips."""
    settling = Settling(0.5)
    settling.look("a", FIRST, 100.0, backlog=True, skip=True)
    seen = GROWN if change == "content" else FIRST
    assert settling.look("a", seen, 100.3, hinted=change == "event") is None
    assert settling.backlog_waiting == 0
    settled = settling.look("a", seen, 100.8)
    assert settled is not None
    assert (settled.backlog, settled.skip) == (False, False)


looks = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([FIRST, GROWN, REWRITTEN, CHMODDED, None]),
        st.floats(0, 1),
        st.booleans(),
        st.booleans(),
    ),
    max_size=60,
)


@given(looks, st.sampled_from([0.0, 0.25, 0.5]))
def test_whatever_is_seen_settled_means_still_for_the_whole_time(
    steps: list[tuple[str, FileIdentity | None, float, bool, bool]], settle_seconds: float
) -> None:
    """A settled file showed the same size and mtime in every look of a stretch of at least settle_seconds."""
    settling = Settling(settle_seconds)
    still_since: dict[str, tuple[FileIdentity, float]] = {}
    now = 0.0
    for path, seen, pause, backlog, hinted in steps:
        now += pause
        before = still_since.get(path)
        settled = settling.look(path, seen, now, backlog=backlog, hinted=hinted)
        if seen is None:
            assert settled is None
            still_since.pop(path, None)
        elif before is None or not before[0].same_content_expected(seen):
            assert settled is None
            still_since[path] = (seen, now)
        elif settled is not None:
            assert now - before[1] >= settle_seconds - 1e-9
            assert settled.identity == seen
        assert set(still_since) == {path for path in "abc" if path in settling}


@given(looks)
def test_what_is_due_is_found_in_the_order_it_fell_due(
    steps: list[tuple[str, FileIdentity | None, float, bool, bool]],
) -> None:
    """`due` misses nothing, `next_due` is the earliest of all, and a limit takes the longest due of each lane."""
    settling = Settling(0.5)
    now = 0.0
    for path, seen, pause, backlog, hinted in steps:
        now += pause
        settling.look(path, seen, now, backlog=backlog, hinted=hinted)
        waiting = {**settling._live, **settling._backlog}
        assert settling.next_due() == min((one.due for one in waiting.values()), default=math.inf)
        due = settling.due(now, 9)
        assert set(due) == {name for name, one in waiting.items() if one.due <= now}
        assert due == sorted(due, key=lambda name: (waiting[name].backlog, waiting[name].due))
        assert settling.due(now, 1) == due[:1]


@given(st.lists(st.tuples(st.integers(0, 5), st.text("ab", max_size=3)), unique=True), st.integers(0, 6), st.randoms())
def test_backlog_keeps_exactly_the_newest(keys: list[tuple[int, str]], newest: int, order: object) -> None:
    """All but the N newest by (mtime, path) are skipped, in whatever order the scan finds them."""
    shuffled = list(keys)
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands over a random.Random
    cutoff = BacklogCutoff(newest)
    cutoff.count(shuffled)
    kept = {key for key in keys if not cutoff.skips(key)}
    assert kept == set(sorted(keys)[len(keys) - newest :] if newest < len(keys) else keys)


DEFAULT = ["**/*.tif", "**/*.tiff"]


@pytest.mark.parametrize(
    ("patterns", "path", "matches"),
    [
        (DEFAULT, "a.tif", True),
        (DEFAULT, "A.TIF", True),
        (DEFAULT, "2026/11/23/a.TiFf", True),
        (DEFAULT, "a.tif.tmp", False),
        (DEFAULT, "a.tifx", False),
        (DEFAULT, ".hidden/.a.tif", True),
        (DEFAULT, ".tif", True),
        (DEFAULT, "line\nbreak\n.tif", True),
        (DEFAULT, "a.tif\n", False),
        (DEFAULT, "100%*[x]?.tif", True),
        (DEFAULT, "bytes-\udcff\udc80.tif", True),
        (["*.tif"], "a.tif", True),
        (["*.tif"], "d/a.tif", False),
        (["d/*.tif"], "d/a.tif", True),
        (["d/*.tif"], "d/e/a.tif", False),
        (["d/**/a.tif"], "d/a.tif", True),
        (["d/**/a.tif"], "d/e/f/a.tif", True),
        (["d/**/a.tif"], "dd/a.tif", False),
        (["**/**/a.tif"], "x/a.tif", True),
        (["d/**"], "d/e/f", True),
        (["d/**"], "d", False),
        (["cam?/*"], "cam1/x", True),
        (["cam?/*"], "cam/x", False),
        (["cam[0-3]*/*"], "cam2b/x", True),
        (["cam[!0-3]/*"], "cam2/x", False),
        (["cam[!0-3]/*"], "cam7/x", True),
        (["a[+-9]b"], "a/b", False),
        (["a[!x]b"], "a/b", False),
        (["a[]x]b"], "a]b", True),
        (["a[b"], "a[b", True),
        (["a.b+c(d)^$|"], "a.b+c(d)^$|", True),
        (["a.b"], "axb", False),
        (["a**b"], "axxb", True),
        (["a**b"], "ax/xb", False),
        (["[&&--~~||]"], "~", True),
        (["strip\\*"], "strip\\7", True),
    ],
)
def test_patterns_decide_which_names_are_strips(patterns: list[str], path: str, matches: bool) -> None:
    """Globs mean what the documentation says; whatever stands in a name is only a name."""
    assert (compile_patterns(patterns).fullmatch(path) is not None) == matches


@pytest.mark.parametrize("pattern", ["/srv/*.tif", "a//b", "../*.tif", "./*.tif", "", "a/", "[z-a].tif"])
def test_a_pattern_that_can_never_match_is_refused(pattern: str) -> None:
    """The configuration's check names it instead of watching for nothing."""
    with pytest.raises(ValueError, match="pattern"):
        compile_patterns(["*.tif", pattern])


@given(st.text("aB.*?/", min_size=1, max_size=8), st.text("abB.", min_size=1, max_size=6))
def test_within_a_name_globs_mean_what_they_mean_in_a_shell(pattern: str, name: str) -> None:
    """Compared with the standard library's matcher, which knows no folders."""
    pattern = pattern.replace("/", "") or "*"
    if pattern in {".", "..", "**"}:
        return
    expected = fnmatch.fnmatchcase(name.lower(), pattern.lower())
    assert (compile_patterns([pattern]).fullmatch(name) is not None) == expected


def _reference(pattern: list[str], parts: list[str]) -> bool:
    """Match parts one by one, the slow and obvious way."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and len(pattern) > 1:
        return _reference(pattern[1:], parts) or (len(parts) > 1 and _reference(pattern, parts[1:]))
    if pattern == ["**"]:
        return len(parts) > 0
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _reference(pattern[1:], parts[1:])


@given(
    st.lists(st.sampled_from(["**", "*", "a", "b*"]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["a", "b", "bc", "**"]), min_size=1, max_size=5),
)
def test_two_stars_are_any_number_of_folders(pattern: list[str], parts: list[str]) -> None:
    """None included, wherever they stand."""
    matches = compile_patterns(["/".join(pattern)]).fullmatch("/".join(parts)) is not None
    assert matches == _reference(pattern, parts)


def test_records_stay_small() -> None:
    """Ten thousand candidates may wait at once: no instance dictionary."""
    settling = Settling(1.0)
    settling.look("a", FIRST, 0.0)
    candidate = settling.forget("a")
    assert candidate is not None
    assert not hasattr(candidate, "__dict__")


def test_a_file_that_is_being_moved_or_removed_is_no_strip() -> None:
    """A pattern that matches everything does not match what the agent has hidden."""
    everything = compile_patterns(["**/*"])
    assert everything.fullmatch("a/b.tif")
    assert everything.fullmatch("a.strip-agent-b/c")
    assert not everything.fullmatch(".strip-agent-0123456789abcdef")
    assert not everything.fullmatch("a/b/.strip-agent-0123456789abcdef")
