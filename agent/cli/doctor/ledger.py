"""Whether the ledger is of a version that this one can read; looked at without opening it as a database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agent.config.file import Problem
from agent.ledger.schema import MIGRATIONS
from agent.patience import LOOK_SECONDS, within

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"SQLite format 3\0"
_VERSION = slice(60, 64)  # of the file: PRAGMA user_version, the highest byte first


def newer_ledger(state_folder: Path) -> list[Problem]:
    """Say so where a newer version of this software has written the ledger; the service would not start with it.

    Only the file's first bytes are read: to open it, even to read, could leave files behind that are not the service's.
    """
    path = state_folder / "ledger.db"
    header = within(LOOK_SECONDS, partial(_header, path), about=("header", path)) or b""
    version = int.from_bytes(header[_VERSION], "big")
    if not header.startswith(_MAGIC) or version <= len(MIGRATIONS):
        return []
    message = (
        f"{path} was written by a newer version of this software (ledger version {version}, this one knows up to "
        f"{len(MIGRATIONS)}): install that one again, or set the ledger aside"
    )
    return [Problem(None, "agent.state_folder", message)]


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(100)
    except OSError:  # not there yet, or not for this user: others tell
        return b""
