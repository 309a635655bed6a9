"""Links below a camera's folder: none is followed, and those to folders elsewhere are named."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.names import StripNames
from agent.watching import links
from agent.watching.links import MAX_LINKS, LinkedFolders, open_folder, stat_below
from agent.watching.scan import Scan
from tests.watching.line import DEADLINE_SECONDS, descriptors, watched_folders

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watching.line import Line, Start


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return a folder outside of the camera's, with a strip in it."""
    folder = tmp_path / "elsewhere"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "behind.tif").write_bytes(b"1")
    return folder


def named(line: Line) -> set[str]:
    """Return the linked folders that the status names."""
    return set(line.watcher.status().linked_folders)


def test_a_linked_subfolder_is_named_and_not_followed(root: Path, elsewhere: Path, start: Start) -> None:
    """Nothing behind it is handed out or listened to, and whoever asks is told which it is."""
    (root / "day").mkdir()
    (root / "day" / "a.tif").write_bytes(b"1")
    (root / "linked").symlink_to(elsewhere)
    (root / "day" / "deeper").symlink_to("../../elsewhere/sub")
    line = start(root, rescan_seconds=0.2).ready()
    line.turns(0.5)
    assert line.paths == ["day/a.tif"]
    line.until(lambda: named(line) == {"linked", "day/deeper"})
    assert watched_folders(line) == {"", "day"}


def test_a_linked_subfolder_that_appears_later_and_goes_again(root: Path, elsewhere: Path, start: Start) -> None:
    """By the next full scan; a folder that takes its place is read."""
    line = start(root, rescan_seconds=0.2).ready()
    assert named(line) == set()
    (root / "day").symlink_to(elsewhere)
    line.until(lambda: named(line) == {"day"})
    (root / "day").unlink()
    line.until(lambda: named(line) == set())
    (root / "day").symlink_to(elsewhere)
    line.until(lambda: named(line) == {"day"})
    (root / "day").unlink()
    (root / "day").mkdir()
    (root / "day" / "a.tif").write_bytes(b"1")
    line.until_paths("day/a.tif")
    line.until(lambda: named(line) == set())


def test_links_that_hide_nothing_are_not_named(root: Path, elsewhere: Path, start: Start) -> None:
    """To files, to nothing, in circles, to a folder of the same camera, and those that the camera's list names."""
    (root / "day").mkdir()
    (root / "readme").symlink_to(elsewhere / "sub" / "behind.tif")
    (root / "dangling").symlink_to("nowhere")
    (root / "through a file").symlink_to("readme/x")
    (root / "circle").symlink_to("circle")
    (root / "latest").symlink_to("day")
    (root / "day" / "loop").symlink_to("..")
    (root / "trash").symlink_to(elsewhere)
    (root / "above").symlink_to("..")
    line = start(root, rescan_seconds=0.2, ignore=["trash/"]).ready()
    line.turns(0.5)
    line.until(lambda: named(line) == {"above"})  # what was asked too slowly is named until it is asked again
    assert line.watcher.status().ignored_last_scan == 1
    assert line.paths == []


def test_a_linked_camera_folder_is_followed_and_links_in_it_are_told_apart(
    root: Path, elsewhere: Path, tmp_path: Path, start: Start
) -> None:
    """What is inside and what is elsewhere goes by where the folder really is."""
    (root / "day").mkdir()
    (root / "linked").symlink_to(elsewhere)
    (tmp_path / "camera's link").symlink_to(root)
    (root / "latest").symlink_to(tmp_path / "camera's link" / "day")
    line = start(tmp_path / "camera's link", rescan_seconds=0.2).ready()
    line.until(lambda: named(line) == {"linked"})
    (root / "day" / "a.tif").write_bytes(b"1")
    line.until_paths("day/a.tif")


