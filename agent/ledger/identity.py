"""Which strip a file is: a new one, or one that the ledger knows, whatever has become of the file's times.

The same path, size and bytes are the same strip. A file that the agent moved or removed itself is over: what comes
after it under its name is new.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.records import make_strip_id

if TYPE_CHECKING:
    import sqlite3

    from agent.records import SettledFile

_SAME_FILE = "camera = ? AND path = ? AND size_bytes = ? AND mtime_ns = ?"


@dataclass(frozen=True, slots=True)
class _Known:
    """A version of a file that the ledger knows."""

    row: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    occurrence: int
    digest: str
    state: str
    disposal: str
    folder: int

    def may_lie_in(self, folder: int) -> bool:
        """Whether it was taken in from that folder, as far as is known."""
        return self.folder in (0, folder)


_KNOWN = "id, size_bytes, mtime_ns, ctime_ns, inode, occurrence, digest, state, disposal, folder"


def find_same(db: sqlite3.Connection, file: SettledFile) -> bool:
    """Say whether the ledger holds the file in just this state."""
    query = f"SELECT 1 FROM strips WHERE {_SAME_FILE} AND ctime_ns = ? AND disposal <> 'done'"  # noqa: S608 - a constant
    return db.execute(query, (*_same_file(file), file.identity.ctime_ns)).fetchone() is not None


def number_of(db: sqlite3.Connection, folder: str) -> int:
    """Return the number that stands for a camera's folder in each of its strips; 0 for "", which is not known."""
    if not folder:
        return 0
    found = db.execute("SELECT id FROM folders WHERE path = ?", (folder,)).fetchone()
    return int(found[0] if found else db.execute("INSERT INTO folders (path) VALUES (?)", (folder,)).lastrowid or 0)


def begin(db: sqlite3.Connection, file: SettledFile, folder: int) -> bool:
    """Account for a settled file of the `folder` of this number; False when its content has to decide."""
    known = _of_these_times(db, file)
    if known is not None:
        return _begin_known(db, file, folder, known)
    if _follow_half_written(db, file, folder):
        return True
    newest = _newest(db, file)
    if newest is None or newest.size_bytes != file.identity.size_bytes:
        _insert(db, file, folder, occurrence=0)
    elif newest.disposal == "done":
        if _may_be_the_removed(newest, file):
            return False
        _insert(db, file, folder, occurrence=0)
    elif _is_the_waiting(newest, file, folder):
        _follow(db, file, folder, newest)  # nobody has read it yet: whatever it holds now is what will be read
    elif newest.digest:
        return False
    else:
        _insert(db, file, folder, occurrence=0)
    return True


def _is_the_waiting(known: _Known, file: SettledFile, folder: int) -> bool:
    """Whether it is the very file that waits, with other times; another folder may have the number of its inode too."""
    same_inode = bool(file.identity.inode) and known.inode == file.identity.inode
    return known.state == "waiting" and same_inode and known.may_lie_in(folder)


def _begin_known(db: sqlite3.Connection, file: SettledFile, folder: int, known: _Known) -> bool:
    """Account for a file whose size and mtime the ledger knows."""
    if known.disposal == "done":
        if _may_be_the_removed(known, file):
            return False
        _insert(db, file, folder, occurrence=known.occurrence + 1)
    elif known.ctime_ns == file.identity.ctime_ns:
        pass
    elif known.state in ("waiting", "skipped"):  # of neither the content is known; a skipped one stays skipped
        _follow(db, file, folder, known)
    else:
        return False
    return True


def _may_be_the_removed(known: _Known, file: SettledFile) -> bool:
    """Whether the agent may have moved or removed the file since it was last looked at; but numbers are used again."""
    return bool(known.inode) and known.inode == file.identity.inode


def _is_the_removed(known: _Known, file: SettledFile) -> bool:
    return known.disposal == "done" and _may_be_the_removed(known, file)


def begin_by_digest(
    db: sqlite3.Connection, file: SettledFile, folder: int, digest: str, *, is_there: bool = False
) -> bool | None:
    """Decide a file by its content; True when it is a new strip. "" is of what cannot be read.

    None: the agent has moved or removed that very file, maybe while it was read. Where it `is_there` after that was
    recorded, another one has come in its place.
    """
    known = _of_these_times(db, file)
    newest = _newest(db, file)
    removed = known or newest
    if not is_there and removed is not None and removed.digest == digest and _is_the_removed(removed, file):
        return None
    if known is not None and known.digest == digest and known.disposal != "done":
        _follow(db, file, folder, known)
        return False
    if known is None and newest is not None and digest and _has_content(newest, file, digest):
        _follow(db, file, folder, newest)
        return False
    _insert(db, file, folder, occurrence=0 if known is None else known.occurrence + 1)
    return True


