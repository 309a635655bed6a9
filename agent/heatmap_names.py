"""The names of the files that one judgement may leave below the heatmap folder."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

_MAX_SAFE_STEM = 80
_LAST_SECOND = 253_402_300_799  # of the year 9999, where datetime ends; file systems go further

HEATMAP_SUFFIXES = (".tiff", ".png", ".json")
"""Endings of all of them."""


def heatmap_stem(camera: str, mtime_ns: int, path: str, strip_id: str, revision: int) -> str:
    """Name the heatmaps of one judgement, relative to the heatmap folder and without the ending.

    `<camera>/<UTC date of the file's mtime>/<safe stem>-<strip_id>-r<revision>`: a function of ledger columns alone, so
    that doing it again after a crash writes the same files.
    """
    seconds = min(max(mtime_ns // 10**9, 0), _LAST_SECOND)
    date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).date().isoformat()
    return f"{camera}/{date}/{_safe_stem(path)}-{strip_id}-r{revision}"


def _safe_stem(path: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(path).stem).lstrip(".")
    return stem[:_MAX_SAFE_STEM] or "strip"
