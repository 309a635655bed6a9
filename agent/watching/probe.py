"""Does a file answer at all? Reading from a dead share may hang for ever, so the question has a thread of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROBE_SECONDS = 2.0


class Probe:
    """Asks about the files of one camera; at most one question hangs at a time. For one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asking: threading.Thread | None = None

    def answers(self, path: str, seconds: float = PROBE_SECONDS) -> bool:
        """Say whether reading `path`, relative to the folder, comes back within `seconds`, with or without an error."""
        if self._asking is None or not self._asking.is_alive():
            file = self._folder / path
            self._asking = threading.Thread(target=_read_a_byte, args=(file,), name=f"probe {file}", daemon=True)
            self._asking.start()
        self._asking.join(seconds)
        return not self._asking.is_alive()


def _read_a_byte(file: Path) -> None:
    try:
        if file.is_file():
            with file.open("rb") as opened:
                opened.read(1)
    except OSError:
        return  # an error is an answer