def _has_content(known: _Known, file: SettledFile, digest: str) -> bool:
    same = known.size_bytes == file.identity.size_bytes and known.digest == digest
    return same and known.disposal != "done"


def seen_again(db: sqlite3.Connection) -> int:
    """Return how often a file was seen with other times and turned out to be the same strip."""
    row = db.execute("SELECT n FROM counters WHERE kind = 'seen_again'").fetchone()
    return int(row[0]) if row else 0


def _same_file(file: SettledFile) -> tuple[Any, ...]:
    return (file.camera, os.fsencode(file.path), file.identity.size_bytes, file.identity.mtime_ns)


def _of_these_times(db: sqlite3.Connection, file: SettledFile) -> _Known | None:
    query = f"SELECT {_KNOWN} FROM strips WHERE {_SAME_FILE} ORDER BY occurrence DESC LIMIT 1"  # noqa: S608 - constants
    row = db.execute(query, _same_file(file)).fetchone()
    return None if row is None else _Known(*row)


def _newest(db: sqlite3.Connection, file: SettledFile) -> _Known | None:
    query = f"SELECT {_KNOWN} FROM strips INDEXED BY strips_path WHERE camera = ? AND path = ? ORDER BY id DESC LIMIT 1"  # noqa: S608 - a constant
    row = db.execute(query, _same_file(file)[:2]).fetchone()
    return None if row is None else _Known(*row)


def _follow(db: sqlite3.Connection, file: SettledFile, folder: int, known: _Known) -> None:
    """Let the strip have the file's new times and folder, and count that."""
    identity = file.identity
    occurrence = known.occurrence
    if identity.mtime_ns != known.mtime_ns:
        last = db.execute(f"SELECT max(occurrence) FROM strips WHERE {_SAME_FILE}", _same_file(file)).fetchone()[0]  # noqa: S608 - a constant
        occurrence = 0 if last is None else last + 1
    db.execute(
        "UPDATE strips SET mtime_ns = ?, ctime_ns = ?, inode = ?, occurrence = ?, folder = ? WHERE id = ?",
        (identity.mtime_ns, identity.ctime_ns, identity.inode, occurrence, folder or known.folder, known.row),
    )
    db.execute("INSERT INTO counters VALUES ('seen_again', '', '', 1) ON CONFLICT DO UPDATE SET n = n + 1")


def _follow_half_written(db: sqlite3.Connection, file: SettledFile, folder: int) -> bool:
    """Let the newest waiting strip of a path that was found incomplete take over the grown file's identity."""
    camera, path, size_bytes, mtime_ns = _same_file(file)
    changed = db.execute(
        "UPDATE strips SET size_bytes = ?, mtime_ns = ?, ctime_ns = ?, inode = ?, occurrence = 0 "
        "WHERE id = (SELECT max(id) FROM strips WHERE camera = ? AND path = ? AND state = 'waiting' "
        "AND half_written = 1 AND folder IN (0, ?))",
        (size_bytes, mtime_ns, file.identity.ctime_ns, file.identity.inode, camera, path, folder),
    )
    return changed.rowcount > 0


def _insert(db: sqlite3.Connection, file: SettledFile, folder: int, *, occurrence: int) -> None:
    strip_id = make_strip_id(file.camera, file.path, file.identity, occurrence)
    # A strip whose file's times changed keeps the id of the identity that it was begun with.
    while db.execute("SELECT 1 FROM strips WHERE strip_id = ?", (strip_id,)).fetchone() is not None:
        occurrence += 1
        strip_id = make_strip_id(file.camera, file.path, file.identity, occurrence)
    db.execute(
        "INSERT INTO strips (strip_id, camera, path, size_bytes, mtime_ns, ctime_ns, inode, occurrence, lane, state, "
        "seen_ms, folder) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            strip_id,
            *_same_file(file),
            file.identity.ctime_ns,
            file.identity.inode,
            occurrence,
            int(file.backlog),  # the lane
            "skipped" if file.skip else "waiting",
            now_ms(),
            folder,
        ),
    )
