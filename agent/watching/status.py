"""What others may know about the watching of one camera."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """What there is to know about the watching of one camera."""

    state: str  # starting | events | polling | missing | unreadable | unreachable | closed
    detail: str  # why it is not, or not wholly, `events`
    files_seen_last_scan: int
    ignored_last_scan: int  # names on the camera's list that the last full scan passed over
    unreadable_last_scan: int  # folders and files that the last full scan could not read
    error: str  # the first of them
    linked_folders: tuple[str, ...]  # links in the folder, as paths, that lead to folders elsewhere or do not say
    waiting: int  # candidates that have not settled, and files that the ledger could not begin yet
    vanished_before_settle: int
    overflows: int  # times the system dropped events
    found_without_event: int  # live files that only a full scan found, although there are events
    given_back: int = 0  # files that have settled and that the ledger cannot take in yet
