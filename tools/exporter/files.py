"""Write files so that the final name never holds half of one and no link that somebody planted is written through."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from agent.files import write_atomically
from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedRandom
    from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush, rename, flush the folder; ExportError when there is no room or no right."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ExportError(
            f"Cannot write {path} ({error.strerror}): choose a folder with room that you may write to."
        ) from error


def check_writable(path: Path) -> None:
    """Find out before long work that a file can be written there; ExportError when not."""
    if path.is_dir():
        raise ExportError(f"{path} is a folder: give the name of a file.")
    try:
        with new_file(path.with_name(part_name(path.name))):
            pass
    except OSError as error:
        raise ExportError(
            f"Cannot write {path} ({error.strerror}): choose a folder that exists and that you may write to."
        ) from error


def part_name(name: str) -> str:
    """Make a hidden name for a file that is not complete yet; nobody can know it before."""
    return f".{name}.{secrets.token_hex(8)}.part"


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BufferedRandom]:
    """Open a file that was not there, for writing and reading; it is removed at the end unless it was renamed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def kept_when_stopped(path: Path) -> Iterator[None]:
    """Say what lies under the file's name when the person stops the work inside (Ctrl-C)."""
    before = _stamp(path)
    try:
        yield
    except KeyboardInterrupt as stop:
        if _stamp(path) != before:
            kept = f"{path} is complete and proven, what was to follow it (report, signature) may be missing"
        else:
            kept = f"nothing was written, {path} is what it was before" if before else f"no {path} was written"
        raise ExportError(f"Stopped: {kept}.") from stop


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