def test_where_a_link_leads_is_asked_aside(
    root: Path, elsewhere: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to a share that hangs holds the camera up once, briefly; it is named, and asked again when it can be."""
    gate = threading.Event()
    asked: list[str] = []
    leads_out = links._leads_out

    def hanging(root: str, link: str) -> bool:
        asked.append(link)
        if link == "share":
            gate.wait(DEADLINE_SECONDS)
        return leads_out(root, link)

    monkeypatch.setattr(links, "_leads_out", hanging)
    monkeypatch.setattr(LinkedFolders.among, "__defaults__", (0.2,))
    (root / "share").symlink_to(elsewhere / "sub" / "behind.tif")
    line = start(root, watch="poll", rescan_seconds=0.1)
    line.until(lambda: named(line) == {"share"})
    (root / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    assert asked == ["share"]
    gate.set()
    line.until(lambda: named(line) == set())


def test_a_link_where_one_may_not_look_is_named(ordinary_user: Path, start: Start) -> None:
    """It cannot be known that it hides nothing."""
    (ordinary_user / "camera").mkdir()
    (ordinary_user / "locked" / "sub").mkdir(parents=True)
    (ordinary_user / "camera" / "link").symlink_to(ordinary_user / "locked" / "sub")
    (ordinary_user / "locked").chmod(0)
    line = start(ordinary_user / "camera").ready()
    assert named(line) == {"link"}
    (ordinary_user / "locked").chmod(0o700)


def test_many_links_are_bounded(root: Path, elsewhere: Path, start: Start) -> None:
    """Thousands of them cost neither memory nor time."""
    for number in range(MAX_LINKS + 50):
        (root / f"link {number}").symlink_to(elsewhere)
    line = start(root).ready()
    assert len(named(line)) == MAX_LINKS


def test_a_folder_replaced_by_a_link_while_it_is_read_is_not_followed(root: Path, elsewhere: Path) -> None:
    """Neither at the end of the way nor in its middle, whenever it happens."""
    for path in ("end", "middle/sub"):
        (root / path).mkdir(parents=True)
        (root / path / "inside.tif").write_bytes(b"1")
    found: list[str] = []
    before = descriptors()

    def replace(folder: str) -> bool:
        """Do it after the folder was listed, right before it is opened."""
        if folder in {"end", "middle/sub"}:
            part = folder.partition("/")[0]
            (root / part).rename(root.with_name(part))
            (root / part).symlink_to(elsewhere)
        return True

    scan = Scan(str(root), "", StripNames.of(["**"], []), replace)
    while not scan.done:
        found += [path for path, _ in scan.read(100)]
    assert found == []
    assert (scan.errors, scan.failed) == (0, False)
    assert descriptors() <= before


def test_a_file_behind_a_folder_that_became_a_link_is_gone(root: Path, elsewhere: Path, start: Start) -> None:
    """The strip that settles must be the camera's, not one of the same name elsewhere."""
    (root / "sub").mkdir()
    now = [1000.0]
    line = start(root, settle_seconds=0.5, clock=lambda: now[0]).ready()
    (root / "sub" / "behind.tif").write_bytes(b"1")
    line.until(lambda: line.watcher.status().waiting == 1)
    (root / "sub").rename(root.with_name("away"))
    (root / "sub").symlink_to(elsewhere / "sub")
    now[0] += 0.5
    line.until(lambda: line.watcher.status().vanished_before_settle == 1)
    assert line.paths == []


def test_only_plain_paths_are_opened(root: Path, elsewhere: Path) -> None:
    """The root may be a link; below it a link raises, whatever it leads to, and no descriptor is left."""
    (root / "day" / "lot").mkdir(parents=True)
    (root / "day" / "lot" / "a.tif").write_bytes(b"1")
    (root / "linked").symlink_to(elsewhere)
    (root / "file.tif").symlink_to("day/lot/a.tif")
    before = descriptors()
    for folder in ("", "day", "day/lot"):
        for flags in (os.O_PATH, os.O_RDONLY):
            os.close(open_folder(str(root), folder, flags))
    assert stat_below(str(root), "day/lot/a.tif").st_size == 1
    assert stat_below(str(root), "file.tif").st_size == len("day/lot/a.tif")
    wrong: list[Any] = ["linked", "linked/sub", "day/lot/a.tif"]
    for path in wrong:
        for flags in (os.O_PATH, os.O_RDONLY):
            with pytest.raises(NotADirectoryError):
                open_folder(str(root), path, flags)
    with pytest.raises(NotADirectoryError):
        stat_below(str(root), "linked/sub/behind.tif")
    with pytest.raises(FileNotFoundError):
        stat_below(str(root), "day/nothing/a.tif")
    assert descriptors() <= before
