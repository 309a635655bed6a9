"""The camera's folder itself: it may be missing, come back, be another one, be a link, or have no file events."""

from __future__ import annotations

import errno
import logging
import math
import os
from typing import TYPE_CHECKING

from agent.watching.events import FolderEvents, Hints
from agent.watching.mounts import gives_events, identify, is_still, mount_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Camera
    from agent.names import StripNames
    from agent.watching.mounts import FolderIdentity

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
EVENTS_RETRY_SECONDS = 60.0


class Folder:
    """Follows one camera's folder; `root` is where it really is, "" while it is not there.

    `state` is starting | events | polling | missing | unreadable | closed, `detail` says why ("" with events).
    """

    def __init__(self, camera: Camera, names: StripNames, hints: Hints, clock: Callable[[], float]) -> None:
        self.root = ""
        self.identity: FolderIdentity | None = None  # of what is watched
        self.state = "starting"
        self.detail = ""
        self.next_check = -math.inf  # monotonic seconds
        self.files_expected = False  # strips wait whose files are in it
        self._camera = camera
        self._names = names
        self._hints = hints
        self._clock = clock
        self._mount_point = ""  # of what held the folder when it was entered last
        self._events: FolderEvents | None = None
        self._events_retry_at = math.inf
        self._said = ("", "")

    def check(self) -> bool:
        """Look at the folder, at most once a second; return True when it was entered: everything in it may be new."""
        entered = self._check()
        if self._said != (self.state, self.detail):
            self._said = (self.state, self.detail)
            why = f" ({self.detail})" if self.detail else ""
            log.log(
                logging.INFO if self.root else logging.WARNING, "camera %s: %s%s", self._camera.name, self.state, why
            )
        return entered

    def _check(self) -> bool:
        """Do so.

        Watches follow the inode, not the name, and end silently with a mount: so the name is compared with the inode.
        """
        now = self._clock()
        healthy = self._events is None or self._events.healthy
        if now < self.next_check and healthy:
            return False
        self.next_check = now + CHECK_SECONDS
        try:
            identity = self._identify()
            root = identity[0]
            os.scandir(root).close()
        except OSError as error:
            state = "missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else "unreadable"
            self._leave(state, f"{self._camera.folder}: {error.strerror or error}")
            return False
        if identity == self.identity and healthy and now < self._events_retry_at:
            return False
        mount_point, file_system = mount_of(root)
        if why := self._nothing_is_mounted(root, mount_point):
            self._leave("missing", f"{self._camera.folder}: {why}")
            return False
        self._enter(identity, mount_point, file_system)
        return True

    def _identify(self) -> FolderIdentity:
        """Look at the camera's folder; an idle box does little else."""
        if self.identity is not None and is_still(self._camera.folder, self.identity):
            return self.identity
        return identify(self._camera.folder)

    def watch(self, folder: str) -> bool:
        """Listen to a folder below the root, if there are events; False when the system allows no more of them."""
        return self._events is None or self._events.watch(folder)

    @property
    def events_taken(self) -> bool:
        """Whether all events up to now have become hints; True without events."""
        return self._events is None or self._events.all_taken

    def is_gone(self) -> bool:
        """Whether the folder went away since the last `check`; if so, the next one looks at once."""
        try:
            gone = identify(self.root) != self.identity
        except OSError:
            gone = True
        if gone:
            self.next_check = -math.inf
        return gone

    def close(self) -> None:
        """Stop following."""
        self._leave("closed", "")

    def _nothing_is_mounted(self, root: str, mount_point: str) -> str:
        """Say why an empty folder proves nothing about the files that were in it, "" where it does or is not empty.

        The place of a share that is not mounted is an empty folder. Once anything lies in it, it is a folder like any.
        """
        held = self._mount_point
        unmounted = len(mount_point) < len(held) and f"{root}/".startswith(f"{held.rstrip('/')}/")
        if not (unmounted or self.files_expected):
            return ""
        try:
            with os.scandir(root) as entries:
                if next(entries, None) is not None:
                    return ""
        except OSError as error:
            return error.strerror or str(error)
        if unmounted:
            return f"nothing is mounted on {held} any more"
        return "empty although strips wait whose files were in it; is something to be mounted there?"

    def _enter(self, identity: FolderIdentity, mount_point: str, file_system: str) -> None:
        self._leave("polling", "")
        self.root, self.identity = identity[0], identity
        self._mount_point, self.files_expected = mount_point, False
        if self._camera.watch == "poll":
            self.detail = "so configured"
        elif self._camera.watch == "auto" and not gives_events(file_system):
            self.detail = f"{file_system} does not tell about files that other machines write"
        else:
            try:
                self._events = FolderEvents(self.root, self._names, self._hints)
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
        self.root, self.identity = "", None
        self.state, self.detail = state, detail
