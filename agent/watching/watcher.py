"""One camera's folder: finds the files, waits until they have settled, hands each out once."""

from __future__ import annotations

import math
import stat
import threading
import time
from typing import TYPE_CHECKING

from agent.names import StripNames, natural_key
from agent.records import FileIdentity, SettledFile
from agent.settling import Settling
from agent.watching.events import Hints
from agent.watching.first_scan import FirstScan
from agent.watching.folder import Folder
from agent.watching.links import LinkedFolders, stat_below
from agent.watching.scan import Found, Scan
from agent.watching.status import WatchStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.config import Camera
    from agent.watching.mounts import FolderIdentity

MAX_WAITING = 10_000  # candidates; beyond it scans and hints wait, which bounds the memory
HAND_OUT = 500  # files of one step: one short transaction of the ledger
SLICE_ENTRIES = 200  # directory entries between two looks at what else is due
SLICE_SECONDS = 0.02
STARVED_SECONDS = 0.25  # a scan goes on at least this often while live files settle all the time
FOLDER_REREAD_SECONDS = 1.0  # a new folder is read again: its first files may be older than its watch
UNREADABLE_RETRY_SECONDS = 5.0
RETURN_SECONDS = 1.0
MAX_NEW_FOLDERS = 200
UNREACHABLE_INTERVALS = 3
NEVER, NOW = math.inf, -math.inf


