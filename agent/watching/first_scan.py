"""The first full scan of this run: what it finds is backlog; at the first one ever the backlog rule skips old files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.names import natural_key
from agent.settling import BacklogCutoff

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.records import FileIdentity


class FirstScan:
    """Tells backlog from live files until the first full scan has been read; afterwards every file is a live one.

    `backlog` is the camera's rule: "all", "none" or a number of the newest. It applies to the first scan `ever`. With
    a rule that skips, a pass before the first scan counts the files and finds the newest; it subscribes to every
    folder as well, so that what arrives later is known by its event.
    """

    def __init__(self, backlog: str | int, *, ever: bool) -> None:
        rule = backlog if ever else "all"
        self.read = False
        self.counting = False
        self._newest = {"all": None, "none": 0}[rule] if isinstance(rule, str) else rule
        self._cutoff: BacklogCutoff | None = None
        self._arrived: set[str] = set()

    @property
    def may_skip(self) -> bool:
        """Whether the rule may skip what a full scan finds now: it has to be known what has arrived meanwhile."""
        return self._newest is not None and not self.read

    def arrived(self, path: str) -> None:
        """Know that an event named a file: it is live, though the scan finds it as well."""
        if not self.read:
            self._arrived.add(path)

    def scan_begins(self) -> None:
        """Begin a full scan, which is the pass that counts if one is due."""
        if self._newest is not None and self._cutoff is None:
            self._cutoff = BacklogCutoff(self._newest)
            self.counting = True

    def count(self, found: Iterable[tuple[str, FileIdentity]]) -> None:
        """Take in what the pass that counts has found."""
        if self._cutoff is not None:
            self._cutoff.count((seen.mtime_ns, natural_key(path)) for path, seen in found if path not in self._arrived)

    def lane(self, path: str, seen: FileIdentity) -> tuple[bool, bool]:
        """Say of a file that a full scan found whether it is backlog, and whether the rule skips it."""
        backlog = not self.read and path not in self._arrived
        cutoff = self._cutoff if backlog else None
        return backlog, cutoff is not None and cutoff.skips((seen.mtime_ns, natural_key(path)))

    def scan_ended(self, *, failed: bool) -> bool:
        """Take in that a full scan came to its end; return True if the first scan must follow at once."""
        counted, self.counting = self.counting, False
        if failed:
            self._cutoff = None if counted else self._cutoff
            return False
        if not counted:
            self.read = True
            self._arrived.clear()
        return counted

    def folder_entered(self) -> None:
        """Forget an unfinished scan and what was counted: another folder may stand there now."""
        self.counting = False
        if not self.read:
            self._cutoff = None
