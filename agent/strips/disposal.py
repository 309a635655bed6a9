"""Move or remove a camera's file whose result the broker has. A file that is not the one that was judged stays."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from agent.files import HIDDEN_PREFIX, fsync_folder, make_folder
from agent.records import FileIdentity

if TYPE_CHECKING:
    from pathlib import Path

    from agent.records import Strip


def dispose(folder: Path, strip: Strip, digest: str, done_folder: Path | None) -> str:
    """Move the strip's file into `done_folder`, or remove it when that is None; return done | gone | replaced.

    `digest` is the sha256 of the bytes that were judged. The file is renamed to a hidden name first and looked at then,
    so that a new file of the same name is never touched. May be called again after a crash at any point. Raises OSError
    where the file system does not allow it.
    """
    source = folder / strip.path
    hidden = source.with_name(f"{HIDDEN_PREFIX}{strip.strip_id}")
    looked_at = None  # hidden by an earlier call, which did not come to its end
    if not os.path.lexists(hidden):
        try:
            looked_at = os.lstat(source)
        except FileNotFoundError:  # removed by others, or by us just before a crash; or its folder is away
            return "gone"
        if not _is_the_judged_one(source, looked_at, strip.identity, digest):
            return "replaced"
        source.rename(hidden)
    found = os.lstat(hidden)
    same_inode = looked_at is not None and (found.st_dev, found.st_ino) == (looked_at.st_dev, looked_at.st_ino)
    if not same_inode and not _is_the_judged_one(hidden, found, strip.identity, digest):
        if not os.path.lexists(source):
            hidden.rename(source)
        return "replaced"
    _remove_or_move(hidden, None if done_folder is None else _free_name(done_folder / strip.path, strip.strip_id))
    fsync_folder(source.parent)
    return "done"


def _is_the_judged_one(path: Path, found: os.stat_result, judged: FileIdentity, digest: str) -> bool:
    """Compare as `begin` does: a ctime that differs alone (our own renaming changes it) is decided by the digest."""
    identity = FileIdentity.of(found)
    if identity == judged or not identity.same_content_expected(judged):
        return identity == judged
    if not digest:  # nothing was ever read: a link, a pipe
        return True
    if not stat.S_ISREG(found.st_mode):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _free_name(target: Path, strip_id: str) -> Path:
    return target.with_name(f"{target.stem}-{strip_id}{target.suffix}") if os.path.lexists(target) else target


def _remove_or_move(source: Path, target: Path | None) -> None:
    if target is None:
        source.unlink()
        return
    make_folder(target.parent)
    try:
        source.rename(target)
    except OSError:  # another file system: copy under a hidden name, then both steps are renames
        copy = target.with_name(source.name)
        shutil.copy2(source, copy)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        copy.rename(target)
        source.unlink()
    fsync_folder(target.parent)
