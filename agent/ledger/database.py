"""One SQLite connection, one writer at a time, transactions of milliseconds, every commit flushed to the disk."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from agent.errors import Blame, ExitCode, Fatal, Reason, Retry
from agent.files import fsync_folder
from agent.ledger.opening import connect, connect_to_write, is_damage, migrate, seconds_to_check, stream_of
from agent.ledger.salvage import salvage
from agent.ledger.schema import MIGRATIONS
from agent.ledger.wal import has_lost_commits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

CORRUPT_COPIES_KEPT = 2
NEW = ".new"  # appended to the ledger's name while a damaged one is being replaced
DAMAGED_LOG = ".damaged-log"
SUFFIXES = ("-wal", "-shm", "")
CHECKED_ALWAYS_BYTES = 64 << 20  # a larger one is looked through only when it was not closed properly


class Database:
    """The connection. Everything that uses it takes `transaction()`; nothing else ever writes."""

    def __init__(self, path: Path, *, patience: Callable[[float], object] = lambda _: None) -> None:
        """`patience` is called with the seconds that something long may take, before it begins."""
        self.path = path
        self.trouble: Reason | None = None  # why the last transaction could not be written
        self.set_aside: Path | None = None  # where a damaged ledger was moved to at this start
        self._lock = threading.RLock()
        self._mark_at_close = False
        self._log_in_doubt = False  # a commit failed: what it left in the log must not be taken for more
        try:
            _finish_replacing(path)
        except OSError as error:
            raise Fatal(ExitCode.FAILED, f"the damaged ledger cannot be replaced yet: {error}") from error
        self._connection = connect_to_write(path)
        try:
            _check(self._connection, path, patience)
            migrate(self._connection, path, patience)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                self._connection.close()
                raise Fatal(ExitCode.FAILED, f"cannot open the ledger {path}: {error}") from error
            log.critical("the ledger is damaged (%s): a new one is started with what can be read", error)
            patience(seconds_to_check(path))
            try:
                self.set_aside = _replace(path, self._connection)
            except OSError as failure:
                raise Fatal(ExitCode.FAILED, f"the damaged ledger cannot be replaced yet: {failure}") from failure
            self._connection = connect_to_write(path)
        self._connection.execute("DELETE FROM meta WHERE key = 'closed'")
        self._mark_at_close = True
        self.stream = stream_of(self._connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection for one transaction; raises Retry (the box is to blame) where SQLite cannot."""
        with self._lock:
            try:
                with self._noting_trouble(), self._committing():
                    yield self._connection
            except Retry as error:
                self.trouble = error.reason
                raise
            self.trouble = None

    @contextmanager
    def _committing(self) -> Iterator[None]:
        if self._log_in_doubt:
            self._begin_log_anew()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._log_in_doubt |= isinstance(error, sqlite3.Error)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _begin_log_anew(self) -> None:
        """Empty the write-ahead log after a commit that could not be flushed, before anything else is written to it.

        SQLite writes over the frames of such a commit. Of two that failed something would be left behind the next
        good one, and after a kill it would look like flushed commits that are missing.
        """
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("somebody still reads the write-ahead log that has to be begun anew")
        self._log_in_doubt = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection for a few reads; raises Retry (the box is to blame) where SQLite cannot."""
        with self._lock, self._noting_trouble():
            yield self._connection

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read for as long as it takes without holding anybody up; raises as `reading` does, and where it is away."""
        with self._noting_trouble(), contextlib.closing(connect(self.path, "ro")) as connection:
            connection.execute("BEGIN")
            if stream_of(connection) != self.stream:
                raise sqlite3.OperationalError("another ledger lies in its place")
            yield connection

    def close(self) -> None:
        """Close; the write-ahead log is folded into the file, and a mark says so if there never was any trouble."""
        with self._lock:
            if self._mark_at_close:
                with contextlib.suppress(sqlite3.Error):  # without the mark the next start takes longer, no more
                    self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('closed', 'properly')")
            self._connection.close()

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """Raise Retry for what SQLite cannot do now; after any error the next start looks through the ledger."""
        try:
            yield
        except sqlite3.Error as error:
            self._mark_at_close = False
            if not isinstance(error, sqlite3.OperationalError):
                raise
            reason = Reason.NO_SPACE if "full" in str(error) else Reason.IO_ERROR
            raise Retry(reason, f"ledger {self.path}: {error}", Blame.BOX) from error


def _check(connection: sqlite3.Connection, path: Path, patience: Callable[[float], object]) -> None:
    if _kept_log(path).exists():
        raise sqlite3.DatabaseError("malformed: that was found at an earlier start, and no new one has begun since")
    if has_lost_commits(connection, path):
        raise sqlite3.DatabaseError("malformed: its write-ahead log is damaged, commits are missing")
    if path.stat().st_size > CHECKED_ALWAYS_BYTES and _was_closed(connection):
        return
    patience(seconds_to_check(path))
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {found}")


