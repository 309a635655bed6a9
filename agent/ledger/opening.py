"""Opening the database file: the settings of a connection, the tables, and what counts as damage."""

from __future__ import annotations

import secrets
import sqlite3
from typing import TYPE_CHECKING

from agent.errors import ExitCode, Fatal
from agent.ledger.schema import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAMAGE = (
    "malformed", "not a database", "encrypted", "corrupt",
    "already exists", "duplicate column", "no such ",  # tables unlike the version it states
)  # fmt: skip
CHECKED_BYTES_PER_SECOND = 8 << 20  # by a slow disk; what is read for bringing it over takes about as long again


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open it: `ro` to read, `rwc` to write and to make it where it is missing. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def connect_to_write(path: Path) -> sqlite3.Connection:
    """Open it, or make it, so that every commit is flushed. Raises Fatal where that cannot be done but for damage."""
    try:
        connection = connect(path, "rwc")
    except sqlite3.OperationalError as error:
        raise Fatal(ExitCode.FAILED, f"cannot open the ledger {path}: {error}") from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last commits on a power cut
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA cache_size = -2048")
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            connection.close()
            raise Fatal(ExitCode.FAILED, f"cannot open the ledger {path}: {error}") from error
    return connection


def migrate(connection: sqlite3.Connection, path: Path, patience: Callable[[float], object] = lambda _: None) -> None:
    """Bring the tables to this version; `patience` is called with the seconds that it may take. Raises Fatal."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise Fatal(ExitCode.CONFIG, f"the ledger is of a newer version ({version}): install that strip-agent again")
    if 0 < version < len(MIGRATIONS):
        patience(seconds_to_check(path))
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version = {number}; COMMIT;")
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('stream', ?)", (secrets.token_hex(4),))


def seconds_to_check(path: Path) -> float:
    """Return how long a slow disk may take to read all of it."""
    return 30 + path.stat().st_size / CHECKED_BYTES_PER_SECOND


def is_damage(error: sqlite3.Error) -> bool:
    """Say whether the file itself is wrong: not the disk, nor somebody who holds it."""
    text = str(error)
    return any(sign in text for sign in DAMAGE)


def stream_of(connection: sqlite3.Connection) -> str:
    """Return the name of the stream that the ledger's sequence numbers count. Raises sqlite3.Error."""
    return str(connection.execute("SELECT value FROM meta WHERE key = 'stream'").fetchone()[0])
