"""The camera's folder itself: missing, made again, replaced, a link, unmounted."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.watching.folder import CHECK_SECONDS
from tests.helpers.programs import needs
from tests.watching.line import needs_root

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watching.line import Start


def test_folder_that_appears_later(root: Path, start: Start) -> None:
    """Missing at the start is a state; the first scan is when it appears, and then there are events."""
    line = start(root / "later" / "still")
    line.turn()
    assert line.state == "missing"
    assert "still" in line.watcher.status().detail
    assert not line.watcher.first_scan_done
    (root / "later" / "still").mkdir(parents=True)
    (root / "later" / "still" / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    assert line.handed_out[0].backlog
    line.ready()
    (root / "later" / "still" / "b.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif")
    assert line.state == "events"


@pytest.mark.parametrize("how", ["delete", "rename", "replace"])
def test_folder_deleted_or_replaced_and_made_again(root: Path, start: Start, how: str) -> None:
    """Watches belong to the old folder; files in the new one come by events all the same."""
    line = start(root).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    if how == "delete":
        shutil.rmtree(root)
        line.until(lambda: line.state == "missing")
        root.mkdir()
    elif how == "rename":
        root.rename(root.with_name("old"))
        line.until(lambda: line.state == "missing")
        root.mkdir()
    else:
        root.with_name("new").mkdir()
        root.rename(root.with_name("old"))
        root.with_name("new").rename(root)
    (root / "b.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif")
    scans = line.watcher._scans
    line.until(lambda: line.state == "events" and scans.full is None and not scans.wanted)
    (root / "c.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif", "c.tif")
    assert line.watcher.status().found_without_event <= 1


def test_files_that_wait_while_the_folder_is_away_are_not_called_vanished(root: Path, start: Start) -> None:
    """A share that drops out for a moment brings its files back."""
    now = [1000.0]
    line = start(root, settle_seconds=0.3, clock=lambda: now[0]).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: line.watcher.status().waiting == 1)
    root.rename(root.with_name("away"))
    now[0] += 0.3
    line.until(lambda: line.state == "missing")
    root.with_name("away").rename(root)
    now[0] += CHECK_SECONDS
    line.until_paths("a.tif")
    assert line.watcher.status().vanished_before_settle == 0


def test_a_file_where_the_folder_should_be(root: Path, start: Start) -> None:
    """Said, and survived."""
    line = start(root / "camera")
    (root / "camera").write_bytes(b"")
    line.turn()
    assert (line.state, "is not a folder" in line.watcher.status().detail) == ("missing", True)
    (root / "camera").unlink()
    (root / "camera").mkdir()
    line.until(lambda: line.state == "events")


def test_symlinked_folder_and_where_it_points_to_next(root: Path, tmp_path: Path, start: Start) -> None:
    """Events come through a link to the folder, and go on when the link is turned to another one."""
    (tmp_path / "link").symlink_to(root)
    line = start(tmp_path / "link").ready()
    (root / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    (tmp_path / "other").mkdir()
    (tmp_path / "turned").symlink_to("other")
    (tmp_path / "turned").rename(tmp_path / "link")
    line.until(lambda: line.watcher._folder.root == str(tmp_path / "other"))
    line.until(lambda: line.watcher._scans.full is None and not line.watcher._scans.wanted)
    (tmp_path / "other" / "b.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif")
    assert line.watcher.status().found_without_event == 0


def test_the_folder_that_a_link_leads_to_gets_another_name(root: Path, tmp_path: Path, start: Start) -> None:
    """It is the same folder, and its files are looked for where it is now."""
    (tmp_path / "link").symlink_to(root)
    line = start(tmp_path / "link").ready()
    root.rename(tmp_path / "renamed")
    (tmp_path / "turned").symlink_to("renamed")
    (tmp_path / "turned").rename(tmp_path / "link")
    line.until(lambda: line.watcher._folder.root == str(tmp_path / "renamed"))
    (tmp_path / "renamed" / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")


@needs("mount", "umount")
@pytest.mark.root
@needs_root
def test_mount_unmounted_and_mounted_again(root: Path, start: Start) -> None:
    """Also between two looks at the folder, when device and inode come back the same: nothing else would tell."""

    def mount() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)

    mount()
    try:
        line = start(root).ready()
        assert line.state == "events"
        expected = []
        for turn in range(3):
            subprocess.run(["umount", root], check=True)
            if turn == 2:
                line.turns(1.2)
            mount()
            (root / f"{turn}-first.tif").write_bytes(b"1")
            expected.append(f"{turn}-first.tif")
            line.until_paths(*expected)
            (root / f"{turn}-event.tif").write_bytes(b"1")
            expected.append(f"{turn}-event.tif")
            line.until_paths(*expected)
        line.watcher.close()
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)
