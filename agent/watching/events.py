"""File events of one folder, as hints. They may be lost, late, doubled or wrong: the scan is the truth.

Straight on inotify(7), for reasons that docs/decisions/008-own-inotify.md gives.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

# Flags of inotify(7)
IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE = 0x40, 0x80, 0x100
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_ISDIR = 0x0100_0000, 0x0200_0000, 0x4000_0000
# Without opening and reading: our own would feed the queue.
SOMETHING_CAME = IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB
MASK = SOMETHING_CAME | IN_MOVED_FROM | IN_ONLYDIR | IN_DONT_FOLLOW
HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
READ_BYTES = 64 * 1024
MAX_HINTS = 10_000
LIBC = ctypes.CDLL(None, use_errno=True)


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
    """

    def __init__(self, root: str, pattern: re.Pattern[str], hints: Hints) -> None:
        self._root = root
        self._pattern = pattern
        self._hints = hints
        self._lock = threading.Lock()
        self._folders: dict[int, str] = {}  # watch -> folder, relative to root
        self._ended = False
        self._inotify = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._root_watch = _call("inotify_add_watch", self._inotify, os.fsencode(root), MASK)
            self._stop = os.eventfd(0)
        except BaseException:
            os.close(self._inotify)
            raise
        self._folders[self._root_watch] = ""
        self._thread = threading.Thread(target=self._listen, name=f"events {root}", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether it still listens to the root; if not, close it and make a new one."""
        return not self._ended and self._thread.is_alive()

    def watch(self, folder: str) -> bool:
        """Listen to one more folder, before it is read; return False when the system allows no more of them.

        A folder that is watched already keeps its watch and gets the path it has now.
        """
        try:
            watch = _call("inotify_add_watch", self._inotify, os.fsencode(f"{self._root}/{folder}"), MASK)
        except OSError as error:  # gone or not readable is for whoever reads the folder to say
            return error.errno not in {errno.ENOSPC, errno.ENOMEM}
        with self._lock:
            self._folders[watch] = folder
        return True

    def close(self) -> None:
        """Stop listening and give everything back to the system."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._inotify)
        os.close(self._stop)

    def _listen(self) -> None:
        """Turn events into hints until `close`, or until there is nothing to listen to any more."""
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        try:
            while not self._ended and all(descriptor != self._stop for descriptor, _ in poll.poll()):
                for watch, mask, name in _parse(os.read(self._inotify, READ_BYTES)):
                    self._take(watch, mask, name)
        except Exception:
            logger.exception("File events of %r ended with an error; listening is begun anew", self._root)
        self._ended = True
        self._hints.wake()

    def _take(self, watch: int, mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            self._hints.overflowed()
            return
        with self._lock:
            folder = self._folders.pop(watch, None) if mask & IN_IGNORED else self._folders.get(watch)
        if folder is None:  # not noted yet: whoever is adding this watch reads the folder next
            return
        if mask & IN_IGNORED:  # the folder was removed or unmounted
            self._ended = self._ended or watch == self._root_watch
            return
        path = f"{folder}/{name}" if folder and name else folder or name
        is_folder = bool(mask & IN_ISDIR)
        if mask & IN_MOVED_FROM:
            if is_folder:
                self._forget_below(path)
        elif is_folder or self._pattern.fullmatch(path):
            self._hints.add(path, is_folder=is_folder)

    def _forget_below(self, path: str) -> None:
        """Give back the watches of a folder that moved away; if it moved within the root, it is watched anew there."""
        with self._lock:
            gone = [watch for watch, folder in self._folders.items() if f"{folder}/".startswith(f"{path}/")]
            for watch in gone:
                del self._folders[watch]
        for watch in gone:
            try:
                _call("inotify_rm_watch", self._inotify, watch)
            except OSError as error:
                if error.errno != errno.EINVAL:  # it was deleted meanwhile
                    raise


def _parse(events: bytes) -> Iterator[tuple[int, int, str]]:
    """Yield (watch, mask, name) of what was read from inotify; the name is "" for the watched folder itself."""
    offset = 0
    while offset < len(events):
        watch, mask, _, length = HEADER.unpack_from(events, offset)
        offset += HEADER.size
        yield watch, mask, os.fsdecode(events[offset : offset + length].rstrip(b"\0"))
        offset += length


def _call(function: str, *arguments: int | bytes) -> int:
    """Call one of libc's inotify functions; raises OSError."""
    try:
        result: int = getattr(LIBC, function)(*arguments)
    except AttributeError:
        raise OSError(errno.ENOSYS, "this system has no inotify") from None
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
