"""What NAS, desktops and copying tools put beside strips: passed over, counted, never handed out."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.watching.line import watched_folders

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watching.line import Start

BESIDE = ["._a.tif", ".~tmp~/a.tif", "@eaDir/a.tif/SYNOPHOTO_THUMB.tif", "#recycle/a.tif", "day/.stversions/a.tif",
          "day/@EADIR/a.tif", "$RECYCLE.BIN/S-1/a.tif", ".Trash-1000/files/a.tif", "~$a.tif"]  # fmt: skip
NAMES_PASSED_OVER = 9

needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")


def _write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"1")


@pytest.mark.parametrize("watch", ["events", "poll"])
def test_what_others_put_beside_strips_is_passed_over_and_counted(root: Path, start: Start, watch: str) -> None:
    """There before the start or arriving later, found by a scan or by an event: only the strip is handed out."""
    _write(root, *BESIDE)
    line = start(root, watch=watch, rescan_seconds=0.3).ready()
    assert line.watcher.status().ignored_last_scan == NAMES_PASSED_OVER
    shutil.rmtree(root)
    root.mkdir()
    _write(root, *BESIDE)
    _write(root, "day/a.tif")
    line.until_paths("day/a.tif")
    line.until(lambda: line.watcher.status().ignored_last_scan == NAMES_PASSED_OVER)
    assert line.paths == ["day/a.tif"]
    shutil.rmtree(root / "@eaDir")
    line.until(lambda: line.watcher.status().ignored_last_scan == NAMES_PASSED_OVER - 1)


def test_folders_that_are_passed_over_are_neither_read_nor_listened_to(root: Path, start: Start) -> None:
    """A recycle bin may be larger than all the rest, and a thumbnailer busier."""
    _write(root, "#recycle/deep/a.tif", "day/a.tif")
    line = start(root).ready()
    (root / "@eaDir").mkdir()
    (root / "#recycle" / "new").mkdir()
    (root / "night").mkdir()
    line.until(lambda: "night" in watched_folders(line))
    line.watcher.request_scan()
    _write(root, "last.tif")
    line.until_paths("day/a.tif", "last.tif")
    assert watched_folders(line) == {"", "day", "night"}
    assert line.watcher.status().files_seen_last_scan <= 2


def test_a_folder_that_loses_its_hidden_name_is_read_and_one_that_gets_one_is_left(root: Path, start: Start) -> None:
    """Written under a hidden name and renamed when it is complete, as careful copiers do; and thrown away again."""
    line = start(root).ready()
    _write(root, ".lot/a.tif", ".lot/sub/b.tif")
    (root / ".lot").rename(root / "lot")
    line.until_paths("lot/a.tif", "lot/sub/b.tif")
    line.until(lambda: watched_folders(line) == {"", "lot", "lot/sub"})
    (root / "lot").rename(root / ".lot")
    line.until(lambda: watched_folders(line) == {""})
    _write(root, ".lot/c.tif", "d.tif")
    line.until_paths("lot/a.tif", "lot/sub/b.tif", "d.tif")


def test_a_list_of_ones_own(root: Path, start: Start) -> None:
    """It replaces the default: hidden files are strips then, and what it names is not."""
    _write(root, ".hidden.tif", "calibration/a.tif", "a.tif")
    line = start(root, ignore=["Calibration/"]).ready()
    line.until_paths(".hidden.tif", "a.tif")
    assert line.watcher.status().ignored_last_scan == 1


@needs_rsync
@pytest.mark.parametrize(
    "options",
    [
        ["--delay-updates"],
        ["--delay-updates", "--partial-dir=.rsync-partial"],
        ["--partial-dir=.rsync-partial"],
        [],
    ],
    ids=lambda options: " ".join(options) or "plain",
)
@pytest.mark.parametrize("watch", ["events", "poll"])
def test_a_strip_that_rsync_brings_is_one_strip(
    root: Path, tmp_path: Path, start: Start, watch: str, options: list[str]
) -> None:
    """While rsync holds complete files back in `.~tmp~`, they stand still there longer than settle_seconds."""
    names = [f"{number}.tif" for number in range(4)]
    (tmp_path / "source" / "day").mkdir(parents=True)
    for name in names:
        (tmp_path / "source" / "day" / name).write_bytes(os.urandom(120_000))
    line = start(root, watch=watch, rescan_seconds=0.1).ready()
    command = ["rsync", "--recursive", "--times", "--bwlimit=400", *options, f"{tmp_path}/source/", f"{root}/"]
    with subprocess.Popen(command) as rsync:
        line.until(lambda: rsync.poll() is not None)
    assert rsync.returncode == 0
    paths = [f"day/{name}" for name in names]
    line.until_paths(*paths)
    line.watcher.request_scan()
    line.turns(0.3)
    assert sorted(line.paths) == paths
