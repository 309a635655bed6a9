"""The raw directories of a TIFF file, walked before any library sees it: is all of it small, and inside the file.

Source: the TIFF 6.0 specification, section 2, and https://www.awaresystems.be/imaging/tiff/bigtiff.html.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from agent.errors import Blame, Reason, Reject, Retry

MAX_PAGES = 8  # four channels and some thumbnails
MAX_TAGS = 1000  # of one page
MAX_TAG_BYTES = 4 << 20  # of one page; a longer colour profile or microscope's log is no strip's


class Tag(IntEnum):
    """Tags that say what a pixel is or where it lies: each stands there once, in whole numbers.

    Others may be of any type, also of unknown ones, which TIFF 6.0 (section 2) tells readers to skip.
    """

    NEW_SUBFILE_TYPE = 254
    SUBFILE_TYPE = 255
    WIDTH = 256
    LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    PLANAR_CONFIGURATION = 284
    PAGE_NUMBER = 297
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    INDEXED = 346
    MATTEING = 32995
    DATA_TYPE = 32996
    IMAGE_DEPTH = 32997
    TILE_DEPTH = 32998


_ESSENTIAL = frozenset(Tag)
_SEVERAL_VALUES = frozenset(
    {
        Tag.BITS_PER_SAMPLE,
        Tag.STRIP_OFFSETS,
        Tag.STRIP_BYTE_COUNTS,
        Tag.PAGE_NUMBER,
        Tag.TILE_OFFSETS,
        Tag.TILE_BYTE_COUNTS,
        Tag.EXTRA_SAMPLES,
        Tag.SAMPLE_FORMAT,
        Tag.DATA_TYPE,
    }
)  # libraries take a list in any other tag for something else than its first number
_WHOLE_NUMBERS = (1, 3, 4, 6, 8, 9, 13, 16, 17, 18)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def incomplete(detail: str) -> Retry:
    """Make the error for a file that may still be growing."""
    return Retry(Reason.INCOMPLETE, detail, Blame.FILE)


def damaged(detail: str) -> Retry:
    """Make the error for a file that contradicts itself; one that is being written may."""
    return Retry(Reason.DAMAGED_TIFF, detail[:300], Blame.FILE)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a file's directories are laid out: classic TIFF or BigTIFF, either byte order."""

    order: str
    big: bool

    def number(self, data: bytes, offset: int, kind: str) -> int:
        """Read one unsigned number; what lies beyond the end of the file is not written yet."""
        size = struct.calcsize(kind)
        if offset + size > len(data):
            raise incomplete(f"ends at byte {len(data)}, inside a directory")
        value: int = struct.unpack_from(self.order + kind, data, offset)[0]
        return value


def check_directories(data: bytes) -> None:
    """Walk the chain of directories without reading a value.

    Raises Reject(NOT_A_TIFF, WRONG_SHAPE, TOO_LARGE), Retry(EMPTY_FILE, INCOMPLETE, DAMAGED_TIFF).
    """
    layout, offset = _header(data)
    seen: set[int] = set()
    while offset:
        if offset >= len(data):
            raise incomplete(f"a directory is expected at byte {offset}, the file ends at {len(data)}")
        if offset in seen:
            raise damaged("the chain of directories runs in a circle")
        seen.add(offset)
        if len(seen) > MAX_PAGES:
            raise Reject(Reason.WRONG_SHAPE, f"more than {MAX_PAGES} pages; a strip has 1, 3 or 4")
        offset = _check_directory(data, layout, offset)


def _header(data: bytes) -> tuple[_Layout, int]:
    """Return the layout and the offset of the first directory."""
    if not data:
        raise Retry(Reason.EMPTY_FILE, "the file has no bytes", Blame.FILE)
    formats = {
        b"II*\0": _Layout("<", big=False),
        b"MM\0*": _Layout(">", big=False),
        b"II+\0": _Layout("<", big=True),
        b"MM\0+": _Layout(">", big=True),
    }
    if not any(data[:16]):
        raise incomplete("begins with zeros: space was reserved, nothing was written")
    layout = formats.get(data[:4])
    if layout is None:
        if any(len(data) < len(magic) and magic.startswith(data) for magic in formats):
            raise incomplete(f"has only {len(data)} bytes")
        raise Reject(Reason.NOT_A_TIFF, f"begins with {data[:8]!r}; a TIFF begins with II or MM and 42 or 43")
    if layout.big and (layout.number(data, 4, "H"), layout.number(data, 6, "H")) != (8, 0):
        raise damaged("a BigTIFF whose offsets are not 8 bytes")
    first = layout.number(data, 8, "Q") if layout.big else layout.number(data, 4, "I")
    if first == 0:
        raise incomplete("has no directory yet")
    return layout, first


def _check_directory(data: bytes, layout: _Layout, offset: int) -> int:
    """Check one directory's entries; return the offset of the next directory, 0 after the last."""
    count_kind, offset_kind, entry_size = ("Q", "Q", 20) if layout.big else ("H", "I", 12)
    entries = layout.number(data, offset, count_kind)
    if entries == 0:
        raise incomplete(f"the directory at byte {offset} is empty")
    if entries > MAX_TAGS:
        raise damaged(f"a directory of {entries} tags")
    start = offset + struct.calcsize(count_kind)
    following = layout.number(data, start + entries * entry_size, offset_kind)
    inline, total = struct.calcsize(offset_kind), 0
    seen: set[int] = set()
    for entry in range(start, start + entries * entry_size, entry_size):
        code, kind = layout.number(data, entry, "H"), layout.number(data, entry + 2, "H")
        values = layout.number(data, entry + 4, offset_kind)
        _check_type(code, kind, values, seen)
        size = values * _TYPE_BYTES.get(kind, 0)
        total += size
        if size > inline and layout.number(data, entry + entry_size - inline, offset_kind) + size > len(data):
            raise incomplete(f"a tag's value lies beyond the end of the file ({len(data)} bytes)")
    if total > MAX_TAG_BYTES:
        raise Reject(Reason.TOO_LARGE, f"tags of {total} bytes; {MAX_TAG_BYTES} are allowed")
    return following


def _check_type(code: int, kind: int, values: int, seen: set[int]) -> None:
    if kind == 0:
        raise incomplete(f"tag {code} is not filled in yet")
    if code not in _ESSENTIAL:
        return
    if code in seen:
        raise damaged(f"tag {code} stands there twice")
    if kind not in _WHOLE_NUMBERS:
        raise damaged(f"tag {code} is of type {kind}, which holds no whole numbers")
    if values > 1 and code not in _SEVERAL_VALUES:
        raise damaged(f"tag {code} has {values} values instead of one")
    seen.add(code)
