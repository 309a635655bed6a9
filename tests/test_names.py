"""Which names are strips, and in what order they come."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.names import DEFAULT_IGNORE, StripNames, compile_ignored, compile_patterns, natural_key

# The order of names

file_names = st.binary(min_size=1, max_size=12).map(lambda name: os.fsdecode(name.replace(b"\0", b"0")))
numbered_names = st.text("a09_1/.", min_size=1, max_size=12)


@pytest.mark.parametrize(
    "ordered",
    [
        ["img_8", "img_9", "img_10", "img_11", "img_100"],
        ["img_8.tif", "img_9.tif", "img_10.tif"],
        ["2/10.tif", "10/9.tif"],
        ["0", "00", "01", "1", "2"],
        ["img", "img1", "img1a", "img2", "imga"],
        ["strip-99999999999999999999", "strip-100000000000000000000"],
        ["20261125-9-2", "20261125-9-10", "20261125-10-1"],
    ],
)
def test_names_order_as_people_count(ordered: list[str]) -> None:
    """A camera that counts without leading zeros has its strips in the order that it made them."""
    found = ordered[::-1]
    assert sorted(found, key=natural_key) == ordered


def _slow_order(path: str) -> tuple[list[tuple[int, int | bytes]], bytes]:
    """Compare numbers as numbers, piece by piece: the obvious way, for names in which they stand in the same places."""
    name = os.fsencode(path)
    pieces = [piece for piece in re.split(rb"([0-9]+)", name) if piece]
    return [(1, int(piece)) if piece.isdigit() else (0, piece) for piece in pieces], name


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3), st.integers(0, 120)), max_size=8))
def test_numbers_count_wherever_they_stand(parts: list[tuple[int, int, int]]) -> None:
    """In folders and names, with zeros in front and without."""
    paths = [f"day{day}/cam{'0' * zeros}{strip}.tif" for day, zeros, strip in parts]
    assert sorted(paths, key=natural_key) == sorted(paths, key=_slow_order)


@given(st.lists(st.one_of(file_names, numbered_names), unique=True, max_size=12))
def test_the_order_of_names_has_no_ties_and_is_the_same_in_the_ledger(paths: list[str]) -> None:
    """Whatever bytes a name has; SQLite orders the keys as Python does."""
    keys = [natural_key(path) for path in paths]
    assert len(set(keys)) == len(paths)
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE TABLE names (key BLOB)")
        database.executemany("INSERT INTO names VALUES (?)", [(key,) for key in keys])
        stored = [key for (key,) in database.execute("SELECT key FROM names ORDER BY key")]
    finally:
        database.close()
    assert stored == sorted(keys)


# Patterns

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


def test_a_file_that_is_being_moved_or_removed_is_no_strip() -> None:
    """A pattern that matches everything does not match what the agent has hidden."""
    everything = compile_patterns(["**/*"])
    assert everything.fullmatch("a/b.tif")
    assert everything.fullmatch("a.strip-agent-b/c")
    assert not everything.fullmatch(".strip-agent-0123456789abcdef")
    assert not everything.fullmatch("a/b/.strip-agent-0123456789abcdef")


# What is passed over

PUT_BESIDE = [
    "._x.tif", ".x.tif", ".x.tif.AbC123", ".syncthing.x.tif.tmp", ".smbdelete1a2b.tif", ".fuse_hidden0001.tif",
    ".nfs000000000001.tif", ".goutputstream-X1.tif", ".in.x.tif.", "~$x.tif", "~syncthing~x.tif.tmp", "x.tif.part",
    "x.tif.filepart", "x.tif.partial", "x.tif.tmp", "Thumbs.db", "THUMBS.DB", "desktop.ini", ".DS_Store",
]  # fmt: skip
FOLDERS_PUT_BESIDE = [
    "@eaDir", "@EADIR", ".@__thumb", "#recycle", "#Recycle", "@Recycle", "#snapshot", "$RECYCLE.BIN", "$Recycle.Bin",
    "RECYCLER", ".Trash", ".Trash-0", ".Trash-1000", ".Trashes", ".stversions", ".stfolder", ".~tmp~", ".rsync-partial",
    "System Volume Information", "lost+found", ".snapshot", ".snapshots", ".zfs", "~snapshot", "__MACOSX",
    "Network Trash Folder", "Temporary Items", ".AppleDouble", ".sync", "FOUND.000",
]  # fmt: skip
DEFAULT_NAMES = StripNames.of(["**"], DEFAULT_IGNORE)


@pytest.mark.parametrize("name", [*PUT_BESIDE, *FOLDERS_PUT_BESIDE])
def test_what_others_put_beside_strips_is_passed_over(name: str) -> None:
    """At any depth, in upper case and lower case: by default, without a word in the configuration."""
    for path in (name, f"2026/11/{name}", name.lower(), name.upper()):
        assert DEFAULT_NAMES.passes_over(path, is_folder=name in FOLDERS_PUT_BESIDE), path


@pytest.mark.parametrize(
    "name",
    [
        "x.tif", "X.TIF", "x.y.tif", "#1.tif", "@a.tif", "~a.tif", "$1.tif", "recycle.tif", "part.tif", "tmp.tif",
        "_x.tif", "x.tmp.tif", "Thumbs.db.tif", "eaDir.tif", "x (conflicted copy).tif", "x.sync-conflict-20261125.tif",
    ],
)  # fmt: skip
def test_what_only_looks_alike_is_a_strip(name: str) -> None:
    """No strip is lost: a file is passed over for its own name alone, and a name of a folder counts for folders."""
    for path in (name, f"2026/{name}", f"tmp/{name}"):
        assert not DEFAULT_NAMES.passes_over(path, is_folder=False), path
        assert DEFAULT_NAMES.is_strip(path)
    for folder in ("2026", "11", "lot 7", "tmp", "part", "recycle", "snapshot", "found.0", "eaDir", "System"):
        assert not DEFAULT_NAMES.passes_over(folder, is_folder=True), folder
    for file in ("@eaDir", "#recycle", "lost+found"):
        assert not DEFAULT_NAMES.passes_over(file, is_folder=False), file


@pytest.mark.parametrize(
    ("entry", "path", "is_folder", "passed_over"),
    [
        ("calib", "calib", True, True),
        ("calib", "a/calib", False, True),
        ("calib/", "a/calib", True, True),
        ("calib/", "a/calib", False, False),
        ("calib/*.tif", "calib/x.tif", False, True),
        ("calib/*.tif", "a/calib/x.tif", False, False),
        ("**/calib/*.tif", "a/calib/x.tif", False, True),
        ("a/calib/", "a/calib", True, True),
        ("a/calib/", "b/a/calib", True, False),
        ("test-*", "TEST-1.tif", False, True),
        ("test-*", "a-test-1.tif", False, False),
        ("x.tif", "x.tif\n", False, False),
        ("*", "\udcff", False, True),
    ],
)
def test_an_entry_is_a_name_anywhere_or_a_path(entry: str, path: str, is_folder: bool, passed_over: bool) -> None:
    """A slash inside makes it a path, a slash at the end leaves only folders."""
    assert StripNames.of(["**"], [entry]).passes_over(path, is_folder=is_folder) == passed_over


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("**/*_*_*_*_*_*_*_*.tif", "_" * 251 + ".tiff"),
        ("**/*a?*a?*a?*[a-c]*a?*a?.tif", "a" * 250),
        ("**/a/**/b*/**/*c/**/a/**/b*/**/*.tif", "a/b/c/" * 600 + "x"),
    ],
)
def test_no_name_takes_long_to_compare(pattern: str, path: str) -> None:
    """Some stars and a name made for it would stop the whole service for hours, at each scan."""
    names = StripNames.of([pattern], [pattern, pattern.removeprefix("**/")])
    assert not names.is_strip(path)
    assert not names.passes_over(path, is_folder=False)


@pytest.mark.parametrize("entry", ["", "/", ".", "..", "**", "../x", "a//b", "/abs", "a/./b", "[z-a]"])
def test_an_entry_that_can_never_match_is_refused(entry: str) -> None:
    """The configuration's check names it."""
    with pytest.raises(ValueError, match=r"ignore|pattern"):
        compile_ignored([entry])


