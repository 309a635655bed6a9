"""The inbox: the folder that models are pushed to. It belongs to whoever pushes; it is read here and never written.

Names from outside are never used as paths of ours. The folder may be a share that hangs for ever: all of this is called
by the inbox's own loop (`models/intake.py`) and by nothing else. `alive` is called whenever the folder has answered.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.contract.manifest import (
    MANIFEST_SUFFIX,
    MAX_MANIFEST_BYTES,
    parse_manifest_file,
)
from agent.errors import Blame, Reason, Reject, Retry
from agent.records import FileIdentity, show_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK_BYTES = 1 << 18  # on a link of 100 kB/s it takes less than three seconds
LONGEST_NAME_BYTES = 255
GONE = errno.ENOENT, errno.ENOTDIR, errno.ESTALE


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A model file in the inbox and its manifest, as one look saw them; one of them may be missing."""

    name: str  # of the model
    identity: FileIdentity | None
    manifest: FileIdentity | None

    @property
    def key(self) -> str:
        """What has to stay the same for the file to be the same."""
        return f"{_key_of(self.identity)} / {_key_of(self.manifest)}"

    def was_seen(self, key: str) -> bool:
        """Say whether `key` is of this very file; a manifest that outlives its model brings nothing new."""
        return key == self.key or (self.identity is None and key.partition(" / ")[2] == _key_of(self.manifest))

    def looks_like(self, key: str) -> bool:
        """Whether `key` is of a file of the same sizes and times, but for the ctime: it need not be the same."""
        return _without_ctime(key) == _without_ctime(self.key)


def _key_of(identity: FileIdentity | None) -> str:
    return f"{identity.size_bytes} {identity.mtime_ns} {identity.ctime_ns}" if identity else "-"


def _without_ctime(key: str) -> list[list[str]]:
    return [part.split(" ")[:2] for part in key.split(" / ")]


def read_manifest(folder: Path, name: str) -> bytes | None:
    """Read the manifest beside a model; None when there is none.

    Raises Reject where it is no plain file, or too large, and Retry where the box cannot read it.
    """
    try:
        with os.fdopen(_open_plain(folder, name + MANIFEST_SUFFIX, MAX_MANIFEST_BYTES), "rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Retry.of_box(error, f"cannot read {name}{MANIFEST_SUFFIX}") from error


def stated_version(folder: Path, file: InboxFile) -> int:
    """Return the version its manifest states, 0 without one: it only orders the files, nothing is trusted."""
    if file.manifest is None:
        return 0
    try:
        content = read_manifest(folder, file.name)
        return parse_manifest_file(content).manifest.version if content is not None else 0
    except (Reject, Retry):
        return 0  # it is told when its turn comes


def list_inbox(folder: Path, alive: Callable[[], None]) -> list[InboxFile] | None:
    """Look at the models and manifests in the inbox; hidden files are uploads under way. None: there is no folder.

    Raises Retry where it cannot be read.
    """
    found: dict[str, FileIdentity] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                alive()
                if entry.name.startswith(".") or not entry.name.lower().endswith((".onnx", ".onnx" + MANIFEST_SUFFIX)):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = FileIdentity.of(entry.stat(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Retry.of_box(error, f"cannot read the inbox {folder}") from error
    names = sorted({name.removesuffix(MANIFEST_SUFFIX) for name in found})
    return [InboxFile(name, found.get(name), found.get(name + MANIFEST_SUFFIX)) for name in names]


def refuse_odd_name(name: str) -> None:
    r"""Refuse names with control characters, bytes that are no UTF-8, or `\`, and too long ones. Raises Reject."""
    if show_name(name) != name:
        raise Reject(Reason.FILE_NAME, f"the name {show_name(name)} holds characters that no model's name needs")
    if len((name + MANIFEST_SUFFIX).encode()) > LONGEST_NAME_BYTES:
        raise Reject(Reason.FILE_NAME, f"the name {name} is so long that there is no room for a manifest's beside it")


def copy_candidate(
    folder: Path, file: InboxFile, target: Path | None, max_bytes: int, alive: Callable[[], None]
) -> str:
    """Read a model while hashing it, and copy it to `target`, flushed, if there is one; return its sha256.

    Raises Reject for odd names, links, special files, too large or empty ones, and Retry where the file changes
    meanwhile (the file is to blame) or the box cannot.
    """
    refuse_odd_name(file.name)
    if file.identity is None:
        raise Reject(Reason.MODEL_MISSING, f"{file.name}{MANIFEST_SUFFIX} has no {file.name} beside it")
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(os.fdopen(_open_plain(folder, file.name, max_bytes), "rb"))
            copy = stack.enter_context(target.open("wb")) if target is not None else None
            digest = hashlib.sha256()
            copied = 0
            while chunk := source.read(CHUNK_BYTES):
                alive()
                copied += len(chunk)
                if copied > max_bytes:
                    raise Reject(Reason.MODEL_TOO_LARGE, f"grew beyond {max_bytes} bytes while it was read")
                digest.update(chunk)
                if copy is not None:
                    copy.write(chunk)
            if copy is not None:
                copy.flush()
                os.fsync(copy.fileno())
            after = FileIdentity.of(os.fstat(source.fileno()))
        if after != file.identity or FileIdentity.of(os.lstat(folder / file.name)) != after:
            raise Retry(Reason.INCOMPLETE, f"{file.name} changed while it was copied", Blame.FILE)
    except OSError as error:
        if error.errno in GONE:
            raise Retry(Reason.FILE_VANISHED, f"{file.name} vanished while it was copied", Blame.FILE) from error
        raise Retry.of_box(error, f"cannot copy {file.name} into the store") from error
    if copied == 0:
        raise Reject(Reason.MODEL_UNREADABLE, f"{file.name} is empty")
    return digest.hexdigest()


def _open_plain(folder: Path, name: str, max_bytes: int) -> int:
    """Open a plain file of the inbox: no link, nothing special, not too large. Raises Reject, OSError."""
    path = folder / name
    _refuse_special(os.lstat(path), name, max_bytes)  # before it is opened: to open a device can already do something
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Reject(Reason.SYMLINK, f"{name} is a symbolic link") from error
        raise
    try:
        _refuse_special(os.fstat(descriptor), name, max_bytes)
    except Reject:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_special(found: os.stat_result, name: str, max_bytes: int) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise Reject(Reason.SYMLINK, f"{name} is a symbolic link; links are not followed")
    if not stat.S_ISREG(found.st_mode):
        raise Reject(Reason.NOT_A_REGULAR_FILE, f"{name} is no regular file")
    if found.st_nlink != 1:
        raise Reject(Reason.HARD_LINK, f"{name} has {found.st_nlink} names; push a copy of its own")
    if found.st_size > max_bytes:
        raise Reject(Reason.MODEL_TOO_LARGE, f"{name} has {found.st_size} bytes, allowed are {max_bytes}")
