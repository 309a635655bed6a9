"""Files as both processes and the exporter handle them: read without following links, write atomically and durably."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from agent.errors import Blame, Reason, Reject, Retry
from agent.records import show_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TEMPORARY_NAME = re.compile(r"\..+\.([0-9]{1,10})\.tmp")
_MAX_SAFE_STEM = 80
_LAST_SECOND = 253_402_300_799  # of the year 9999, where datetime ends; file systems go further
_FLUSHERS = ThreadPoolExecutor(4, "flush")  # its threads are started when the first files are written together
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


# Writing


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds the old or the new content at any moment, after a power cut too.

    In one process only one thread at a time may write the same path. Raises OSError; no temporary file is left then.
    """
    _write_and_rename([(path, data)])


def write_all_atomically(files: Sequence[tuple[Path, bytes]]) -> None:
    """Write several files of one folder, each atomically; all are on the disk when this returns.

    No file gets its final name before the bytes of all are on the disk. Raises OSError; no temporary file is left then.
    """
    if len({path.parent for path, _ in files}) > 1:
        raise ValueError("the files must be in one folder")
    _write_and_rename(files)


def _write_and_rename(files: Sequence[tuple[Path, bytes]]) -> None:
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path, _ in files]
    descriptors: list[int] = []
    try:
        for temporary, (_, data) in zip(temporaries, files, strict=True):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptors.append(os.open(temporary, flags, 0o666))
            _write_all(descriptors[-1], data)
        if descriptors:
            _flush(descriptors)
        for temporary, (path, _) in zip(temporaries, files, strict=True):
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.unlink(missing_ok=True)
        raise
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if files:
        fsync_folder(files[0][0].parent)


