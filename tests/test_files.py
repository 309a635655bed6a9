"""Reading without following links, writing atomically, and the names of heatmaps."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Blame, Reason, Reject, Retry
from agent.files import remove_temporary_files, write_all_atomically, write_atomically
from agent.heatmap_names import heatmap_stem
from agent.regular_files import read_regular_file

MAX = 1 << 20


def _refused(root: Path, relative: str, *, max_bytes: int = MAX) -> Reject | Retry:
    with pytest.raises((Reject, Retry)) as caught:
        read_regular_file(str(root), relative, max_bytes=max_bytes)
    assert isinstance(caught.value, (Reject, Retry))
    return caught.value


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _dead_pid() -> int:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


def test_the_new_content_replaces_the_old_and_no_temporary_file_stays(tmp_path: Path) -> None:
    """A written file holds the new bytes, and the folder holds nothing else."""
    path = tmp_path / "state.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000
    assert _names(tmp_path) == ["state.json"]


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of writing changes nothing in the folder."""
    write_atomically(tmp_path / "a", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_all_atomically([(tmp_path / "a", b"new"), (tmp_path / "b", b"new")])
    assert _names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_no_file_is_renamed_before_the_bytes_of_all_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is: write all, flush all, rename all, flush the folder once."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("flush folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "flush")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_all_atomically([(tmp_path / "a", b"1"), (tmp_path / "b", b"2")])
    assert steps == ["flush", "flush", "rename", "rename", "flush folder"]


def test_files_of_two_folders_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    """One flush of one folder cannot make two folders durable."""
    with pytest.raises(ValueError, match="one folder"):
        write_all_atomically([(tmp_path / "a", b""), (tmp_path / "sub" / "b", b"")])


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
def test_nothing_planted_under_the_temporary_name_is_written_through(tmp_path: Path, kind: str) -> None:
    """Who guesses the name of the temporary file gains nothing by it: it is removed and made anew."""
    (victim := tmp_path / "victim").write_text("mine")
    planted = tmp_path / f".a.{os.getpid()}.tmp"
    if kind == "link":
        planted.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(planted)
    else:
        planted.hardlink_to(victim)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert victim.read_text() == "mine"


def test_the_sweep_removes_what_dead_writers_left_and_nothing_else(tmp_path: Path) -> None:
    """Leftovers go, at any depth; files of living writers, of other programs and links stay."""
    dead = _dead_pid()
    deep = tmp_path / "top" / "2026-01-01"
    deep.mkdir(parents=True)
    leftovers = [tmp_path / f".a.{dead}.tmp", deep / f".b.json.{dead}.tmp", deep / ".c.9999999999.tmp"]
    kept = [tmp_path / f".a.{os.getpid()}.tmp", tmp_path / f"a.{dead}.tmp", tmp_path / ".editor.tmp", tmp_path / "a"]
    for path in leftovers + kept:
        path.write_bytes(b"")
    (tmp_path / f".link.{dead}.tmp").symlink_to(tmp_path / "a")
    assert remove_temporary_files(tmp_path) == 3
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in kept)
    assert (tmp_path / f".link.{dead}.tmp").is_symlink()


def test_the_sweep_does_not_wait_for_a_killed_writer_to_be_buried(tmp_path: Path) -> None:
    """A killed process keeps its number until its parent asks for it, which may take long: it writes no more."""
    zombie = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    (tmp_path / f".a.{zombie}.tmp").write_bytes(b"")
    assert remove_temporary_files(tmp_path) == 1
    os.waitpid(zombie, 0)


def test_a_file_is_read_with_its_stat_before_and_after(tmp_path: Path) -> None:
    """A plain file at any depth and of any name comes back whole."""
    deep = tmp_path / "shift 1" / "..a%s*\n"
    deep.mkdir(parents=True)
    name = os.fsdecode(b"not utf-8 \xff.tif")
    (deep / name).write_bytes(b"x" * 5000)
    data, before, after = read_regular_file(str(tmp_path), f"shift 1/..a%s*\n/{name}", max_bytes=5000)
    assert data == b"x" * 5000
    assert before == after
    assert before.st_size == 5000


