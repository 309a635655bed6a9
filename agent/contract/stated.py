"""Which model a file says that it is, for one that is refused: read without anything that could run it.

Only the outermost fields are looked at; whatever the file claims, that is bounded.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from agent.contract.file_kind import LENGTH_DELIMITED, fields_of, varint
from agent.contract.model import NAME, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METADATA = 14  # number of the field of ModelProto
MOST_FIELDS = 2000
HEAD_BYTES = 20  # of a field: two numbers at the most
MOST_BYTES = 512  # of an entry that may say it
MOST_DIGITS = 15


def stated_model(path: Path) -> tuple[str, int]:
    """Return model id and version; "" and 0 where the file does not say so, or as no model may."""
    try:
        with path.open("rb") as file:
            said = dict(_metadata(file))
    except OSError:
        return "", 0
    model_id, version = said.get("model_id", ""), said.get("version", "")
    is_version = version.isascii() and version.isdigit() and len(version) <= MOST_DIGITS
    return model_id if NAME.fullmatch(model_id) else "", int(version) if is_version else 0


def _metadata(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Yield our short entries, keys without the prefix."""
    place = 0
    for _ in range(MOST_FIELDS):
        file.seek(place)
        head = file.read(HEAD_BYTES)
        tag, at = varint(head, 0, len(head))
        number, kind = tag >> 3, tag & 7
        if not number or kind not in (0, 1, LENGTH_DELIMITED, 5):
            return
        length = {1: 8, 5: 4}.get(kind, 0)
        if kind in (0, LENGTH_DELIMITED):
            value, at = varint(head, at, len(head))
            length = value if kind else 0
        if number == METADATA and kind == LENGTH_DELIMITED and length <= MOST_BYTES:
            file.seek(place + at)
            entry = file.read(length)
            texts = {field: entry[start:end] for field, kind, start, end in fields_of(entry, 0, len(entry)) if kind}
            key = texts.get(1, b"").decode(errors="replace")
            if key.startswith(PREFIX):
                yield key.removeprefix(PREFIX), texts.get(2, b"").decode(errors="replace")
        place += at + length
        if place >= 1 << 62:
            return
