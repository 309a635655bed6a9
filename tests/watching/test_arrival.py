"""How files arrive: with a rescan once an hour, each of these is found by its event."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watching.line import Start


def test_a_written_file_is_handed_out_once_with_its_identity(root: Path, start: Start) -> None:
    """Found by its events, settled, handed out; reading it does not bring it again."""
    line = start(root).ready()
    assert line.state == "events"
    (root / "a.tif").write_bytes(b"strip")
    line.until_paths("a.tif")
    assert line.handed_out == [SettledFile("top", "a.tif", FileIdentity.of((root / "a.tif").lstat()))]
    (root / "a.tif").read_bytes()
    line.watcher.request_scan()
    line.turns(0.3)
    assert line.paths == ["a.tif"]
    assert line.watcher.status().found_without_event == 0


def test_rename_into_place(root: Path, tmp_path: Path, start: Start) -> None:
    """From inside the folder and from outside of it; the temporary names are not strips."""
    line = start(root).ready()
    (root / "a.tmp").write_bytes(b"1")
    (root / "a.tmp").rename(root / "a.tif")
    (tmp_path / "outside").write_bytes(b"2")
    (tmp_path / "outside").rename(root / "b.tif")
    line.until_paths("a.tif", "b.tif")


def test_hard_link_and_links_and_special_files(root: Path, tmp_path: Path, start: Start) -> None:
    """A hard link is a strip; what is no regular file is handed out too, so that it is refused and not overlooked."""
    line = start(root).ready()
    (tmp_path / "original").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "below.tif").write_bytes(b"1")
    os.link(tmp_path / "original", root / "hard.tif")
    (root / "link.tif").symlink_to(tmp_path / "original")
    (root / "dangling.tif").symlink_to("nowhere")
    (root / "folder.tif").symlink_to(tmp_path / "folder")
    (root / "linked-folder").symlink_to(tmp_path / "folder")
    os.mkfifo(root / "fifo.tif")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(root):
        server.bind("socket.tif")
        line.until_paths("hard.tif", "link.tif", "dangling.tif", "folder.tif", "fifo.tif", "socket.tif")


def test_special_files_are_found_by_a_scan_too(root: Path, tmp_path: Path, start: Start) -> None:
    """The same without events."""
    (root / "link.tif").symlink_to(tmp_path)
    os.mkfifo(root / "fifo.tif")
    (root / "real-folder.tif").mkdir()
    (root / "real-folder.tif" / "a.tif").write_bytes(b"1")
    line = start(root, watch="poll").ready()
    line.until_paths("link.tif", "fifo.tif", "real-folder.tif/a.tif")


def test_folder_and_file_at_once(root: Path, start: Start) -> None:
    """A folder's first file may be older than its watch; a hundred of them, and deep dated ones, are all found."""
    line = start(root).ready()
    expected = []
    for number in range(100):
        path = f"shift{number}/a.tif" if number % 2 else f"2026/11/{number}/top/a.tif"
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(b"1")
        expected.append(path)
    line.until_paths(*expected)
    assert line.watcher.status().found_without_event == 0


def test_folder_moved_in_with_its_files_goes_on_being_watched(root: Path, tmp_path: Path, start: Start) -> None:
    """Files in it when it came, files written to it later, and files in a folder made in it later."""
    line = start(root).ready()
    (tmp_path / "batch" / "x").mkdir(parents=True)
    (tmp_path / "batch" / "x" / "1.tif").write_bytes(b"1")
    (tmp_path / "batch").rename(root / "batch")
    line.until_paths("batch/x/1.tif")
    (root / "batch" / "x" / "2.tif").write_bytes(b"2")
    (root / "batch" / "y").mkdir()
    (root / "batch" / "y" / "3.tif").write_bytes(b"3")
    line.until_paths("batch/x/1.tif", "batch/x/2.tif", "batch/y/3.tif")


def test_names_are_bytes(root: Path, start: Start) -> None:
    """Whatever the file system allows in a name comes through unchanged, by event and by scan."""
    names = [b"new\nline.tif", b"100%*[a]?.tif", b"\xff\xfe.tif", "grün ü.tif".encode(), b"-rf .tif", b"a'\"b.tif"]
    line = start(root).ready()
    for name in names:
        (root / os.fsdecode(name)).write_bytes(b"1")
    line.until_paths(*map(os.fsdecode, names))
    scanned = start(root, watch="poll").ready()
    scanned.until_paths(*map(os.fsdecode, names))


def test_same_name_rewritten_is_handed_out_again(root: Path, start: Start) -> None:
    """A new identity is a new strip: rewritten in place, and replaced by a rename."""
    line = start(root).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: len(line.paths) == 1)
    (root / "a.tif").write_bytes(b"22")
    line.until(lambda: len(line.paths) == 2)
    (root / "b.tmp").write_bytes(b"333")
    (root / "b.tmp").rename(root / "a.tif")
    line.until(lambda: len(line.paths) == 3)
    assert [file.identity.size_bytes for file in line.handed_out] == [1, 2, 3]


def test_a_ctime_that_changed_alone_is_not_known(root: Path, start: Start) -> None:
    """It is handed out and the ledger decides by the digest."""
    line = start(root).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: len(line.paths) == 1)
    (root / "a.tif").chmod(0o600)
    line.until(lambda: len(line.paths) == 2)
    assert line.handed_out[0].identity.same_content_expected(line.handed_out[1].identity)
