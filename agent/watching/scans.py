"""When a camera's folder is read: all of it from time to time, new folders at once; and what comes of what is found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agent.records import SettledFile
from agent.watching.links import LinkedFolders
from agent.watching.scan import Found, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.config import Camera
    from agent.names import StripNames
    from agent.settling import Settling
    from agent.watching.first_scan import FirstScan
    from agent.watching.folder import Folder

SLICE_ENTRIES = 200  # directory entries between two looks at what else is due
SLICE_SECONDS = 0.02
FOLDER_REREAD_SECONDS = 1.0  # a new folder is read again: its first files may be older than its watch
UNREADABLE_RETRY_SECONDS = 5.0
MAX_NEW_FOLDERS = 200
LATE_EVENTS_SECONDS = 60.0  # a thread that hands out none for so long hands out none for ever
EVENTS_PAUSE_SECONDS = 0.01
NEVER, NOW = math.inf, -math.inf


class Scans:
    """One full scan and one of a new folder at most. Used by the watcher's thread; times are monotonic seconds."""

    def __init__(
        self,
        camera: Camera,
        names: StripNames,
        folder: Folder,
        first_scan: FirstScan,
        settling: Settling,
        known: Callable[[Sequence[SettledFile]], set[str]],
        clock: Callable[[], float],
    ) -> None:
        """Make candidates of `settling` of what is found and is not `known`."""
        self._camera = camera
        self._names = names
        self._folder = folder
        self._first_scan = first_scan
        self._settling = settling
        self._known = known
        self._clock = clock
        self.full: Scan | None = None
        self.of_folder: Scan | None = None
        self.wanted = True
        self.new_folders: dict[str, float] = {}  # path -> when to read it; NOW the first time
        self.last: Scan | None = None  # the last full one, read to its end
        self.linked_folders: tuple[str, ...] = ()  # that it met
        self.last_slice_at = NOW
        self._unasked: list[Found] = []  # read by the scan; the ledger has not been asked yet
        self._next_at = NOW
        self._not_before = NOW  # for scans that are wanted
        self._began = NOW
        self._links = LinkedFolders()
        self._events_taken = False  # since the last slice was read
        self._events_missed_at = math.inf  # since when it waits for them
        self._look_at = NOW

    @property
    def under_way(self) -> bool:
        """Whether one of them has begun and is not read to its end."""
        return self.full is not None or self.of_folder is not None

    def begin_anew(self) -> None:
        """Read all of a folder that has just been entered."""
        self.drop()
        self.wanted, self._not_before = True, NOW

    def read_soon(self, folders: Iterable[str], *, everything: bool) -> None:
        """Read these folders, which are new; too many of them, or `everything`: all."""
        self.new_folders |= dict.fromkeys(folders, NOW)
        if everything or "" in self.new_folders or len(self.new_folders) > MAX_NEW_FOLDERS:
            self.new_folders.clear()
            self.wanted = True

    def read_slice(self, has_room: Callable[[], bool], is_interrupted: Callable[[], bool]) -> None:
        """Go on with the scan that is due until something else is. What `known` raises comes out; nothing is lost."""
        until = self._clock() + SLICE_SECONDS
        while has_room() and (scan := self._current()) is not None:
            if not (self._unasked or scan.done):
                self._unasked = scan.read(SLICE_ENTRIES)
            self.last_slice_at = self._clock()
            if self._unasked and scan is self.full and self._waits_for_events():
                break
            self._take_found(scan)
            if scan.done:
                self._ended(scan)
            if is_interrupted() or self._clock() >= min(until, self._settling.next_due()):
                break

    def _waits_for_events(self) -> bool:
        """Say whether what was just read has to wait until the hints of files among it have been taken.

        Of a file that the rule may skip only its event says that it has arrived after the folder was subscribed to. So
        all events up to now have to have become hints, which the watcher takes before it goes on here.
        """
        now = self._clock()
        if not self._first_scan.may_skip or now - self._events_missed_at > LATE_EVENTS_SECONDS:
            return False
        if self._events_taken:
            self._events_taken, self._events_missed_at = False, math.inf
            return False
        self._events_taken = self._folder.events_taken
        self._events_missed_at = min(self._events_missed_at, now)
        self._look_at = NOW if self._events_taken else now + EVENTS_PAUSE_SECONDS
        return True

    def next_due(self) -> float:
        """Tell when the next slice has something to do."""
        return min([self._look_at if self.under_way else self._full_due(), *self.new_folders.values()])

    def drop(self) -> None:
        """Give up what is under way."""
        for scan in (self.full, self.of_folder):
            if scan is not None:
                scan.close()
        self.full = self.of_folder = None
        self._events_taken, self._events_missed_at, self._look_at = False, math.inf, NOW
        self._unasked = []
        self.new_folders.clear()

    def _current(self) -> Scan | None:
        """Return the scan to go on with, begun if it is due; new folders come before a full scan."""
        now = self._clock()
        if self.of_folder is None and not self._unasked:
            folder = next((path for path, due in self.new_folders.items() if due <= now), None)
            if folder is not None:
                self.of_folder = Scan(self._folder.root, folder, self._names, self._folder.watch)
        if self.of_folder is None and self.full is None and now >= self._full_due():
            self.full = Scan(self._folder.root, "", self._names, self._folder.watch)
            self.wanted = False
            self._began = now
            self._first_scan.scan_begins()
        return self.of_folder or self.full

    def _full_due(self) -> float:
        return self._not_before if self.wanted else self._next_at

    def _take_found(self, scan: Scan) -> None:
        """Make candidates of what the ledger does not know."""
        is_full = scan is self.full
        if is_full and self._first_scan.counting:
            self._first_scan.count(self._unasked)
            self._unasked = []
            return
        new = [(path, seen) for path, seen in self._unasked if path not in self._settling]
        known = self._known([SettledFile(self._camera.name, path, seen) for path, seen in new]) if new else set()
        now = self._clock()
        for path, seen in new:
            if path not in known:
                backlog, skip = self._first_scan.lane(path, seen) if is_full else (False, False)
                announced = not is_full  # by its folder's event
                self._settling.look(path, seen, now, backlog=backlog, skip=skip, hinted=announced)
        self._unasked = []

    def _ended(self, scan: Scan) -> None:
        now = self._clock()
        if scan is self.of_folder:
            self.of_folder = None
            if self.new_folders.pop(scan.start, NOW) == NOW:
                self.new_folders[scan.start] = now + FOLDER_REREAD_SECONDS
            return
        self.full = None
        took = now - self._began
        self.last = scan
        self.linked_folders = self._links.among(self._folder.root, scan.links)
        self._next_at = now + self._camera.rescan_seconds
        self._not_before = now + took  # when scans are wanted all the time they take half of the time
        if self._first_scan.scan_ended(failed=scan.failed):
            self._not_before, self.wanted = now, True
        elif scan.failed:
            self._not_before, self.wanted = now + UNREADABLE_RETRY_SECONDS, True
