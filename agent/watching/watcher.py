"""One camera's folder: finds the files, waits until they have settled, hands each out once."""

from __future__ import annotations

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
from agent.watching.links import stat_below
from agent.watching.scans import NEVER, Scans
from agent.watching.status import WatchStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.config import Camera
    from agent.watching.mounts import FolderIdentity

MAX_WAITING = 10_000  # candidates; beyond it scans and hints wait, which bounds the memory
HAND_OUT = 500  # files of one step: one short transaction of the ledger
STARVED_SECONDS = 0.25  # a scan goes on at least this often while live files settle all the time
RETURN_SECONDS = 1.0
UNREACHABLE_INTERVALS = 3


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
        self._first_scan = FirstScan(camera.backlog, ever=first_scan_ever)
        self._first_scan_done = False
        self._scans = Scans(
            camera,
            self._names,
            self._folder,
            self._first_scan,
            self._settling,
            known,
            clock,
        )
        # For others to read
        self._stepping = False
        self._progress_at = clock()
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

    def count_vanished(self) -> None:
        """Count a file that was handed out and was gone before anybody could tell which strip it is."""
        self._settling.vanished += 1

    def close(self) -> None:
        """Stop watching and let go of everything; after the last `step`."""
        self._scans.drop()
        self._folder.close()
        self._bell.set()

    def request_scan(self) -> None:
        """Ask for a full scan as soon as possible. For any thread."""
        self._scans.wanted = True
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
        progress_at = max(self._progress_at, self._scans.last_slice_at)
        silent_seconds = (self._clock() if now is None else now) - progress_at
        if self._stepping and silent_seconds > UNREACHABLE_INTERVALS * self._camera.rescan_seconds:
            state, detail = "unreachable", f"reading the folder has not come back for {silent_seconds:.0f} s"
        last = self._scans.last
        if state == "events" and last and last.unwatched:
            detail = f"{last.unwatched} folders have no file events: raise fs.inotify.max_user_watches"
        return WatchStatus(
            state=state,
            detail=detail,
            files_seen_last_scan=last.files_seen if last else 0,
            ignored_last_scan=last.ignored if last else 0,
            unreadable_last_scan=last.errors if last else 0,
            error=last.first_error if last else "",
            linked_folders=self._scans.linked_folders,
            waiting=len(self._settling) + len(self._returned),
            vanished_before_settle=self._settling.vanished,
            overflows=self._hints.overflows,
            found_without_event=self._found_without_event,
            given_back=len(self._given_back),
        )

    def _step(self) -> list[SettledFile]:
        self._bell.clear()
        if self._folder.check():  # subscribed now: whatever came before it, a scan finds
            self._first_scan.folder_entered()
            self._scans.begin_anew()
        if not self._folder.root:
            self._scans.drop()
            return []
        self._take_returned()
        self._take_hints()
        starved = self._clock() - self._scans.last_slice_at > STARVED_SECONDS
        if starved:  # before anything is let go that would be lost where the ledger fails over the scan
            self._scans.read_slice(self._has_room, self._bell.is_set)
        settled = self._second_looks()
        if not (settled or starved):
            self._scans.read_slice(self._has_room, self._bell.is_set)
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
        self._scans.read_soon(folders, everything=everything)

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

    def _next_due(self) -> float:
        """Tell when the next step has something to do, monotonic seconds."""
        due = [self._folder.next_check]
        if self._folder.root:
            due += [self._return_at] if self._holds_back() else [self._settling.next_due(), self._return_at]
            due += [self._scans.next_due()] if self._has_room() else []
        return min(due)


def _from_old_to_new(file: SettledFile) -> tuple[bool, int, bytes]:
    return file.backlog, file.identity.mtime_ns, natural_key(file.path)
