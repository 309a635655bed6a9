"""The keys whose signatures are trusted. A file that is away is looked for until it is there.

It may lie on a share that hangs for ever, so `step` has a loop of its own as long as one is missing. Meanwhile pushes
that it may have signed wait, see `models/papers.py`; nothing else does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.contract.manifest import read_public_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)


class TrustedKeys:
    """What is known of the configured files; both mappings are replaced as a whole, any thread may look."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.known: Mapping[str, bytes] = {}  # key_id -> raw key
        self.missing: Mapping[Path, str] = dict.fromkeys(files, "does not answer (a share that hangs?)")  # file -> why

    def step(self) -> None:
        """Read the files that are missing."""
        for file in list(self.missing):
            try:
                key_id, raw = read_public_key(file)
            except (OSError, ValueError) as error:
                if self.missing.get(file) != str(error):
                    log.error("models.trusted_keys: %s: %s; models that it has signed wait", file, error)  # noqa: TRY400 - the stack tells nothing
                self.missing = {**self.missing, file: str(error)}
                continue
            self.known = {**self.known, key_id: raw}
            self.missing = {other: why for other, why in self.missing.items() if other != file}
