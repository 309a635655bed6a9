"""Notice commits that a damaged write-ahead log has lost: SQLite goes back to the last good one without a word.

Going on from there would give the numbers of messages that were published to other messages.

Source: https://www.sqlite.org/fileformat2.html, section 4, "The Write-Ahead Log".
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


def has_lost_commits(connection: sqlite3.Connection, path: Path) -> bool:
    """Say whether the log of the ledger `path` holds flushed commits behind the place where SQLite stops reading.

    A power cut tears at most the last transaction, which nobody had been told of. So a commit that is followed by
    another transaction had been flushed, and when SQLite does not see it, something else has damaged the log.
    """
    page_bytes = int(connection.execute("PRAGMA page_size").fetchone()[0])
    seen = int(connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])  # frames; below 0: there is no log
    log = path.with_name(f"{path.name}-wal")
    try:
        with log.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            if seen < 0 or len(header) < _HEADER_BYTES:
                return False
            # A whole header tells even where SQLite sees no frame: it may have begun a new round just before a kill.
            salts = header[16:24] if _is_whole(header) else None  # an unreadable one says nothing
            committed = False
            place = _HEADER_BYTES + max(seen, 0) * (_FRAME_HEADER_BYTES + page_bytes)
            while len(frame := _frame_header(file.fileno(), place)) == _FRAME_HEADER_BYTES:
                salts = salts or frame[8:16]
                if frame[8:16] == salts:  # others are of an earlier round
                    if committed:
                        return True
                    committed = struct.unpack_from(">I", frame, 4)[0] != 0
                place += _FRAME_HEADER_BYTES + page_bytes
    except FileNotFoundError:
        pass
    return False


def _is_whole(header: bytes) -> bool:
    """Check the header's checksum: two sums over its words, whose byte order the last bit of the magic number gives."""
    (magic,) = struct.unpack_from(">I", header)
    words = struct.unpack_from(">6I" if magic & 1 else "<6I", header)
    first = second = 0
    for left, right in zip(words[::2], words[1::2], strict=True):
        first = (first + left + second) & 0xFFFF_FFFF
        second = (second + right + first) & 0xFFFF_FFFF
    return struct.unpack_from(">2I", header, 24) == (first, second)


def _frame_header(descriptor: int, place: int) -> bytes:
    return os.pread(descriptor, _FRAME_HEADER_BYTES, place)