def test_an_empty_list_passes_over_nothing_but_what_the_agent_hides() -> None:
    """Whoever replaces the list has only their own."""
    names = StripNames.of(["**"], [])
    assert not names.passes_over(".hidden.tif", is_folder=False)
    assert not names.passes_over("@eaDir", is_folder=True)
    assert names.is_strip(".hidden.tif")
    assert not names.is_strip(".strip-agent-0123456789abcdef")


@given(
    st.lists(st.text("aB.*?", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("abB.", min_size=1, max_size=4), min_size=1, max_size=3),
    st.booleans(),
)
def test_names_are_passed_over_as_a_shell_matches_them(
    entries: list[str], parts: list[str], only_folders: bool
) -> None:
    """Compared with the standard library's matcher: the last name of the path decides, whatever is above it."""
    entries = [entry for entry in entries if entry not in {".", "..", "**"}]
    written = [f"{entry}/" if only_folders else entry for entry in entries]
    names = StripNames.of(["**"], written)
    matches = any(fnmatch.fnmatchcase(parts[-1].lower(), entry.lower()) for entry in entries)
    path = "/".join(parts)
    assert names.passes_over(path, is_folder=True) == matches
    assert names.passes_over(path, is_folder=False) == (matches and not only_folders)


@given(st.text("aZ09.*?/[]!-^\\&~|#\n$({", max_size=12))
def test_any_text_is_a_pattern_or_is_refused(text: str) -> None:
    """Nothing that somebody writes ends the service with an error of the regular expressions' own."""
    for compiled in (compile_patterns, compile_ignored):
        with contextlib.suppress(ValueError):
            compiled([text])
