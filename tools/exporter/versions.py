"""Versions that rise: the second of the export, and never one that this person's exports had before."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import time
from pathlib import Path

DAY_SECONDS = 86_400


def next_version() -> int:
    """Give the time in seconds since 1970, or one more than the last version: two exports never share one.

    The last one is kept in the person's state folder; where that cannot be written the time alone has to do, and a last
    one that is more than a day ahead came from a clock that was wrong.
    """
    now = int(time.time())
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        (base / "strip-agent").mkdir(parents=True, exist_ok=True)
        with (base / "strip-agent" / "last-version").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read(20).strip()
            last = int(text) if text.isdecimal() else 0
            version = max(now, last + 1) if last < now + DAY_SECONDS else now
            file.truncate(0)
            file.write(str(version))
            return version
    except (OSError, RuntimeError):  # the latter where the person has no home
        return now


def utc(seconds: float) -> str:
    """Write a time as the metadata does."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
