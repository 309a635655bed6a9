"""The box itself: its libraries, whether a worker can start, memory, clock, file events."""

from __future__ import annotations

import ctypes
import os
import platform
import sqlite3
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.cli.doctor.finding import Finding
from agent.clock import BUILT_MS, now_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import Config

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
PROVIDERS = ("openvino",)  # extras
LIBRARIES = ("numpy", "tifffile", "imagecodecs", "opencv-python-headless", "watchdog", "paho-mqtt",
             "pydantic", "PyYAML", "cryptography")  # fmt: skip
PROBE_SECONDS = 60.0
FEW_WATCHES = 8192
UNIT_MEMORY = 0.8  # of the box's: MemoryMax= of the unit
SUPERVISOR_MIB = 100
TIME_ERROR = 5  # what adjtimex(2) returns while nothing keeps the clock true
PROBE = """
from agent.worker.process import give_up_the_network  # `agent` before onnxruntime: its __init__ says why
print(give_up_the_network())
import cv2, imagecodecs, numpy, onnxruntime, tifffile
print(*onnxruntime.get_available_providers())
"""


def examine_box() -> Iterator[Finding]:
    """Look at what does not depend on the configuration."""
    yield Finding("good", "strip-agent", f"{__version__}, Python {platform.python_version()}, {os.uname().machine}")
    yield from _libraries()
    yield from _worker()
    yield from _system()
    yield clock_finding(now_ms(), _clock_state())


def examine_memory(config: Config) -> Iterator[Finding]:
    """Compare what the unit lets the service have with what a trial beside the active model may take."""
    limit_mib = _memory_bytes() * UNIT_MEMORY / 2**20
    needed_mib = config.models.trial.memory_mib + SUPERVISOR_MIB
    if needed_mib > limit_mib:
        detail = (
            f"models.trial.memory_mib {config.models.trial.memory_mib} does not fit below {limit_mib:.0f} MiB, the "
            "unit's MemoryMax=80%: a candidate that takes it all is ended by the kernel; lower it"
        )
        yield Finding("note", "memory", detail)


def _libraries() -> Iterator[Finding]:
    installed = [name for name in RUNTIMES if _version(name)]
    if len(installed) > 1:
        yield Finding("bad", "onnxruntime", f"{' and '.join(installed)} overwrite each other: uninstall all but one")
    wanted = (*(installed[:1] or RUNTIMES[:1]), *LIBRARIES)
    missing = [name for name in wanted if not _version(name)]
    versions = ", ".join(f"{name} {_version(name)}" for name in (*wanted, *PROVIDERS) if _version(name))
    yield Finding(
        "bad" if missing else "good", "libraries", f"{versions}{'; missing: ' if missing else ''}{missing or ''}"
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _worker() -> Iterator[Finding]:
    """Do what a worker does first in a process of its own: a library built for another processor ends it (SIGILL)."""
    command = [sys.executable, "-c", PROBE]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        yield Finding("bad", "worker's libraries", f"importing them takes longer than {PROBE_SECONDS:g} s")
        return
    alone, _, providers = found.stdout.partition("\n")
    if alone == "True":
        yield Finding("good", "worker's network", "workers can reach none")
    elif alone:
        detail = "the system cannot filter system calls: workers could reach the box's network, which they do not use"
        yield Finding("note", "worker's network", detail)
    if found.returncode == 0:
        yield Finding("good", "worker's libraries", f"can be imported; onnxruntime offers {providers.strip()}")
        return
    last = (found.stderr.strip().splitlines() or [""])[-1]
    yield Finding("bad", "worker's libraries", f"importing them ends with {found.returncode}: {last}")


def _system() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = _memory_bytes() / 2**30
    yield Finding("good", "box", f"{cores} cores, {memory:.1f} GiB of memory, SQLite {sqlite3.sqlite_version}")
    watches = Path("/proc/sys/fs/inotify/max_user_watches")
    if watches.exists() and int(watches.read_text(encoding="ascii")) < FEW_WATCHES:
        detail = (
            f"{watches} is {watches.read_text(encoding='ascii').strip()}: deep camera folders may fall back to polling"
        )
        yield Finding("note", "inotify", detail)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def clock_finding(now: int, state: int | None) -> Finding:
    """Judge the clock by its time, Unix milliseconds, and by what the kernel says of it; None where it may not."""
    if now < BUILT_MS:
        return Finding("bad", "clock", "is before this software was made: nothing ages, and time stamps are wrong")
    if state is None:
        return Finding("note", "clock", "whether anything keeps it true cannot be told here; see `timedatectl`")
    if state == TIME_ERROR:
        detail = "nothing keeps it true (NTP is off, or has no answer yet): times drift; `timedatectl set-ntp true`"
        return Finding("note", "clock", detail)
    return Finding("good", "clock", "is kept true")


def _clock_state() -> int | None:
    """Ask the kernel; it changes nothing, as no mode is set. None where the system forbids even asking."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(512))  # struct timex has 208 bytes; all zero: modes 0
    return None if state < 0 else int(state)
