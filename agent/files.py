"""Files of our own, as both processes and the exporter write them: atomically and durably."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEMPORARY_NAME = re.compile(r"\..+\.([0-9]{1,10})\.tmp")
_FLUSHERS = ThreadPoolExecutor(4, "flush")  # its threads are started when the first files are written together


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
            temporary.unlink(missing_ok=True)  # left by a dead process of this pid, or planted: never written through
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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


HIDDEN_PREFIX = ".strip-agent-"
"""Begins the names of camera files that are about to be moved or removed; no pattern matches them."""