def _flush(descriptors: list[int]) -> None:
    """Flush all at the same time: journalling file systems then commit once instead of once for each file."""
    others = [_FLUSHERS.submit(os.fsync, descriptor) for descriptor in descriptors[1:]]
    try:
        os.fsync(descriptors[0])
    finally:
        wait(others)  # the descriptors are closed next, whatever happened
    for flushed in others:
        flushed.result()


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; a rename alone is atomic but not durable. Raises OSError."""
    _fsync_folder(folder, None)


def fsync_open_folder(folder: int) -> None:
    """Do so for an open folder, however it was opened (O_PATH too)."""
    _fsync_folder(".", folder)


def _fsync_folder(folder: Path | str, dir_fd: int | None) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_durable_folders: set[Path] = set()  # those whose names this process has flushed


def make_folder(folder: Path) -> None:
    """Make `folder` and the folders above it where they are missing; their names survive a power cut. Raises OSError.

    The names are flushed once in each process even where the folder exists: who made it may have died before flushing.
    """
    if folder in _durable_folders and folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for parent in folder.absolute().parents:
        with contextlib.suppress(PermissionError):  # then it is not we who make names in it
            fsync_folder(parent)
        if parent.is_mount():
            break
    _durable_folders.add(folder)


def remove_temporary_files(folder: Path) -> int:
    """Remove what writers that no longer live left in `folder` and below; return how many files that were.

    Only regular files named as `write_atomically` names them. Files that cannot be removed are left for the next time.
    """
    removed = 0
    with contextlib.suppress(OSError):  # the folder is not there, or a part of it went away meanwhile
        # Through descriptors: a folder may become a link meanwhile.
        for _, _, names, inside in os.fwalk(os.path.realpath(folder)):
            removed += sum(_remove_temporary_file(name, inside) for name in names)
    return removed


def _remove_temporary_file(name: str, folder: int) -> bool:
    match = _TEMPORARY_NAME.fullmatch(name)
    if match is None or _is_alive(int(match[1])):
        return False
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return True
    return False


def free_bytes(folder: Path) -> int:
    """Return what this process may still write below `folder`: what is kept for root is not counted. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _is_alive(pid: int) -> bool:
    """Whether the process can still write: one that was killed may wait long for whoever inherited it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b") ")[2][:1] not in {b"Z", b"X"}


# Reading


def read_regular_file(root: str, relative: str, *, max_bytes: int) -> tuple[bytes, os.stat_result, os.stat_result]:
    """Read the file `relative` below `root`; return its bytes and its stat before and after reading.

    Neither a link nor `..` below `root` is followed, not even one that is put there meanwhile; `root` itself may be a
    link. Pipes, sockets and devices are refused unopened, and nothing is read from a file above `max_bytes`. At most
    the size that the first stat showed is read: the caller compares the two stats.

    Raises Reject(SYMLINK, NOT_A_REGULAR_FILE, TOO_LARGE, FILE_VANISHED) and Retry(UNREADABLE, NO_MEMORY, IO_ERROR).
    """
    folders, name = split_path(relative)
    with contextlib.ExitStack() as stack:
        try:
            folder = os.open(root, _FOLDER_FLAGS)
        except OSError as error:
            raise _unreadable(error, root) from error
        stack.callback(os.close, folder)
        with _errors_of(relative):
            folder = open_folder_below(stack, folder, folders, relative)
            descriptor = open_regular_file(stack, folder, name, relative)
            before = os.fstat(descriptor)
            if before.st_size > max_bytes:
                raise Reject(Reason.TOO_LARGE, f"{before.st_size} bytes; checks.max_file_mib allows {max_bytes}")
            data = _read_up_to(descriptor, before.st_size)
            return data, before, os.fstat(descriptor)


def split_path(relative: str) -> tuple[list[str], str]:
    """Split a path below a folder into the names of the folders on the way and its own; raises Reject for `..`."""
    parts = relative.split("/")
    if not all(parts) or "." in parts or ".." in parts or "\0" in relative:
        detail = f"{show_name(relative)} is not a plain path below the camera's folder"
        raise Reject(Reason.NOT_A_REGULAR_FILE, detail)
    return parts[:-1], parts[-1]


def open_folder_below(
    stack: contextlib.ExitStack, folder: int, folders: Sequence[str], relative: str, *, make: bool = False
) -> int:
    """Go down from the open `folder` without following a link; return a descriptor (O_PATH), closed by `stack`.

    With `make` missing folders are made, and their names flushed. `relative` is for messages. Raises OSError, and
    Reject(SYMLINK) for a link on the way.
    """
    for part in folders:
        if make:
            _make_below(folder, part)
        _refuse_link(folder, part, relative)
        folder = os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
        stack.callback(os.close, folder)
    return folder


def _make_below(folder: int, part: str) -> None:
    try:
        os.mkdir(part, dir_fd=folder)
    except FileExistsError:
        return
    fsync_open_folder(folder)


def open_regular_file(stack: contextlib.ExitStack, folder: int, name: str, relative: str) -> int:
    """Open the file `name` in the open `folder` for reading; `relative` is for messages.

    Raises OSError, Reject(SYMLINK, NOT_A_REGULAR_FILE).
    """
    # A look before opening: to open a device can already do something.
    _refuse_special(os.stat(name, dir_fd=folder, follow_symlinks=False), relative)
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    stack.callback(os.close, descriptor)
    _refuse_special(os.fstat(descriptor), relative)
    return descriptor


def _refuse_link(folder: int, part: str, relative: str) -> None:
    if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
        detail = f"{show_name(part)} in {show_name(relative)} is a symbolic link; links are not followed"
        raise Reject(Reason.SYMLINK, detail)


def _refuse_special(found: os.stat_result, relative: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise Reject(Reason.SYMLINK, f"{show_name(relative)} is a symbolic link; links are not followed")
    if not stat.S_ISREG(found.st_mode):
        kind = {
            stat.S_IFDIR: "a folder",
            stat.S_IFIFO: "a pipe",
            stat.S_IFSOCK: "a socket",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
        }.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise Reject(Reason.NOT_A_REGULAR_FILE, f"{show_name(relative)} is {kind}")


def _read_up_to(descriptor: int, size: int) -> bytes:
    first = os.read(descriptor, size)
    if len(first) in {0, size}:
        return first
    chunks, rest = [first], size - len(first)
    while rest and (chunk := os.read(descriptor, rest)):  # network shares give less than was asked for
        chunks.append(chunk)
        rest -= len(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def _errors_of(relative: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise Retry(Reason.NO_MEMORY, f"no memory to read {show_name(relative)}", Blame.BOX) from error
    except OSError as error:
        # A part of the path that became a link or a file after the look is a swap in mid-air: gone as well.
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
            raise Reject(Reason.FILE_VANISHED, f"{show_name(relative)} is no longer there") from error
        if error.errno == errno.ELOOP:
            detail = f"{show_name(relative)} is a symbolic link; links are not followed"
            raise Reject(Reason.SYMLINK, detail) from error
        if error.errno == errno.ENXIO:
            raise Reject(Reason.NOT_A_REGULAR_FILE, f"{show_name(relative)} is a pipe or a socket") from error
        raise _unreadable(error, relative) from error


def _unreadable(error: OSError, path: str) -> Retry:
    """Permissions, locks and shares are the file's matter and may pass; descriptors and memory are the box's."""
    detail = f"{show_name(path)}: {error.strerror or error}"
    if error.errno == errno.ENOMEM:
        return Retry(Reason.NO_MEMORY, detail, Blame.BOX)
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS}:
        return Retry(Reason.IO_ERROR, detail, Blame.BOX)
    return Retry(Reason.UNREADABLE, detail, Blame.FILE)


# Names


HIDDEN_PREFIX = ".strip-agent-"
"""Begins the names of camera files that are about to be moved or removed; no pattern matches them."""

HEATMAP_SUFFIXES = (".tiff", ".png", ".json")
"""Endings of everything that one judgement may leave below the heatmap folder."""


def heatmap_stem(camera: str, mtime_ns: int, path: str, strip_id: str, revision: int) -> str:
    """Name the heatmaps of one judgement, relative to the heatmap folder and without the ending.

    `<camera>/<UTC date of the file's mtime>/<safe stem>-<strip_id>-r<revision>`: a function of ledger columns alone, so
    that doing it again after a crash writes the same files.
    """
    seconds = min(max(mtime_ns // 10**9, 0), _LAST_SECOND)
    date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).date().isoformat()
    return f"{camera}/{date}/{_safe_stem(path)}-{strip_id}-r{revision}"


def _safe_stem(path: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(path).stem).lstrip(".")
    return stem[:_MAX_SAFE_STEM] or "strip"
