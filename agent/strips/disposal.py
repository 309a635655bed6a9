"""Move or remove a camera's file whose result the broker has. A file that is not the one that was judged stays.

Nobody who may write to a camera's folder, or to the done folder, can have anything done outside of it: every folder on
the way is opened without following links, on both sides, what happens then happens in the folders that are open, and
the bytes that were judged are looked for again in the open file.

    remove   hide the file (rename it to a hidden name), look whether it is still the one that was opened, unlink
    move     rename it to a hidden name in the done folder, look once more, give it its name there
             other file system: copy to a hidden name in the done folder, flush; remove as above; give it its name

It may be called again after a crash at any point: whatever stands under a hidden name then is finished first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from agent.errors import Reason, Reject
from agent.files import HIDDEN_PREFIX, fsync_open_folder, make_folder
from agent.records import show_name
from agent.regular_files import open_folder_below, open_regular_file, split_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.records import Strip

_CHUNK_BYTES = 1 << 16
_LONGEST_NAME_BYTES = 255
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Disposal:
    """How it ended: done | gone | replaced (there is another file) | stays (nothing that may be touched), and why."""

    outcome: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was judged; the bytes decide, whatever the times of the file have become since."""

    path: str
    name: str
    hidden: str  # the name that it has on its way, in either folder
    size_bytes: int
    digest: str  # sha256; "" where nothing was ever read
    strip_id: str


def dispose(folder: Path, strip: Strip, digest: str, done_folder: Path | None) -> Disposal:
    """Move the strip's file into `done_folder`, or remove it when that is None.

    `digest` is the sha256 of the bytes that were judged; an empty one matches nothing. Raises OSError where the file
    system does not allow it; then everything is where it was, or will be found by the next call.
    """
    try:
        folders, name = split_path(strip.path)
        judged = _Judged(
            strip.path, name, f"{HIDDEN_PREFIX}{strip.strip_id}", strip.identity.size_bytes, digest, strip.strip_id
        )
        with ExitStack() as stack:
            source = _open_source(stack, folder, folders, strip.path)
            if done_folder is None:
                return Disposal("gone") if source is None else _remove(stack, source, judged)
            return _move(stack, source, done_folder, folders, judged)
    except Reject as refusal:
        return Disposal("stays", refusal.detail)


