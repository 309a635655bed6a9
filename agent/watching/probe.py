"""Is a file there, does it answer? A look at a dead share may hang for ever, so each question has its own thread."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from agent.watching.mounts import identify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.watching.mounts import FolderIdentity

PROBE_SECONDS = 2.0


class Probe:
    """Asks about the files of one camera; at most one question hangs at a time. For one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asking: threading.Thread | None = None

    @property
    def hangs(self) -> bool:
        """Whether a question still waits for its answer: the folder does not answer. For any thread."""
        asking = self._asking
        return asking is not None and asking.is_alive()

    def answers(self, path: str, seconds: float = PROBE_SECONDS) -> bool:
        """Say whether reading `path`, relative to the folder, comes back within `seconds`, with or without an error."""
        self._ask(lambda: _read_a_byte(self._folder / path), seconds)
        return not self.hangs

    def is_gone(self, path: str, watched: FolderIdentity | None, seconds: float = PROBE_SECONDS) -> bool:
        """Say whether `path` is not in the folder, and the folder is the one that is watched before and afterwards.

        False where that is not known within `seconds`: another file system may show, or none, in the folder's place.
        """
        gone: list[bool] = []
        self._ask(lambda: gone.append(_is_gone(self._folder, path, watched)), seconds)
        return gone == [True]

    def is_gone_from_there(self, path: str, seconds: float = PROBE_SECONDS) -> bool:
        """Say the same of a folder that nobody watches; an empty one, or none, proves nothing."""
        gone: list[bool] = []
        self._ask(lambda: gone.append(_is_gone_unwatched(self._folder, path)), seconds)
        return gone == [True]

    def _ask(self, question: Callable[[], None], seconds: float) -> None:
        """Ask unless an earlier question still waits; wait for the answer."""
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=question, name=f"probe {self._folder}", daemon=True)
            self._asking.start()
        self._asking.join(seconds)


def _read_a_byte(file: Path) -> None:
    try:
        if file.is_file():
            with file.open("rb") as opened:
                opened.read(1)
    except OSError:
        return  # an error is an answer


def _is_gone_unwatched(folder: Path, path: str) -> bool:
    try:
        watched = identify(folder)
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
    except OSError:
        return False
    return not is_empty and _is_gone(folder, path, watched)


def _is_gone(folder: Path, path: str, watched: FolderIdentity | None) -> bool:
    try:
        as_before = identify(folder) == watched
        try:
            os.lstat(folder / path)
        except (FileNotFoundError, NotADirectoryError):
            return as_before and identify(folder) == watched
    except OSError:
        return False
    return False
