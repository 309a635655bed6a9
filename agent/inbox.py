"""The inbox: the folder that models are pushed to. It belongs to whoever pushes; it is read here and never written.

Names from outside are never used as paths of ours: a model is copied to a name that is its digest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import Blame, Reason, Reject, Retry
from agent.files import fsync_folder
from agent.manifest import (
    MANIFEST_SUFFIX,
    MAX_MANIFEST_BYTES,
    SignedManifest,
    load_public_key,
    parse_manifest_file,
    verify_signature,
)
from agent.records import FileIdentity
from agent.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHUNK_BYTES = 1 << 20
GONE = errno.ENOENT, errno.ENOTDIR, errno.ESTALE


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A model file in the inbox, and its manifest if there is one, as one look saw them."""

    name: str
    identity: FileIdentity
    manifest: FileIdentity | None

    @property
    def key(self) -> str:
        """What has to stay the same for the file to be the same."""
        parts = (self.identity, self.manifest) if self.manifest else (self.identity,)
        return " ".join(f"{part.size_bytes} {part.mtime_ns} {part.ctime_ns}" for part in parts)


class Inbox:
    """The settled files of one inbox folder."""

    def __init__(self, folder: Path, settle_seconds: float) -> None:
        self.folder = folder
        self._settling = Settling(settle_seconds)
        self._settled: dict[str, tuple[str, float]] = {}  # file name -> (key, when it had settled)

    def ready(self, seen: Mapping[str, str], now: float) -> list[tuple[InboxFile, float]]:
        """Return the settled files that are not `seen` (name -> key), each with the seconds since it settled."""
        files = list_inbox(self.folder)
        for gone in self._settled.keys() - {file.name for file in files}:
            del self._settled[gone]
            self._settling.forget(gone)
        ready = []
        for file in files:
            if seen.get(file.name) == file.key:
                continue
            if self._settling.look(file.name, file.identity, now) is None:
                self._settled.pop(file.name, None)
                continue
            if self._settled.get(file.name, ("", 0.0))[0] != file.key:
                self._settled[file.name] = (file.key, now)
            ready.append((file, now - self._settled[file.name][1]))
        return ready

    def look_again(self, file: InboxFile) -> None:
        """Let a file that changed under our hands settle once more."""
        self._settling.forget(file.name)
        self._settled.pop(file.name, None)


def read_trusted_keys(files: Sequence[Path]) -> dict[str, bytes]:
    """Read the trusted public keys, key_id -> raw key; raises ValueError naming the file that is none."""
    keys = {}
    for file in files:
        try:
            key_id, raw = load_public_key(file.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"models.trusted_keys: {file}: {error}") from error
        keys[key_id] = raw
    return keys


def read_manifest(
    folder: Path, name: str, trusted_keys: Mapping[str, bytes], *, required: bool
) -> SignedManifest | None:
    """Read the manifest beside a model, verified where signatures are required or its key is one of ours.

    None when there is none. Raises Reject when it is malformed, or not signed as it has to be.
    """
    try:
        with os.fdopen(_open_plain(folder, name + MANIFEST_SUFFIX, MAX_MANIFEST_BYTES), "rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        if required:
            raise Reject(Reason.MANIFEST_MISSING, f"{name} has no {name}{MANIFEST_SUFFIX}, signed, beside it") from None
        return None
    signed = parse_manifest_file(content)
    if required or signed.key_id in trusted_keys:
        verify_signature(signed, trusted_keys)
    return signed


def stated_version(folder: Path, file: InboxFile) -> int:
    """Return the version its manifest states, 0 without one: it only orders the files, nothing is trusted."""
    try:
        signed = read_manifest(folder, file.name, {}, required=False)
    except (Reject, OSError):
        return 0  # it is refused when its turn comes
    return signed.manifest.version if signed else 0


def list_inbox(folder: Path) -> list[InboxFile]:
    """Look at the model files in the inbox; a folder that is not there is empty."""
    files = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(".onnx"):
                    try:
                        identity = FileIdentity.of(entry.stat(follow_symlinks=False))
                    except FileNotFoundError:
                        continue
                    files.append(InboxFile(entry.name, identity, _manifest_identity(folder, entry.name)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Retry.of_box(error, f"cannot read the inbox {folder}") from error
    return sorted(files, key=lambda file: file.name)


def _manifest_identity(folder: Path, name: str) -> FileIdentity | None:
    try:
        return FileIdentity.of(os.lstat(folder / (name + MANIFEST_SUFFIX)))
    except OSError:
        return None


def copy_into_store(folder: Path, file: InboxFile, store: Path, max_bytes: int) -> str:
    """Copy a model into the store while hashing it; return its sha256, by which the copy is named.

    Raises Reject for links, special files, too large or empty ones, and Retry where the file changes meanwhile or the
    box cannot.
    """
    temporary = store / f".incoming.{os.getpid()}-{threading.get_native_id()}.tmp"
    try:
        descriptor = _open_plain(folder, file.name, max_bytes)
        with os.fdopen(descriptor, "rb") as source:
            digest = hashlib.sha256()
            with temporary.open("wb") as target:
                copied = 0
                while chunk := source.read(CHUNK_BYTES):
                    copied += len(chunk)
                    if copied > max_bytes:
                        raise Reject(Reason.MODEL_TOO_LARGE, f"grew beyond {max_bytes} bytes while it was read")
                    digest.update(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            found = FileIdentity.of(os.fstat(source.fileno()))
        if copied == 0:
            raise Reject(Reason.MODEL_UNREADABLE, "is empty")
        if found != file.identity or FileIdentity.of(os.lstat(folder / file.name)) != found:
            raise Retry(Reason.INCOMPLETE, f"{file.name} changed while it was copied", Blame.FILE)
        sha256 = digest.hexdigest()
        temporary.replace(store / f"{sha256}.onnx")
        fsync_folder(store)
    except OSError as error:
        if error.errno in GONE:
            raise Retry(Reason.FILE_VANISHED, f"{file.name} vanished while it was copied", Blame.FILE) from error
        raise Retry.of_box(error, f"cannot copy {file.name} into the store") from error
    finally:
        temporary.unlink(missing_ok=True)
    return sha256


def _open_plain(folder: Path, name: str, max_bytes: int) -> int:
    """Open a plain file of the inbox: no link of either kind, nothing special, not too large."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Reject(Reason.SYMLINK, f"{name} is a symbolic link") from error
        if error.errno == errno.ENXIO:  # a socket, or a FIFO without a writer
            raise Reject(Reason.NOT_A_REGULAR_FILE, f"{name} is no regular file") from error
        raise
    found = os.fstat(descriptor)
    refusal = None
    if not stat.S_ISREG(found.st_mode):
        refusal = Reject(Reason.NOT_A_REGULAR_FILE, f"{name} is no regular file")
    elif found.st_nlink != 1:
        refusal = Reject(Reason.HARD_LINK, f"{name} has {found.st_nlink} names; push a copy of its own")
    elif found.st_size > max_bytes:
        refusal = Reject(Reason.MODEL_TOO_LARGE, f"{name} has {found.st_size} bytes, allowed are {max_bytes}")
    if refusal is not None:
        os.close(descriptor)
        raise refusal
    return descriptor
