"""Move or remove a camera's file whose result the broker has. A file that is not the one that was judged stays."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from agent.files import fsync_folder
from agent.records import FileIdentity

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN_PREFIX = ".strip-agent-"


def dispose(folder: Path, path: str, identity: FileIdentity, strip_id: str, done_folder: Path | None) -> str:
    """Move the file into `done_folder`, or remove it when that is None; return done | failed.

    It is renamed to a hidden name first and looked at then, so that a new file of the same name is never touched.
    May be called again after a crash at any point. Raises OSError where the file system does not allow it.
    """
    source = folder / path
    hidden = source.with_name(f"{HIDDEN_PREFIX}{strip_id}")
    if not os.path.lexists(hidden):
        try:
            found = FileIdentity.of(os.lstat(source))
        except FileNotFoundError:
            return "done"
        if not found.same_content_expected(identity):
            return "failed"
        source.rename(hidden)
    if not FileIdentity.of(os.lstat(hidden)).same_content_expected(identity):
        if not os.path.lexists(source):
            hidden.rename(source)
        return "failed"
    if done_folder is None:
        hidden.unlink()
    else:
        _move(hidden, _free_name(done_folder / path, strip_id))
    fsync_folder(source.parent)
    return "done"


def _free_name(target: Path, strip_id: str) -> Path:
    return target.with_name(f"{target.stem}-{strip_id}{target.suffix}") if os.path.lexists(target) else target


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
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