def _was_closed(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM meta WHERE key = 'closed'").fetchone() is not None


def last_seq(db: sqlite3.Connection) -> int:
    """Return the sequence number of the last result, 0 where there is none."""
    row = db.execute("SELECT n FROM counters WHERE kind = 'seq'").fetchone()
    return int(row[0]) if row else 0


def take_over_newer(path: Path) -> Path | None:
    """Replace a ledger of a newer version by one of this version with what both know; return where the newer one went.

    None where it is not newer. The new one has its own stream, as after damage. Nobody else may have it open.
    """
    connection = connect_to_write(path)
    if connection.execute("PRAGMA user_version").fetchone()[0] <= len(MIGRATIONS):
        connection.close()
        return None
    return _replace(path, connection, "newer")


def _replace(path: Path, damaged: sqlite3.Connection, why: str = "corrupt") -> Path:
    """Put a new ledger with what can be read in the place of the damaged one; return where that went.

    From the first step on the damage stays known, and the log whole, whatever ends this before the last step. Raises
    Fatal where there is no room for the new one: what waits in the damaged one is not given up for that.
    """
    _keep_log(path)
    new = path.with_name(path.name + NEW)
    connection = _start_anew(new)
    try:
        kept = salvage(damaged, connection)
        log.warning("brought over into the new ledger: %s", ", ".join(f"{n} {table}" for table, n in kept.items()))
    except sqlite3.Error as error:
        if not is_damage(error) and isinstance(error, sqlite3.OperationalError):
            _give_up(connection, new, error)
        log.critical("nothing could be brought over into the new ledger: %s", error)
        connection.close()
        connection = _start_anew(new)
    try:
        busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        _give_up(connection, new, error)
    if busy or frames != moved:
        _give_up(connection, new, "its write-ahead log cannot be folded into it")
    connection.close()
    with contextlib.suppress(sqlite3.Error):
        damaged.close()
    target = _set_aside(path, why)
    new.replace(path)
    fsync_folder(path.parent)
    return target


def _give_up(new: sqlite3.Connection, path: Path, why: object) -> NoReturn:
    new.close()
    for suffix in SUFFIXES:  # it may be what the room is missing for
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    raise Fatal(ExitCode.FAILED, f"the damaged ledger cannot be replaced yet: {path}: {why}")


def _kept_log(path: Path) -> Path:
    """Return where the log of a damaged ledger is kept: while that is there, the ledger is known to be damaged."""
    return path.with_name(path.name + DAMAGED_LOG)


def _keep_log(path: Path) -> None:
    """Give the log a second name: SQLite removes the first one as soon as the damaged ledger is closed."""
    log_file, kept = path.with_name(f"{path.name}-wal"), _kept_log(path)
    if kept.exists():
        return
    try:
        os.link(log_file, kept)
    except FileNotFoundError:
        kept.touch()
    except OSError:  # no second names here; what SQLite has open stays readable for it
        log_file.rename(kept)
    fsync_folder(path.parent)


def _finish_replacing(path: Path) -> None:
    """Go on where a replacement was interrupted; between its renames the new ledger was complete already."""
    new, kept, log_file = path.with_name(path.name + NEW), _kept_log(path), path.with_name(f"{path.name}-wal")
    if path.exists():
        if kept.exists() and kept.stat().st_size and not log_file.exists():
            shutil.copyfile(kept, log_file)  # for what was not yet moved from the log into the ledger
        return
    if kept.exists():
        copies = _set_aside_copies(path)
        kept.rename(f"{copies[-1] if copies else _new_name_aside(path)}-wal")
    if new.exists():
        new.replace(path)
    fsync_folder(path.parent)


def _start_anew(path: Path) -> sqlite3.Connection:
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = connect_to_write(path)
    try:
        migrate(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise Fatal(ExitCode.FAILED, f"cannot start a new ledger {path}: {error}") from error
    return connection


def _set_aside(path: Path, why: str) -> Path:
    """Move a damaged ledger and then its write-ahead log out of the way; keep the newest two."""
    target = _new_name_aside(path, why)
    path.rename(target)
    kept = _kept_log(path)
    if kept.exists():
        kept.rename(f"{target}-wal")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for old in _set_aside_copies(path, why)[:-CORRUPT_COPIES_KEPT]:
        for suffix in SUFFIXES:
            old.with_name(old.name + suffix).unlink(missing_ok=True)
    return target


def _new_name_aside(path: Path, why: str = "corrupt") -> Path:
    name = f"{path.name}.{why}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    taken = [other.name for other in path.parent.glob(f"{name}*")]
    return path.with_name(f"{name}.{len(taken)}" if taken else name)


def _set_aside_copies(path: Path, why: str = "corrupt") -> list[Path]:
    """Return those that are there, the oldest first."""
    found = path.parent.glob(f"{path.name}.{why}.*")
    return sorted(copy for copy in found if not copy.name.endswith(("-wal", "-shm")))
