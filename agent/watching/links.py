"""Links below a camera's folder. None is followed; one that leads to a folder elsewhere is named: strips may lie there.

The camera's folder itself may be a link: `root` is where it really is.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINKS = 100  # of one camera; beyond it they are not told apart
ANSWER_SECONDS = 2.0
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(root: str, folder: str, flags: int = os.O_PATH) -> int:
    """Open a folder below `root` ("" is `root`) without following a link, also one that is put there meanwhile.

    Returns a descriptor. Raises OSError: NotADirectoryError where a link is on the way.
    """
    parts = folder.split("/") if folder else []
    descriptor = os.open(root, (os.O_PATH if parts else flags) | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, part in enumerate(parts, 1):
        above = descriptor
        try:
            descriptor = os.open(part, (flags if number == len(parts) else os.O_PATH) | _FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def stat_below(root: str, path: str) -> os.stat_result:
    """Look at what stands at `path` below `root`, be it a link, without following any on the way. Raises OSError."""
    folder, _, name = path.rpartition("/")
    descriptor = open_folder(root, folder)
    try:
        return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)


class LinkedFolders:
    """Finds out which links lead to folders outside of `root`, in a thread of its own: there may be a share that hangs.

    For one thread. At most one question hangs at a time.
    """

    def __init__(self) -> None:
        self._asking: threading.Thread | None = None
        self._harmless: set[str] = set()

    def among(self, root: str, links: Sequence[str], seconds: float = ANSWER_SECONDS) -> tuple[str, ...]:
        """Return those of `links` (relative to `root`) that lead to such a folder, or do not say within `seconds`."""
        if links and (self._asking is None or not self._asking.is_alive()):
            harmless = self._harmless = set()

            def ask() -> None:
                for link in links:
                    if not _leads_out(root, link):
                        harmless.add(link)

            self._asking = threading.Thread(target=ask, name=f"links {root}", daemon=True)
            self._asking.start()
            self._asking.join(seconds)
        return tuple(link for link in links if link not in self._harmless)


def _leads_out(root: str, link: str) -> bool:
    path = f"{root}/{link}"
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 (names are bytes, not what pathlib makes of them)
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # who may not look there cannot know
        return error.errno != errno.ELOOP
    return not f"{os.path.realpath(path)}/".startswith(f"{root.rstrip('/')}/")
