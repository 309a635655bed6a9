"""Where the file of a judged strip is now: where the camera put it, or where the agent moved it. The bytes decide."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from agent.errors import Reason, Reject, Retry
from agent.records import FileIdentity
from agent.regular_files import read_regular_file
from agent.strips.disposal import names_when_done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import Camera
    from agent.ledger import Said

NAMES_LOOKED_AT = 4  # of those that the done folder may have given it: more files of one name were never judged apart


@dataclass(frozen=True, slots=True)
class Found:
    """The very bytes that were judged, the folder that they are in, and the path below it."""

    folder: str
    path: str
    identity: FileIdentity
    data: bytes


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there is no file to look at: gone, replaced by another one, unreadable, never read."""

    kind: Literal["gone", "replaced", "unreadable", "never_read", "camera_gone"]
    detail: str


REPLACED = Missing("replaced", "another file has its name now")


def find_file(camera: Camera | None, said: Said) -> Found | Missing:
    """Find the file that was judged, whatever its times have become.

    No link is followed, no more is read than was judged, and only a file with the digest in the ledger is taken.
    """
    if camera is None:
        return Missing("camera_gone", f"its camera {said.camera} is not configured any more")
    if not said.digest:
        return Missing("never_read", "its file was never read, so nobody knows what it held")
    missing = Missing("gone", "there is no such file any more")
    for folder, path in _places(camera, said):
        try:
            data, before, _ = read_regular_file(folder, path, max_bytes=said.size_bytes)
        except (Reject, Retry) as error:
            if error.reason is Reason.TOO_LARGE:
                missing = REPLACED
            elif error.reason is not Reason.FILE_VANISHED and missing.kind == "gone":
                missing = Missing("unreadable", f"{error.reason}: {error.detail}")
            continue
        if hashlib.sha256(data).hexdigest() == said.digest:
            return Found(folder, path, FileIdentity.of(before), data)
        missing = REPLACED
    return missing


def _places(camera: Camera, said: Said) -> Iterator[tuple[str, str]]:
    moved = []
    if camera.done_folder is not None:
        folders, _, name = said.path.rpartition("/")
        names = islice(names_when_done(name, said.strip_id), NAMES_LOOKED_AT)
        moved = [(str(camera.done_folder), f"{folders}/{other}" if folders else other) for other in names]
    here = [(folder, said.path) for folder in dict.fromkeys((str(camera.folder), said.folder)) if folder]
    yield from [*moved, *here] if said.disposal == "done" else [*here, *moved]
