"""File events of one folder, as hints. They may be lost, late, doubled or wrong: the scan is the truth.

They come from watchdog's layer for one inotify instance, not from its observers, for reasons that
docs/decisions/008-watchdog-without-its-tables.md gives.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import termios
import threading
from array import array
from typing import TYPE_CHECKING

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

    from agent.names import StripNames

logger = logging.getLogger(__name__)

# Without opening and reading: our own would feed the queue.
MASK = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
)
NOT_ALLOWED = -1  # what watchdog returns as a watch, and notes as one, where the right to read a folder is missing
MAX_HINTS = 10_000


class Hints:
    """Paths that events named, until the watcher takes them. More than MAX_HINTS become "look at everything"."""

    def __init__(self, bell: threading.Event) -> None:
        self.overflows = 0
        self._bell = bell
        self._lock = threading.Lock()
        self._files: dict[str, None] = {}
        self._folders: dict[str, None] = {}
        self._everything = False

    def add(self, path: str, *, is_folder: bool) -> None:
        """Note that something happened to a path, relative to the camera's folder."""
        with self._lock:
            named = self._folders if is_folder else self._files
            if path in named:
                return
            if len(self._files) + len(self._folders) >= MAX_HINTS:
                self._files.clear()
                self._folders.clear()
                self._everything = True
            else:
                named[path] = None
        self._bell.set()

    def overflowed(self) -> None:
        """Note that the system dropped events."""
        with self._lock:
            self.overflows += 1
            self._everything = True
        self._bell.set()

    def wake(self) -> None:
        """Have the watcher look after its folder now."""
        self._bell.set()

    def take(self) -> tuple[list[str], list[str], bool]:
        """Hand over (files, folders, whether everything must be looked at) and begin anew."""
        with self._lock:
            files, folders, everything = list(self._files), list(self._folders), self._everything
            self._files.clear()
            self._folders.clear()
            self._everything = False
        return files, folders, everything


class FolderEvents:
    """Feeds `hints` with what happens in `root` (absolute, without links) and in the folders given to `watch`.

    Raises OSError when the system has no instances or watches left (EMFILE, ENOSPC) or the folder is gone.
    It is watchdog's `WatchCallback`: the methods that begin with `on_` are called by watchdog's thread.
    """

    def __init__(self, root: str, names: StripNames, hints: Hints) -> None:
        self._root = root
        self._names = names
        self._hints = hints
        self._lock = threading.Lock()
        self._numbers = map(CallbackId, itertools.count())
        self._watched: dict[WatchDescriptor, tuple[str, CallbackId]] = {}  # folder, relative to root
        self._ended = False
        self._inotify = _Inotify(f"events {root}")
        try:
            self._subscribe("")
        except BaseException:
            self.close()
            raise

    @property
    def healthy(self) -> bool:
        """Whether it still listens to the root; if not, close it and make a new one."""
        return not self._ended and self._inotify.is_alive()

    @property
    def all_taken(self) -> bool:
        """Whether everything that has happened up to now has been noted in the hints; True where that cannot be."""
        return not self.healthy or self._inotify.has_handled_all()

    def watch(self, folder: str) -> bool:
        """Listen to one more folder, before it is read; return False when the system allows no more of them.

        A folder that is watched already keeps its watch and gets the path it has now.
        """
        try:
            self._subscribe(folder)
        except OSError as error:  # gone or not readable is for whoever reads the folder to say
            return error.errno not in {errno.ENOSPC, errno.ENOMEM}
        return True

    def close(self) -> None:
        """Stop listening and give everything back to the system."""
        self._inotify.stop()
        self._inotify.join()

    def _subscribe(self, folder: str) -> None:
        """Ask the system each time: the same path may be another folder by now, and the same folder have another path.

        The lock is held until the watch is noted, so that its end cannot be told before. The root stays the root, even
        where it is mounted once more below itself.
        """
        number = next(self._numbers)
        with self._lock:
            watch = self._inotify.add_callback(os.fsencode(f"{self._root}/{folder}"), MASK, self, number)
            known = self._watched.get(watch)
            if known is not None or watch == NOT_ALLOWED:
                self._inotify.remove_callbacks([(watch, number)])
            if watch == NOT_ALLOWED:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
            if known is None:
                self._watched[watch] = (folder, number)
            elif known[0]:
                self._watched[watch] = (folder, known[1])

    def on_event(self, event: InotifyEvent) -> None:
        """Turn what happened in a folder into a hint."""
        if self._ended:
            return
        try:
            self._take(event.wd, event.mask, os.fsdecode(event.name))
        except Exception:
            logger.exception("File events of %r ended with an error; listening is begun anew", self._root)
            self._end()

    def on_queue_overflow(self) -> None:
        """Have everything looked at."""
        self._hints.overflowed()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Forget a folder that was removed or unmounted."""
        with self._lock:
            folder, _ = self._watched.pop(wd, (None, None))
        if folder == "":
            self._end()

    def _take(self, watch: WatchDescriptor, mask: int, name: str) -> None:
        with self._lock:
            known = self._watched.get(watch)
        if known is None:  # given back meanwhile
            return
        path = "/".join(part for part in (known[0], name) if part)
        is_folder = bool(mask & InotifyConstants.IN_ISDIR)
        if mask & InotifyConstants.IN_MOVED_FROM:
            if is_folder:
                self._forget_below(path)
        elif not self._names.passes_over(path, is_folder=is_folder) and (is_folder or self._names.is_strip(path)):
            self._hints.add(path, is_folder=is_folder)

    def _forget_below(self, path: str) -> None:
        """Give back the watches of a folder that moved away; if it moved within the root, it is watched anew there."""
        with self._lock:
            gone = {
                watch: number
                for watch, (folder, number) in self._watched.items()
                if f"{folder}/".startswith(f"{path}/")
            }
            for watch in gone:
                del self._watched[watch]
            self._inotify.remove_callbacks(list(gone.items()))

    def _end(self) -> None:
        self._ended = True
        self._hints.wake()


class _Inotify(InotifyFD):
    """One inotify instance with watchdog's thread that reads it, running. Raises OSError where there is no room."""

    def __init__(self, name: str) -> None:
        self._inotify_fd = -1
        self._at_work = False  # its thread may hold events that nobody has been told of
        try:
            super().__init__()
        except OSError:
            if self._inotify_fd != -1:  # there was no room for what comes after it
                os.close(self._inotify_fd)
            raise
        os.set_inheritable(self._inotify_fd, False)  # noqa: FBT003 (positional only)
        self.name = name
        try:
            self.start()
        except RuntimeError as error:
            self._close_resources()
            raise OSError(errno.EAGAIN, f"no thread for file events: {error}") from error

    def has_handled_all(self) -> bool:
        """Say whether nothing is in the queue, and nothing taken out of it is still under way."""
        waiting = array("i", [0])
        try:
            fcntl.ioctl(self._inotify_fd, termios.FIONREAD, waiting)
        except OSError:  # closed meanwhile
            return True
        return not waiting[0] and not self._at_work  # in this order: it is at work before it empties the queue

    def _check_inotify_fd(self) -> bool:
        """Wait for events, as its thread does before it reads them, when all that it has read before is handled."""
        self._at_work = False
        there_are = super()._check_inotify_fd()
        self._at_work = True
        return there_are