def _open_source(stack: ExitStack, folder: Path, folders: list[str], path: str) -> int | None:
    """Open the folder that holds the strip's file; None where it is gone."""
    root = os.open(folder, _FOLDER)  # where it is away nothing is known of its files: OSError
    stack.callback(os.close, root)
    try:
        return open_folder_below(stack, root, folders, path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _find(stack: ExitStack, source: int, judged: _Judged) -> tuple[str, int] | Disposal:
    """Return the name of the file that was judged, and the open file; or how it ends without one."""
    for name in (judged.hidden, judged.name):
        descriptor = _open(stack, source, name, judged)
        if descriptor is None:
            continue
        if _holds(descriptor, judged):
            return name, descriptor
        if name == judged.name:
            return Disposal("replaced")
        _give_back(source, judged, source)  # hidden by a call that was interrupted, or put there by others
    return Disposal("gone")


# Remove


def _remove(stack: ExitStack, source: int, judged: _Judged) -> Disposal:
    """Remove the file that was judged from the open folder."""
    found = _find(stack, source, judged)
    if isinstance(found, Disposal):
        return found
    name, descriptor = found
    if name == judged.name:
        os.rename(name, judged.hidden, src_dir_fd=source, dst_dir_fd=source)
        if not _is_still(stack, descriptor, source, judged):
            _give_back(source, judged, source)
            return Disposal("replaced")
    os.unlink(judged.hidden, dir_fd=source)
    fsync_open_folder(source)
    return Disposal("done")


def _is_still(stack: ExitStack, descriptor: int, folder: int, judged: _Judged) -> bool:
    """Say whether what bears the hidden name is the file that was opened, or at least has its bytes."""
    opened, found = os.fstat(descriptor), os.stat(judged.hidden, dir_fd=folder, follow_symlinks=False)
    if (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino):
        return True
    if not stat.S_ISREG(found.st_mode):
        return False
    again = _open(stack, folder, judged.hidden, judged)  # some shares make their inodes up
    return again is not None and _holds(again, judged)


def _give_back(folder: int, judged: _Judged, source: int) -> None:
    """Let what is no file that was judged have a name in the camera's folder that the watching finds."""
    name = _free_name(source, judged)
    os.rename(judged.hidden, name, src_dir_fd=folder, dst_dir_fd=source)
    fsync_open_folder(source)


# Move


def _move(stack: ExitStack, source: int | None, done_folder: Path, folders: list[str], judged: _Judged) -> Disposal:
    """Move the file that was judged from the open folder `source` (None: it is gone) into the done folder."""
    with contextlib.suppress(FileNotFoundError):
        target = _open_target(stack, done_folder, folders, judged.path, make=False)
        if _waits_for_its_name(stack, target, judged):  # a call was interrupted: go on there
            with contextlib.suppress(Reject):  # something else has the name by now: that is not ours to remove
                if source is not None:
                    _remove(stack, source, judged)
            return _give_its_name(source, target, judged)
    if source is None:
        return Disposal("gone")
    found = _find(stack, source, judged)
    if isinstance(found, Disposal):
        return found
    name, descriptor = found
    target = _open_target(stack, done_folder, folders, judged.path, make=True)
    if _open(stack, target, judged.hidden, judged) is not None:  # a copy that an interrupted call has not finished
        os.unlink(judged.hidden, dir_fd=target)
    try:
        os.rename(name, judged.hidden, src_dir_fd=source, dst_dir_fd=target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _move_a_copy(stack, descriptor, source, target, judged)
    if not _is_still(stack, descriptor, target, judged):
        _give_back(target, judged, source)
        return Disposal("replaced")
    return _give_its_name(source, target, judged)


def _move_a_copy(stack: ExitStack, descriptor: int, source: int, target: int, judged: _Judged) -> Disposal:
    _copy(descriptor, target, judged)
    removed = _remove(stack, source, judged)
    if removed.outcome != "done":
        os.unlink(judged.hidden, dir_fd=target)
        return removed
    return _give_its_name(source, target, judged)


def _open_target(stack: ExitStack, done_folder: Path, folders: list[str], path: str, *, make: bool) -> int:
    """Open the folder in the done folder where the file goes. Raises OSError, Reject(SYMLINK)."""
    if make:
        make_folder(done_folder)
    root = os.open(done_folder, _FOLDER)
    stack.callback(os.close, root)
    return open_folder_below(stack, root, folders, path, make=make)


def _waits_for_its_name(stack: ExitStack, target: int, judged: _Judged) -> bool:
    descriptor = _open(stack, target, judged.hidden, judged)
    return descriptor is not None and bool(judged.digest) and _holds(descriptor, judged)


def _copy(descriptor: int, target: int, judged: _Judged) -> None:
    """Copy the open file under the hidden name; it is on the disk when this returns, its name too. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    copy = os.open(judged.hidden, flags, 0o600, dir_fd=target)
    try:
        _write_what_was_judged(descriptor, copy, judged)
        found = os.fstat(descriptor)
        with contextlib.suppress(OSError):  # file systems without modes or times
            os.fchmod(copy, stat.S_IMODE(found.st_mode) & 0o777)
            os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(copy)
        fsync_open_folder(target)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            os.unlink(judged.hidden, dir_fd=target)
        raise
    finally:
        os.close(copy)


def _write_what_was_judged(descriptor: int, copy: int, judged: _Judged) -> None:
    digest = hashlib.sha256()
    for chunk in _chunks(descriptor, judged.size_bytes):
        digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(copy, rest) :]
    if digest.hexdigest() != judged.digest:
        raise OSError(errno.EBUSY, "was written on while it was copied", judged.name)


def _give_its_name(source: int | None, target: int, judged: _Judged) -> Disposal:
    os.rename(judged.hidden, _free_name(target, judged), src_dir_fd=target, dst_dir_fd=target)
    fsync_open_folder(target)
    if source is not None:
        fsync_open_folder(source)
    return Disposal("done")


# Files in open folders


def _open(stack: ExitStack, folder: int, name: str, judged: _Judged) -> int | None:
    """Open a plain file of the folder; None where there is none of that name. Raises Reject for anything else."""
    try:
        return open_regular_file(stack, folder, name, judged.path)
    except FileNotFoundError:
        return None


def _holds(descriptor: int, judged: _Judged) -> bool:
    """Say whether the open file holds the bytes that were judged. Raises Reject where nobody knows which those were."""
    if os.fstat(descriptor).st_size != judged.size_bytes:
        return False
    if not judged.digest:
        raise Reject(Reason.UNREADABLE, f"{show_name(judged.path)} was never read, so nobody knows what was judged")
    digest = hashlib.sha256()
    for chunk in _chunks(descriptor, judged.size_bytes):
        digest.update(chunk)
    return digest.hexdigest() == judged.digest


def _chunks(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    """Read at most the known size, whatever the file has become."""
    place = 0
    while place < size_bytes and (chunk := os.pread(descriptor, min(_CHUNK_BYTES, size_bytes - place), place)):
        yield chunk
        place += len(chunk)


def _free_name(folder: int, judged: _Judged) -> str:
    """Return the file's name, or one that begins and ends like it where that is taken."""
    for name in names_when_done(judged.name, judged.strip_id):
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return name
    raise OSError(errno.EEXIST, "all names are taken", judged.name)


def names_when_done(name: str, strip_id: str) -> Iterator[str]:
    """Give the names that a file may have in the done folder, the first that was free: its own, or one much like it."""
    path = PurePosixPath(name)
    for ending in ("", f"-{strip_id}", *(f"-{strip_id}-{number}" for number in range(2, 100))):
        room = _LONGEST_NAME_BYTES - len(os.fsencode(ending + path.suffix))
        yield os.fsdecode(os.fsencode(path.stem)[:room]) + ending + path.suffix
