"""What of a slot's inbox has been dealt with, for good: `<slot>.dealt` beside the slot's file, one line for each file.

A digest that is in it never becomes active by itself again, whatever happens to its file's name, times or folder. Names
only spare the reading: a file of the same name and times is not read again. Lines are only ever added, until the file
is written anew without those that say nothing any more.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.errors import Retry
from agent.files import write_atomically
from agent.models.slot_state import NEVER_AGAIN, Dealt, Fate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

DIGESTS_KEPT = 100_000
NAMES_KEPT = 10_000  # of files that are not in the inbox any more
LINES_TO_SPARE = 1_000


class DealtWith:
    """What is known of one slot. One thread changes it, any may ask."""

    def __init__(self, path: Path) -> None:
        self.problem = ""  # why not all of the file could be read at the start
        self._path = path
        self._names: dict[str, Dealt] = {}  # oldest first
        self._digests: dict[str, str] = {}  # sha256 of a model, or of a model and its manifest -> kind; oldest first
        self._model_of: dict[str, str] = {}  # digest of a model and its manifest -> sha256 of the model
        self._unwritten: list[Dealt] = []
        self._lines = 0
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read the file at the start; what cannot be read of it is left out, and `problem` says so."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            self.problem = f"{self._path} cannot be read: {error}"
            return
        self._lines = len(lines)
        for number, line in enumerate(lines, start=1):
            try:
                self._take_in(Dealt(**json.loads(line)))
            except (ValueError, TypeError, RecursionError) as error:
                self.problem = f"{self._path} line {number} cannot be read: {error}"

    @property
    def is_new(self) -> bool:
        """Whether there was no file at the start."""
        return self._lines == 0

    def of_name(self, name: str) -> Dealt | None:
        """Return what was dealt with last under this name."""
        with self._lock:
            return self._names.get(name)

    def kind_of(self, digest: str) -> str:
        """Return how a model, or a model with its manifest, was dealt with; "" when it was not."""
        return self._digests.get(digest, "")

    def digests(self) -> set[str]:
        """Return the models that are not taken from the inbox, by their sha256."""
        with self._lock:
            named = {entry.sha256 for entry in self._names.values()}
            return named | {digest for digest, kind in self._digests.items() if kind != Fate.PAPERS}

    def find(self, beginning: str) -> dict[str, str]:
        """Return the models whose sha256 begins so, sha256 -> the name of their file, which may be gone."""
        with self._lock:
            entries = list(self._names.values())
        return {entry.sha256: entry.file for entry in entries if entry.sha256 and entry.sha256.startswith(beginning)}

    def note(self, entries: Iterable[Dealt]) -> None:
        """Take in what has been dealt with; `write` makes it last."""
        for entry in entries:
            self._take_in(entry)
            self._unwritten.append(entry)

    def write(self, there: Collection[str] | None) -> None:
        """Write what has been noted; raises Retry where that cannot be done, and it is written the next time.

        `there` are the names that are in the inbox, None when that is not known: those are kept.
        """
        if not self._unwritten:
            return
        try:
            self._forget_the_oldest(there)
            if self._lines > 2 * (len(self._names) + len(self._digests)) + LINES_TO_SPARE:
                entries = self._without_repetition()
                write_atomically(self._path, b"".join(_line(entry) for entry in entries))
                self._lines = len(entries)
            else:
                self._append(b"".join(_line(entry) for entry in self._unwritten))
                self._lines += len(self._unwritten)
        except OSError as error:
            raise Retry.of_box(error, f"cannot write {self._path}") from error
        self._unwritten.clear()

    def _append(self, lines: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a power cut
            rest = memoryview(b"\n" + lines if torn else lines)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(descriptor)

    def _take_in(self, entry: Dealt) -> None:
        with self._lock:
            if entry.kind == Fate.FORGOTTEN:
                pushes = (push for push, sha256 in self._model_of.items() if sha256 == entry.sha256)
                gone = {entry.sha256, *pushes} - {""}
                self._names = {
                    name: known for name, known in self._names.items() if not gone & {known.sha256, known.push}
                }
                self._digests = {digest: kind for digest, kind in self._digests.items() if digest not in gone}
                self._model_of = {push: sha256 for push, sha256 in self._model_of.items() if push not in gone}
                return
            if entry.file:
                self._names.pop(entry.file, None)
                self._names[entry.file] = entry
            for digest in entry.digests:
                if entry.kind in NEVER_AGAIN:
                    self._digests.pop(digest, None)
                self._digests.setdefault(digest, entry.kind)
            if entry.sha256 and entry.push in self._digests:
                self._model_of[entry.push] = entry.sha256

    def _forget_the_oldest(self, there: Collection[str] | None) -> None:
        """Names that are gone, and refusals, which would be found again: what was active once is never forgotten."""
        if there is not None and len(self._names) > len(there) + 2 * NAMES_KEPT:
            gone = [name for name in self._names if name not in there]
            self._names = _without(self._names, gone[:-NAMES_KEPT])
        surplus = len(self._digests) - DIGESTS_KEPT
        if surplus > 0:
            kinds = self._digests.items()
            rejected = [digest for digest, kind in kinds if kind in (Fate.REJECTED, Fate.PAPERS)]
            others = [digest for digest, kind in kinds if kind in (Fate.SUPERSEDED, Fate.OUTDATED)]
            self._digests = _without(self._digests, [*rejected, *others][: surplus + DIGESTS_KEPT // 10])
            self._model_of = {push: sha256 for push, sha256 in self._model_of.items() if push in self._digests}

    def _without_repetition(self) -> list[Dealt]:
        named = {digest: entry.kind for entry in self._names.values() for digest in entry.digests}
        others = [(digest, kind) for digest, kind in self._digests.items() if named.get(digest) != kind]
        return [  # where a digest is told of twice, the first line counts, but a kind of NEVER_AGAIN always does
            *(_nameless(digest, kind) for digest, kind in others if kind not in NEVER_AGAIN),
            *self._names.values(),
            *(_nameless(digest, kind) for digest, kind in others if kind in NEVER_AGAIN),
            *(Dealt("", "", sha256, push, Fate.UNREAD) for push, sha256 in self._model_of.items()),
        ]


def _nameless(digest: str, kind: str) -> Dealt:
    return Dealt("", "", "", digest, kind) if kind == Fate.PAPERS else Dealt("", "", digest, "", kind)


def _without(known: dict[str, Any], gone: list[str]) -> dict[str, Any]:
    names = set(gone)
    return {key: value for key, value in known.items() if key not in names}


def _line(entry: Dealt) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"
