"""The camera's folder itself: it may be missing, come back, be another one, be a link, or have no file events."""

from __future__ import annotations

import errno
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from agent.watching.events import FolderEvents, Hints
from agent.watching.mounts import file_system_of, gives_events

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from agent.config import Camera

CHECK_SECONDS = 1.0
EVENTS_RETRY_SECONDS = 60.0


class Folder:
    """Follows one camera's folder; `root` is where it really is, "" while it is not there.

    `state` is starting | events | polling | missing | unreadable | closed, `detail` says why ("" with events).
    """

    def __init__(self, camera: Camera, pattern: re.Pattern[str], hints: Hints, clock: Callable[[], float]) -> None:
        self.root = ""
        self.state = "starting"
        self.detail = ""
        self.next_check = -math.inf  # monotonic seconds
        self._camera = camera
        self._pattern = pattern
        self._hints = hints
        self._clock = clock
        self._identity: tuple[str, int, int] | None = None
        self._events: FolderEvents | None = None
        self._events_retry_at = math.inf

    def check(self) -> bool:
        """Look at the folder, at most once a second; return True when it was entered: everything in it may be new.

        Watches follow the inode, not the name, and end silently with a mount: so the name is compared with the inode.
        """
        now = self._clock()
        healthy = self._events is None or self._events.healthy
        if now < self.next_check and healthy:
            return False
        self.next_check = now + CHECK_SECONDS
        try:
            root = os.path.realpath(self._camera.folder)
            found = Path(root).stat()
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "is not a folder", root)
            os.scandir(root).close()
        except OSError as error:
            state = "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else "unreadable"
            self._leave(state, f"{self._camera.folder}: {error.strerror or error}")
            return False
        identity = (root, found.st_dev, found.st_ino)
        if identity == self._identity and healthy and now < self._events_retry_at:
            return False
        self._enter(identity)
        return True

    def watch(self, folder: str) -> bool:
        """Listen to a folder below the root, if there are events; False when the system allows no more of them."""
        return self._events is None or self._events.watch(folder)

    def is_gone(self) -> bool:
        """Whether the folder went away since the last `check`; if so, the next one looks at once."""
        try:
            gone = not stat.S_ISDIR(Path(self.root).stat().st_mode)
        except OSError:
            gone = True
        if gone:
            self.next_check = -math.inf
        return gone

    def close(self) -> None:
        """Stop following."""
        self._leave("closed", "")

    def _enter(self, identity: tuple[str, int, int]) -> None:
        self._leave("polling", "")
        self.root, self._identity = identity[0], identity
        file_system = file_system_of(self.root)
        if self._camera.watch == "poll":
            self.detail = "so configured"
        elif self._camera.watch == "auto" and not gives_events(file_system):
            self.detail = f"{file_system} does not tell about files that other machines write"
        else:
            try:
                self._events = FolderEvents(self.root, self._pattern, self._hints)
                self.state = "events"
            except OSError as error:
                self._events_retry_at = self._clock() + EVENTS_RETRY_SECONDS
                self.detail = f"no file events: {error.strerror or error}"
                if error.errno in {errno.ENOSPC, errno.EMFILE}:
                    self.detail += "; raise fs.inotify.max_user_watches or fs.inotify.max_user_instances"

    def _leave(self, state: str, detail: str) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None
        self._events_retry_at = math.inf
        self.root, self._identity = "", None
        self.state, self.detail = state, detail