class CameraWatcher:
    """Hands out the settled files of one camera. One thread calls `wait` and `step`; the rest is for any thread.

    `known` returns the paths, among the files it is asked for, whose identity the ledger has; it is asked for at most
    500 files at a time. What it raises comes out of `step`, and nothing is lost. `first_scan_ever` says that the
    camera's backlog rule has still to be applied; `first_scan_done` tells when it has been.
    """

    def __init__(
        self,
        camera: Camera,
        *,
        known: Callable[[Sequence[SettledFile]], set[str]],
        first_scan_ever: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._camera = camera
        self._known = known
        self._clock = clock
        self._names = StripNames.of(camera.patterns, camera.ignore)
        self._settling = Settling(camera.settle_seconds)
        self._bell = threading.Event()
        self._hints = Hints(self._bell)
        self._folder = Folder(camera, self._names, self._hints, clock)
        self._returned: dict[str, SettledFile] = {}
        self._return_at = NEVER
        self._given_back: set[str] = set()  # and not begun since; they wait although the ledger knows nothing of them
        # Scans
        self._full_scan: Scan | None = None
        self._folder_scan: Scan | None = None
        self._unasked: list[Found] = []  # read by the scan; the ledger has not been asked yet
        self._scan_wanted = True
        self._next_scan_at = NOW
        self._not_before = NOW  # for scans that are wanted
        self._scan_began = NOW
        self._last_slice_at = NOW
        self._new_folders: dict[str, float] = {}  # path -> when to read it; NOW the first time
        self._first_scan = FirstScan(camera.backlog, ever=first_scan_ever)
        self._first_scan_done = False
        # For others to read
        self._stepping = False
        self._progress_at = clock()
        self._last_scan: Scan | None = None  # the last full one, read to its end
        self._links = LinkedFolders()
        self._linked_folders: tuple[str, ...] = ()
        self._found_without_event = 0

    def expect_files(self) -> None:
        """Know, before the first step, that strips wait whose files are in the folder: it cannot be empty."""
        self._folder.files_expected = True

    def wait(self, timeout_seconds: float) -> None:
        """Return when `step` has something to do, at the latest after `timeout_seconds`."""
        pause = min(timeout_seconds, self._next_due() - self._clock())
        if pause > 0:
            self._bell.wait(pause)

    def step(self) -> list[SettledFile]:
        """Do what is due and return at most `HAND_OUT` files that have just settled."""
        if self._folder.state == "closed":
            return []
        self._progress_at = self._clock()
        self._stepping = True
        try:
            return self._step()
        finally:
            self._stepping = False

    def give_back(self, files: Sequence[SettledFile]) -> None:
        """Take back files that the ledger could not begin; a later step hands them out again."""
        if files:
            self._returned |= {file.path: file for file in files}
            self._given_back |= self._returned.keys()
            self._return_at = min(self._return_at, self._clock() + RETURN_SECONDS)  # however often more come back

    def close(self) -> None:
        """Stop watching and let go of everything; after the last `step`."""
        self._drop_scans()
        self._folder.close()
        self._bell.set()

    def request_scan(self) -> None:
        """Ask for a full scan as soon as possible. For any thread."""
        self._scan_wanted = True
        self._bell.set()

    @property
    def folder_identity(self) -> FolderIdentity | None:
        """The folder that is watched, None while there is none. For any thread."""
        return self._folder.identity

    @property
    def first_scan_done(self) -> bool:
        """Whether every file of the first scan was handed out and not given back, or changed, or vanished."""
        return self._first_scan_done

    def status(self, now: float | None = None) -> WatchStatus:
        """Tell how it stands. For any thread; never waits, even while a step hangs on a dead share."""
        state, detail = self._folder.state, self._folder.detail
        silent_seconds = (self._clock() if now is None else now) - self._progress_at
        if self._stepping and silent_seconds > UNREACHABLE_INTERVALS * self._camera.rescan_seconds:
            state, detail = "unreachable", f"reading the folder has not come back for {silent_seconds:.0f} s"
        last = self._last_scan
        if state == "events" and last and last.unwatched:
            detail = f"{last.unwatched} folders have no file events: raise fs.inotify.max_user_watches"
        return WatchStatus(
            state=state,
            detail=detail,
            files_seen_last_scan=last.files_seen if last else 0,
            ignored_last_scan=last.ignored if last else 0,
            unreadable_last_scan=last.errors if last else 0,
            error=last.first_error if last else "",
            linked_folders=self._linked_folders,
            waiting=len(self._settling) + len(self._returned),
            vanished_before_settle=self._settling.vanished,
            overflows=self._hints.overflows,
            found_without_event=self._found_without_event,
            given_back=len(self._given_back),
        )

    def _step(self) -> list[SettledFile]:
        self._bell.clear()
        if self._folder.check():  # subscribed now: whatever came before it, a scan finds
            self._drop_scans()
            self._first_scan.folder_entered()
            self._scan_wanted, self._not_before = True, NOW
        if not self._folder.root:
            self._drop_scans()
            return []
        self._take_returned()
        self._take_hints()
        settled = self._second_looks()
        if not settled or self._clock() - self._last_slice_at > STARVED_SECONDS:
            self._scan_slice()
        if self._first_scan.read and not (self._settling.backlog_waiting or settled or self._returned):
            self._first_scan_done = True
        return settled

    # Looks

    def _take_returned(self) -> None:
        if self._clock() >= self._return_at:
            for path, file in self._returned.items():
                self._settling.look(path, file.identity, self._clock(), backlog=file.backlog, skip=file.skip)
            self._returned.clear()
            self._return_at = NEVER

    def _has_room(self) -> bool:
        return len(self._settling) < MAX_WAITING

    def _holds_back(self) -> bool:
        """Whether a batch was given back: nothing more is handed out before it has had its turn again."""
        return len(self._returned) >= HAND_OUT

    def _take_hints(self) -> None:
        if not self._has_room():
            return
        files, folders, everything = self._hints.take()
        for path in files:
            self._look(path, hinted=True)
            self._first_scan.arrived(path)
        self._new_folders |= dict.fromkeys(folders, NOW)
        if everything or "" in self._new_folders or len(self._new_folders) > MAX_NEW_FOLDERS:
            self._new_folders.clear()
            self._scan_wanted = True

    def _look(self, path: str, *, hinted: bool = False) -> SettledFile | None:
        """Look at one file; return it if that settled it."""
        try:
            found = stat_below(self._folder.root, path)
            seen = None if stat.S_ISDIR(found.st_mode) else FileIdentity.of(found)
        except (FileNotFoundError, NotADirectoryError):
            if self._folder.is_gone():  # not the file's doing: it is looked at when the folder is back
                return None
            seen = None
        except OSError:
            self._settling.forget(path)  # the next scan counts it, and finds it when it can be looked at
            return None
        settled = self._settling.look(path, seen, self._clock(), hinted=hinted)
        if seen is None:
            self._given_back.discard(path)
        if settled is None:
            return None
        return SettledFile(self._camera.name, path, settled.identity, backlog=settled.backlog, skip=settled.skip)

    def _second_looks(self) -> list[SettledFile]:
        """Look again at what is due; return what has settled: live files first, each lane from old to new."""
        if self._holds_back():
            return []
        looked_at = [self._look(path) for path in self._settling.due(self._clock(), HAND_OUT)]
        settled = [file for file in looked_at if file is not None]
        known = self._known(settled) if settled else set()
        self._given_back.difference_update(file.path for file in settled)  # until they are given back again
        for file in settled:
            candidate = self._settling.forget(file.path)
            unannounced = candidate is not None and not candidate.hinted and not candidate.backlog
            if unannounced and file.path not in known and self._folder.state == "events":
                self._found_without_event += 1
        return sorted((file for file in settled if file.path not in known), key=_from_old_to_new)

    # Scans

    def _scan_slice(self) -> None:
        """Go on with the scan that is due until something else is."""
        until = self._clock() + SLICE_SECONDS
        while self._has_room() and (scan := self._current_scan()) is not None:
            self._unasked = self._unasked or scan.read(SLICE_ENTRIES)
            self._progress_at = self._last_slice_at = self._clock()
            self._take_found(scan)
            if scan.done:
                self._scan_ended(scan)
            if self._bell.is_set() or self._clock() >= min(until, self._settling.next_due()):
                break

    def _current_scan(self) -> Scan | None:
        """Return the scan to go on with, begun if it is due; new folders come before a full scan."""
        now = self._clock()
        if self._folder_scan is None and not self._unasked:
            folder = next((path for path, due in self._new_folders.items() if due <= now), None)
            if folder is not None:
                self._folder_scan = Scan(self._folder.root, folder, self._names, self._folder.watch)
        if self._folder_scan is None and self._full_scan is None and now >= self._full_scan_due():
            self._full_scan = Scan(self._folder.root, "", self._names, self._folder.watch)
            self._scan_wanted = False
            self._scan_began = now
            self._first_scan.scan_begins()
        return self._folder_scan or self._full_scan

    def _full_scan_due(self) -> float:
        return self._not_before if self._scan_wanted else self._next_scan_at

    def _take_found(self, scan: Scan) -> None:
        """Make candidates of what the ledger does not know."""
        is_full = scan is self._full_scan
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

    def _scan_ended(self, scan: Scan) -> None:
        now = self._clock()
        if scan is self._folder_scan:
            self._folder_scan = None
            if self._new_folders.pop(scan.start, NOW) == NOW:
                self._new_folders[scan.start] = now + FOLDER_REREAD_SECONDS
            return
        self._full_scan = None
        took = now - self._scan_began
        self._last_scan = scan
        self._linked_folders = self._links.among(self._folder.root, scan.links)
        self._next_scan_at = now + self._camera.rescan_seconds
        self._not_before = now + took  # when scans are wanted all the time they take half of the time
        if self._first_scan.scan_ended(failed=scan.failed):
            self._not_before, self._scan_wanted = now, True
        elif scan.failed:
            self._not_before, self._scan_wanted = now + UNREADABLE_RETRY_SECONDS, True

    def _drop_scans(self) -> None:
        for scan in (self._full_scan, self._folder_scan):
            if scan is not None:
                scan.close()
        self._full_scan = self._folder_scan = None
        self._unasked = []
        self._new_folders.clear()

    def _next_due(self) -> float:
        """Tell when the next step has something to do, monotonic seconds."""
        due = [self._folder.next_check]
        if self._folder.root:
            due += [self._return_at] if self._holds_back() else [self._settling.next_due(), self._return_at]
            if self._has_room():
                scanning = self._full_scan is not None or self._folder_scan is not None
                due += [NOW if scanning else self._full_scan_due(), *self._new_folders.values()]
        return min(due)


def _from_old_to_new(file: SettledFile) -> tuple[bool, int, bytes]:
    return file.backlog, file.identity.mtime_ns, natural_key(file.path)
