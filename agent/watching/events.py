"""File events of one folder, as hints. They may be lost, late, doubled or wrong: the scan is the truth."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)

if TYPE_CHECKING:
    import re

logger = logging.getLogger(__name__)

# Without opened and closed-unwritten: our own reading would feed the queue.
EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileMovedEvent,
    FileClosedEvent,
    FileModifiedEvent,
    FileAttribEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirAttribEvent,
]
MAX_HINTS = 10_000
JOIN_SECONDS = 5.0

# Closing an observer is not an error; watchdog logs one when its thread was about to read.
logging.getLogger("watchdog.observers.inotify").addFilter(lambda record: "thread is inactive" not in record.msg)


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

    def take(self) -> tuple[list[str], list[str], bool]:
        """Hand over (files, folders, whether everything must be looked at) and begin anew."""
        with self._lock:
            files, folders, everything = list(self._files), list(self._folders), self._everything
            self._files.clear()
            self._folders.clear()
            self._everything = False
        return files, folders, everything


class FolderEvents:
    """Feeds `hints` with what happens below `root` (absolute, without links) until `close`.

    Raises OSError when the system has no watches or instances left (ENOSPC, EMFILE) or the folder is gone.
    """

    def __init__(self, root: str, pattern: re.Pattern[str], hints: Hints) -> None:
        self._reader = _Reader(hints)
        self._observer = BaseObserver(InotifyEmitter, inotify_fd=self._reader)
        try:
            self._reader.start()
            self._observer.schedule(_Handler(root, pattern, hints), root, recursive=True, event_filter=EVENTS)
            self._observer.start()
        except BaseException:
            self.close()
            raise

    @property
    def healthy(self) -> bool:
        """Whether every thread is alive and the file system is still mounted; if not, close it and make a new one."""
        threads = [self._reader, self._observer, *self._observer.emitters]
        return not self._reader.useless and all(thread.is_alive() for thread in threads)

    def close(self) -> None:
        """Stop all threads and give the watches back; never fails, whatever state watchdog's tables are in."""
        for thread in (self._observer, self._reader):
            try:
                thread.stop()
                if thread.is_alive():
                    thread.join(JOIN_SECONDS)
            except Exception:
                logger.exception("File events did not end cleanly; they are not listened to any more")


class _Reader(InotifyFD):
    """Sees what watchdog keeps from its handlers: lost events, the end of a mount, and its own mistakes."""

    def __init__(self, hints: Hints) -> None:
        super().__init__()
        self.useless = False
        self._hints = hints

    def handle_event(self, event: InotifyEvent) -> None:
        """Note the special events, then let watchdog do its work; an exception would end the thread."""
        if event.is_queue_overflow:
            self._hints.overflowed()
        try:
            super().handle_event(event)
        except Exception:
            logger.exception("watchdog stumbled over %r; listening is begun anew", event)
            self.useless = True
        if event.mask & InotifyConstants.IN_UNMOUNT:
            self.useless = True

    def _add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        # watchdog warns when a folder is watched already, which is usual for new folders within new folders.
        watch = self._get_or_create_watch(path, mask)
        watch.callbacks[id_] = callback
        return watch.wd


class _Handler(FileSystemEventHandler):
    """Turns watchdog's events into hints; an exception here would silently end the observer's thread."""

    def __init__(self, root: str, pattern: re.Pattern[str], hints: Hints) -> None:
        self._prefix = root.rstrip("/") + "/"
        self._pattern = pattern
        self._hints = hints

    def dispatch(self, event: FileSystemEvent) -> None:
        """Hint at the path that exists after the event."""
        try:
            where = event.dest_path if isinstance(event, FileMovedEvent | DirMovedEvent) else event.src_path
            path = str(where).removeprefix(self._prefix)
            if event.is_directory:
                self._hints.add("" if path == self._prefix.rstrip("/") else path, is_folder=True)
            elif self._pattern.fullmatch(path):
                self._hints.add(path, is_folder=False)
        except Exception:
            logger.exception("A file event could not be understood: %r; the next scan finds its file", event)
