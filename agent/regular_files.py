"""Files that others have written: opened and read without following a link, and whose fault it is where that fails."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from agent.errors import Blame, Reason, Reject, Retry
from agent.files import fsync_open_folder
from agent.records import show_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_READ_AT_ONCE = 1 << 16  # bytes: on a link of 100 kB/s they take less than a second
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def read_regular_file(
    root: str, relative: str, *, max_bytes: int, progress: Callable[[], None] = lambda: None
) -> tuple[bytes, os.stat_result, os.stat_result]:
    """Read the file `relative` below `root`; return its bytes and its stat before and after reading.

    Neither a link nor `..` below `root` is followed, not even one that is put there meanwhile; `root` itself may be a
    link. Pipes, sockets and devices are refused unopened, and nothing is read from a file above `max_bytes`. At most
    the size that the first stat showed is read: the caller compares the two stats. `progress` is called as the bytes
    come, which may take long on a share.

    Raises Reject(SYMLINK, NOT_A_REGULAR_FILE, TOO_LARGE, FILE_VANISHED) and Retry(UNREADABLE, NO_MEMORY, IO_ERROR).
    """
    with _open_below(root, relative, max_bytes) as (descriptor, before):
        chunks = []
        for chunk in _chunks(descriptor, before.st_size):
            chunks.append(chunk)
            progress()
        return b"".join(chunks), before, os.fstat(descriptor)


def digest_regular_file(root: str, relative: str, *, max_bytes: int) -> str:
    """Return the sha256 of what `read_regular_file` would read, and raise what it would, without holding all of it."""
    digest = hashlib.sha256()
    with _open_below(root, relative, max_bytes) as (descriptor, before):
        for chunk in _chunks(descriptor, before.st_size):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _open_below(root: str, relative: str, max_bytes: int) -> Iterator[tuple[int, os.stat_result]]:
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
            yield descriptor, before


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
    with contextlib.ExitStack() as above:  # closed on the way: a path may be deeper than there are descriptors
        for part in folders:
            if make:
                _make_below(folder, part)
            _refuse_link(folder, part, relative)
            folder = os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
            above.close()
            above.callback(os.close, folder)
        stack.push(above.pop_all())
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


def _chunks(descriptor: int, size: int) -> Iterator[bytes]:
    rest = size
    while rest and (chunk := os.read(descriptor, min(rest, _READ_AT_ONCE))):  # shares give less than was asked for
        yield chunk
        rest -= len(chunk)


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
