"""Frozen records that pass between the steps of the strip's journey."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from agent.contract.measures import Measures  # noqa: TC001 - the worker's protocol reads the annotations
from agent.printable import escape

_LARGEST = (1 << 63) - 1  # that the ledger holds


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells one version of a file from the next. Never the inode: file systems use them again.

    The inode only tells whether a file whose times changed while it waited is still the same one; 0: not known.
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int = field(default=0, compare=False)

    @classmethod
    def of(cls, stat: os.stat_result) -> FileIdentity:
        """Take the identity out of a stat result; times beyond 64 bits (the year 2262) are cut off there."""
        times = _in_64_bits(stat.st_mtime_ns), _in_64_bits(stat.st_ctime_ns)
        return cls(stat.st_size, *times, stat.st_ino & _LARGEST)

    def same_content_expected(self, other: FileIdentity) -> bool:
        """Size and mtime agree; a ctime that differs alone is decided by the digest."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class SettledFile:
    """A file of a camera that stood still for `settle_seconds`; `path` is relative to the camera's folder.

    Paths are `str` with surrogate escapes (`os.fsdecode`), so that any name the file system allows survives.
    """

    camera: str
    path: str
    identity: FileIdentity
    backlog: bool = False  # it was there at the first scan of this run: served when no live strip waits
    skip: bool = False  # the camera's backlog rule says not to score it


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of the ledger that waits to be judged."""

    row: int
    strip_id: str
    camera: str
    path: str
    identity: FileIdentity
    attempts: int
    revision: int  # starts at 1; `strips retry` raises it
    seen_ms: int  # Unix milliseconds of `begin`
    half_written: bool = False  # its file was found incomplete and may still grow
    folder: str = ""  # in which it was taken in, of its camera; "" where that is not known


@dataclass(frozen=True, slots=True)
class Region:
    """One connected region of the heatmap at or above `pixel_threshold`; rows and columns are pixels, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int
    area_px: int
    peak: float  # 0..1
    peak_row: int
    peak_col: int


@dataclass(frozen=True, slots=True)
class HeatmapFiles:
    """What was written; paths are relative to the heatmap folder, POSIX, "" when there is none."""

    tiff_path: str = ""
    tiff_sha256: str = ""
    png_path: str = ""
    png_sha256: str = ""
    state: str = "by_rule"  # saved | by_rule | no_space | failed
    bytes_written: int = 0  # of all of them together


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the worker found out about one strip. `digest` is the sha256 of the file's bytes."""

    score: float
    threshold: float
    anomalous: bool
    anomaly_area_px: int
    defect_count: int
    peak_row: int
    peak_col: int
    rescaled: bool
    inference_ms: float
    digest: str
    heatmaps: HeatmapFiles
    ignore_pixels_sha256: str = ""  # of the camera's file that says which pixels are ignored
    ignore_mask_sha256: str = ""
    measures: Measures | None = None  # None: not measured, or not to be compared with the reference


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message whose bytes are frozen; `row` is the ledger's, oldest first."""

    row: int
    topic: str
    payload: bytes


def _in_64_bits(number: int) -> int:
    return max(-_LARGEST - 1, min(number, _LARGEST))


def make_strip_id(camera: str, path: str, identity: FileIdentity, occurrence: int) -> str:
    """Name a strip: 16 hexadecimal digits, the same again when the ledger is lost and the file is seen once more."""
    parts = (camera.encode(), os.fsencode(path), b"%d %d %d" % (identity.size_bytes, identity.mtime_ns, occurrence))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def show_name(path: str) -> str:
    r"""Show a file name to people and subscribers; control characters, bytes that are no UTF-8 and `\` are escaped."""
    return "".join(escape(char) if char == "\\" or not char.isprintable() else char for char in path)
