"""`bdSeq`: which connection a birth and a death belong to. In a small file, so that a restart counts on."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from agent.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

VALUES = 256


class BdSeq:
    """Counts the CONNECT packets, 0 to 255 and around. A disk that takes no changes costs only the counting on."""

    def __init__(self, file: Path | None) -> None:
        """Go on from what `file` says, if it is there; None: begin with 0 and remember nothing."""
        self._file = file
        self._last = -1 if file is None else _read(file)
        self._reserved = False  # for a CONNECT that has not been sent yet

    @property
    def value(self) -> int:
        """Return that of the present connection."""
        return self._last

    def reserve(self) -> int:
        """Return the number for the coming CONNECT packet: written down before it is sent, so that none comes twice."""
        if not self._reserved:
            self._last = (self._last + 1) % VALUES
            self._reserved = True
            self._write()
        return self._last

    def used(self) -> None:
        """Note that the CONNECT packet was sent."""
        self._reserved = False

    def _write(self) -> None:
        if self._file is None:
            return
        try:
            write_atomically(self._file, (json.dumps({"bdSeq": self._last}) + "\n").encode())
        except OSError as error:
            log.warning("bdSeq cannot be written down: %s", error)


def _read(file: Path) -> int:
    try:
        values: Any = json.loads(file.read_bytes())
        return int(values["bdSeq"]) % VALUES
    except FileNotFoundError:
        return -1
    except (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
        log.warning("%s is not readable (%s); bdSeq begins with 0", file, error)
        return -1
