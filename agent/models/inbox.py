"""The inbox: the folder that models are pushed to. It belongs to whoever pushes; it is read here and never written.

Names from outside are never used as paths of ours.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.contract.manifest import (
    MANIFEST_SUFFIX,
    MAX_MANIFEST_BYTES,
    SignedManifest,
    load_public_key,
    parse_manifest_file,
    verify_signature,
)
from agent.errors import Blame, Reason, Reject, Retry
from agent.records import FileIdentity, show_name
from agent.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.config import ModelsSection

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
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


@dataclass(frozen=True, slots=True)
class Ready:
    """A file that has settled, and for how long."""

    file: InboxFile
    seconds: float


class Inbox:
    """The settled files of one inbox folder."""

    def __init__(self, folder: Path, models: ModelsSection, trusted_keys: Mapping[str, bytes]) -> None:
        self.folder = folder
        self._models = models
        self._trusted_keys = trusted_keys
        self._settling = Settling(models.settle_seconds)
        self._settled: dict[str, tuple[str, float]] = {}  # file name -> (key, when it had settled)
        self.names: frozenset[str] = frozenset()  # all that the last look found

    def ready(self, seen: Mapping[str, str], now: float) -> list[Ready]:
        """Return the settled files that are not `seen` (name -> key). Raises Retry where the folder cannot be read."""
        files = list_inbox(self.folder)
        self.names = frozenset(file.name for file in files)
        for gone in self._settled.keys() - self.names:
            self._forget(gone)
        ready = []
        for file in files:
            if file.was_seen(seen.get(file.name, "")):
                continue
            looks = [
                self._settling.look(name, identity, now)
                for name, identity in ((file.name, file.identity), (file.name + MANIFEST_SUFFIX, file.manifest))
                if identity is not None
            ]
            if None in looks:
                self._settled.pop(file.name, None)
                continue
            if self._settled.get(file.name, ("", 0.0))[0] != file.key:
                self._settled[file.name] = (file.key, now)
            ready.append(Ready(file, now - self._settled[file.name][1]))
        return ready

    def look_again(self, file: InboxFile) -> None:
        """Let a file that changed under our hands settle once more."""
        self._forget(file.name)

    def read_papers(self, file: InboxFile) -> SignedManifest | None:
        """Read a file's manifest, verified as `read_manifest` does."""
        return read_manifest(self.folder, file.name, self._trusted_keys, required=self._models.require_signature)

    def copy(self, file: InboxFile, target: Path) -> str:
        """Copy a model as `copy_candidate` does; return its sha256. Raises Reject also for a file with an odd name."""
        refuse_odd_name(file.name)
        if file.identity is None:
            raise Reject(Reason.MODEL_MISSING, f"{file.name}{MANIFEST_SUFFIX} has no {file.name} beside it")
        return copy_candidate(self.folder, file, target, self._models.max_mib << 20)

    def find(self, beginning: str) -> list[tuple[InboxFile, str]]:
        """Return the plain files whose sha256 begins so, with it."""
        return find_by_digest(self.folder, beginning, self._models.max_mib << 20)

    def _forget(self, name: str) -> None:
        self._settled.pop(name, None)
        self._settling.forget(name)
        self._settling.forget(name + MANIFEST_SUFFIX)


def _key_of(identity: FileIdentity | None) -> str:
    return f"{identity.size_bytes} {identity.mtime_ns} {identity.ctime_ns}" if identity else "-"


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
            raise Reject(Reason.MANIFEST_MISSING, f"{name} has no {name}{MANIFEST_SUFFIX} beside it") from None
        return None
    except OSError as error:
        raise Retry.of_box(error, f"cannot read {name}{MANIFEST_SUFFIX}") from error
    signed = parse_manifest_file(content)
    if required and not signed.signature:
        raise Reject(Reason.SIGNATURE_MISSING, "its manifest is not signed, and models.require_signature is set")
    if required or signed.key_id in trusted_keys:
        verify_signature(signed, trusted_keys)
    return signed


def stated_version(folder: Path, file: InboxFile) -> int:
    """Return the version its manifest states, 0 without one: it only orders the files, nothing is trusted."""
    if file.manifest is None:
        return 0
    try:
        signed = read_manifest(folder, file.name, {}, required=False)
    except (Reject, Retry):
        return 0  # it is told when its turn comes
    return signed.manifest.version if signed else 0


def list_inbox(folder: Path) -> list[InboxFile]:
    """Look at the models and manifests in the inbox; hidden files are uploads under way; no folder is an empty one."""
    found: dict[str, FileIdentity] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith((".onnx", ".onnx" + MANIFEST_SUFFIX)):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = FileIdentity.of(entry.stat(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Retry.of_box(error, f"cannot read the inbox {folder}") from error
    names = sorted({name.removesuffix(MANIFEST_SUFFIX) for name in found})
    return [InboxFile(name, found.get(name), found.get(name + MANIFEST_SUFFIX)) for name in names]


def refuse_odd_name(name: str) -> None:
    r"""Refuse names with control characters, bytes that are no UTF-8, or `\`. Raises Reject."""
    if show_name(name) != name:
        raise Reject(Reason.FILE_NAME, f"the name {show_name(name)} holds characters that no model's name needs")


def copy_candidate(folder: Path, file: InboxFile, target: Path, max_bytes: int) -> str:
    """Copy a model to `target` while hashing it, and flush it; return its sha256.

    Raises Reject for links, special files, too large or empty ones, and Retry where the file changes meanwhile (the
    file is to blame) or the box cannot.
    """
    try:
        with os.fdopen(_open_plain(folder, file.name, max_bytes), "rb") as source, target.open("wb") as copy:
            digest = hashlib.sha256()
            copied = 0
            while chunk := source.read(CHUNK_BYTES):
                copied += len(chunk)
                if copied > max_bytes:
                    raise Reject(Reason.MODEL_TOO_LARGE, f"grew beyond {max_bytes} bytes while it was read")
                digest.update(chunk)
                copy.write(chunk)
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


def find_by_digest(folder: Path, beginning: str, max_bytes: int) -> list[tuple[InboxFile, str]]:
    """Return the plain files of the inbox whose sha256 begins so, with it."""
    found = []
    for file in list_inbox(folder):
        try:
            with os.fdopen(_open_plain(folder, file.name, max_bytes), "rb") as source:
                sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        except (Reject, OSError) as error:
            log.info("%s is not it: %s", show_name(file.name), error)
            continue
        if sha256.startswith(beginning):
            found.append((file, sha256))
    return found


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