def test_a_file_that_grows_while_it_is_read_shows_in_the_second_stat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller can tell that the bytes are not one version of the file."""
    path = tmp_path / "a.tif"
    path.write_bytes(b"x" * 100)
    real_read = os.read

    def grow_then_read(descriptor: int, size: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more")
        return real_read(descriptor, size)

    monkeypatch.setattr(os, "read", grow_then_read)
    data, before, after = read_regular_file(str(tmp_path), "a.tif", max_bytes=MAX)
    assert (len(data), before.st_size) == (100, 100)
    assert after.st_size > 100


def test_short_reads_of_a_share_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that gives less than was asked for still gives the whole file."""
    content = bytes(range(256)) * 10
    (tmp_path / "a.tif").write_bytes(content)
    real_read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: real_read(descriptor, min(size, 700)))
    assert read_regular_file(str(tmp_path), "a.tif", max_bytes=MAX)[0] == content


@pytest.mark.parametrize("target", ["inside.tif", "/etc/hostname", "nowhere"])
def test_a_linked_file_is_refused(tmp_path: Path, target: str) -> None:
    """A link is refused wherever it leads."""
    (tmp_path / "inside.tif").write_bytes(b"x")
    (tmp_path / "a.tif").symlink_to(target)
    assert _refused(tmp_path, "a.tif").reason is Reason.SYMLINK


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    """A link in the middle of the path is refused as well; the camera's folder itself may be one."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "a.tif").write_bytes(b"x")
    (root / "sub").symlink_to(outside)
    assert _refused(root, "sub/a.tif").reason is Reason.SYMLINK
    assert read_regular_file(str(root / "sub"), "a.tif", max_bytes=MAX)[0] == b"x"


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_link_that_is_swapped_in_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """Who replaces the file or its folder by a link between look and opening gains nothing."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.tif").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.tif").write_bytes(b"x")
    looked_at = "a.tif" if swapped == "file" else "sub"
    real_stat = os.stat

    def swap_after_look(path: str, **options: object) -> os.stat_result:
        found = real_stat(path, **options)  # type: ignore[arg-type]  # handed on as it came
        if path == looked_at:
            victim = root / "sub" / "a.tif" if swapped == "file" else root / "sub"
            victim.rename(tmp_path / "away")
            victim.symlink_to(tmp_path / "outside" / ("a.tif" if swapped == "file" else ""))
        return found

    monkeypatch.setattr(os, "stat", swap_after_look)
    assert _refused(root, "sub/a.tif").reason in {Reason.SYMLINK, Reason.FILE_VANISHED}


@pytest.mark.parametrize("relative", ["../a.tif", "sub/../../a.tif", "/etc/hostname", "", ".", "a//b", "a\0b"])
def test_a_path_that_is_no_plain_path_below_the_root_is_refused(tmp_path: Path, relative: str) -> None:
    """`..`, absolute paths and empty parts never reach the file system."""
    (tmp_path / "a.tif").write_bytes(b"x")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    assert _refused(root, relative).reason is Reason.NOT_A_REGULAR_FILE


def test_pipes_sockets_devices_and_folders_are_refused_without_waiting(tmp_path: Path) -> None:
    """Nothing that could block or act on being opened is opened."""
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "folder.tif").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.tif"))
        for name in ("pipe.tif", "folder.tif", "socket.tif"):
            assert _refused(tmp_path, name).reason is Reason.NOT_A_REGULAR_FILE, name
    assert _refused(Path("/dev"), "null").reason is Reason.NOT_A_REGULAR_FILE


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of a terabyte costs nothing."""
    with (tmp_path / "a.tif").open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it was read"))
    assert _refused(tmp_path, "a.tif").reason is Reason.TOO_LARGE


def test_what_is_gone_is_vanished_but_a_missing_root_is_waited_for(tmp_path: Path) -> None:
    """A strip that was removed never comes back; a camera's folder (a share) does."""
    (tmp_path / "file").write_bytes(b"")
    for relative in ("a.tif", "sub/a.tif", "file/a.tif", "n" * 300):
        assert _refused(tmp_path, relative).reason is Reason.FILE_VANISHED, relative
    error = _refused(tmp_path / "nowhere", "a.tif")
    assert isinstance(error, Retry)
    assert (error.reason, error.blame) == (Reason.UNREADABLE, Blame.FILE)


