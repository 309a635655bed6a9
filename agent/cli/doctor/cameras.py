"""What lies in the cameras' folders and will not be judged: behind links, or without the right to read it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.config.file import Problem
from agent.names import StripNames
from agent.records import show_name
from agent.watching.links import LinkedFolders
from agent.watching.scan import Scan

if TYPE_CHECKING:
    from agent.config import Camera, Config

LOOK_SECONDS = 5.0
LOOK_ENTRIES = 200


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at one folder found."""

    links: tuple[str, ...] = ()
    unreadable: int = 0
    first_unreadable: str = ""
    folder_error: str = ""  # of the first folder below that cannot be read


def look_at_cameras(config: Config) -> list[Problem]:
    """Read the cameras' folders as the service does, for a few seconds, and warn of what it will not judge."""
    found: dict[int, _Look] = {}

    def look(number: int, camera: Camera) -> None:
        found[number] = _look(camera)

    looks = [threading.Thread(target=look, args=numbered, daemon=True) for numbered in enumerate(config.cameras)]
    for thread in looks:
        thread.start()
    until = time.monotonic() + 2 * LOOK_SECONDS  # one that hangs is not waited for
    for thread in looks:
        thread.join(max(0.0, until - time.monotonic()))
    return [
        Problem(None, f"cameras[{number}].folder", message, warning=True)
        for number, seen in sorted(dict(found).items())
        for message in _messages(seen)
    ]


def _look(camera: Camera) -> _Look:
    root = os.path.realpath(camera.folder)
    scan = Scan(root, "", StripNames.of(camera.patterns, camera.ignore), watch=lambda _: True)
    until = time.monotonic() + LOOK_SECONDS
    unreadable: list[str] = []
    while not scan.done and time.monotonic() < until:
        files = scan.read(LOOK_ENTRIES)
        unreadable += [path for path, _ in files if not os.access(f"{root}/{path}", os.R_OK, follow_symlinks=False)]
    scan.close()
    links = LinkedFolders().among(root, scan.links)
    folder_error = "" if scan.failed else scan.first_error  # of the camera's folder itself others tell
    return _Look(links, len(unreadable), min(unreadable, default=""), folder_error)


def _messages(seen: _Look) -> list[str]:
    behind = "is a link to a folder; links are not followed, and what is behind it is not judged"
    messages = [f"{show_name(link)} {behind}" for link in seen.links]
    if seen.unreadable:
        what = "file that cannot" if seen.unreadable == 1 else "files that cannot"
        messages.append(
            f"{seen.unreadable} {what} be read by user {os.geteuid()}, the first is "
            f"{show_name(seen.first_unreadable)}; it is not judged (unreadable): see its owner and mode"
        )
    return [*messages, seen.folder_error] if seen.folder_error else messages