@pytest.mark.parametrize(
    ("number", "reason", "blame"),
    [
        (errno.EACCES, Reason.UNREADABLE, Blame.FILE),
        (errno.EPERM, Reason.UNREADABLE, Blame.FILE),
        (errno.ESTALE, Reason.UNREADABLE, Blame.FILE),
        (errno.EIO, Reason.UNREADABLE, Blame.FILE),
        (errno.EAGAIN, Reason.UNREADABLE, Blame.FILE),
        (errno.ENOTCONN, Reason.UNREADABLE, Blame.FILE),
        (errno.EMFILE, Reason.IO_ERROR, Blame.BOX),
        (errno.ENFILE, Reason.IO_ERROR, Blame.BOX),
        (errno.ENOMEM, Reason.NO_MEMORY, Blame.BOX),
    ],
)
def test_an_error_of_the_system_blames_the_file_or_the_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason, blame: Blame
) -> None:
    """What may pass with this file is tried until its deadline; what is the box's fault never costs a strip."""
    (tmp_path / "a.tif").write_bytes(b"x")

    def fail(_descriptor: int, _size: int) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "read", fail)
    error = _refused(tmp_path, "a.tif")
    assert isinstance(error, Retry)
    assert (error.reason, error.blame) == (reason, blame)


def test_a_path_deeper_than_there_are_descriptors_is_read(tmp_path: Path) -> None:
    """Whoever may make folders could have a strip that the box can never read, and take descriptors from others."""
    deep = tmp_path.joinpath(*["a"] * 200)
    deep.mkdir(parents=True)
    (deep / "a.tif").write_bytes(b"x")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(_names(Path("/proc/self/fd"))) + 50, before[1]))
    try:
        data, _, _ = read_regular_file(str(tmp_path), "a/" * 200 + "a.tif", max_bytes=MAX)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert data == b"x"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Neither a success nor any refusal leaks a descriptor."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.tif").write_bytes(b"x")
    (tmp_path / "sub" / "b.tif").symlink_to("a.tif")
    before = len(_names(Path("/proc/self/fd")))
    read_regular_file(str(tmp_path), "sub/a.tif", max_bytes=MAX)
    for relative in ("sub/b.tif", "sub/c.tif", "sub", "../x"):
        _refused(tmp_path, relative)
    _refused(tmp_path, "sub/a.tif", max_bytes=0)
    assert len(_names(Path("/proc/self/fd"))) == before


def test_the_heatmaps_name_follows_from_ledger_columns() -> None:
    """Camera, UTC date of the file, safe stem, id and revision, in this order."""
    stem = heatmap_stem("top", 1_767_225_599_999_999_999, "shift 1/Teil 7#ö.tif", "00ff00ff00ff00ff", 2)
    assert stem == "top/2025-12-31/Teil_7__-00ff00ff00ff00ff-r2"


@given(st.text(), st.integers(-(2**80), 2**80), st.integers(1, 1000))
def test_any_file_name_and_time_gives_a_safe_path(path: str, mtime_ns: int, revision: int) -> None:
    """No name leads outside, hides the file, or is too long for a file system."""
    stem = heatmap_stem("top", mtime_ns, path, "0123456789abcdef", revision)
    camera, date, name = stem.split("/")
    assert camera == "top"
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", date)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*-0123456789abcdef-r[0-9]+", name)
    assert len(name) < 200
