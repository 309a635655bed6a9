"""Examine a box before trusting it: everything that can be seen without a running service."""

from __future__ import annotations

import os
import platform
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.clock import BUILT_MS, now_ms
from agent.config.check import check_environment
from agent.config.file import ConfigError, Problem, load_config
from agent.files import free_bytes
from agent.names import StripNames
from agent.records import show_name
from agent.watching.links import LinkedFolders
from agent.watching.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config import Camera, Config

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
LIBRARIES = ("onnxruntime", "numpy", "tifffile", "imagecodecs", "opencv-python-headless", "watchdog", "paho-mqtt",
             "pydantic", "PyYAML", "cryptography")  # fmt: skip
CONNECT_SECONDS = 3.0
PROBE_SECONDS = 60.0
LOOK_SECONDS = 5.0
LOOK_ENTRIES = 200
FEW_WATCHES = 8192
PROBE = """
from agent.worker.process import leave_the_network  # `agent` before onnxruntime: its __init__ says why
print(leave_the_network())
import cv2, imagecodecs, numpy, onnxruntime, tifffile
print(*onnxruntime.get_available_providers())
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `level` is good | note | bad."""

    level: str
    what: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """Turn it into plain JSON values."""
        return asdict(self)


def examine(config_path: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything; nothing is changed."""
    findings = [
        Finding("good", "strip-agent", f"{__version__}, Python {platform.python_version()}, {os.uname().machine}")
    ]
    findings += _libraries()
    findings += _worker()
    findings += _system()
    try:
        config = load_config(config_path, environ)
    except ConfigError as error:
        return findings + [Finding("bad", "configuration", f"{config_path}: {problem}") for problem in error.problems]
    findings.append(Finding("good", "configuration", f"{config_path} is readable"))
    findings += [Finding("note" if p.warning else "bad", "configuration", str(p)) for p in problems_of(config)]
    findings += _folders(config)
    findings.append(_broker(config))
    return findings


def problems_of(config: Config) -> list[Problem]:
    """Return what is wrong with a configuration on this machine, and in the cameras' folders; nothing is changed."""
    return [*check_environment(config), *_linked_folders(config)]


def _linked_folders(config: Config) -> list[Problem]:
    """Read the cameras' folders as the service does, for a few seconds, and warn of links to folders elsewhere."""
    found: dict[int, tuple[str, ...]] = {}

    def look(number: int, camera: Camera) -> None:
        names = StripNames.of(camera.patterns, camera.ignore)
        scan = Scan(os.path.realpath(camera.folder), "", names, watch=lambda _: True)
        until = time.monotonic() + LOOK_SECONDS
        while not scan.done and time.monotonic() < until:
            scan.read(LOOK_ENTRIES)
        scan.close()
        found[number] = LinkedFolders().among(os.path.realpath(camera.folder), scan.links)

    looks = [threading.Thread(target=look, args=numbered, daemon=True) for numbered in enumerate(config.cameras)]
    for thread in looks:
        thread.start()
    until = time.monotonic() + 2 * LOOK_SECONDS  # one that hangs is not waited for
    for thread in looks:
        thread.join(max(0.0, until - time.monotonic()))
    message = "is a link to a folder; links are not followed, and what is behind it is not judged"
    return [
        Problem(None, f"cameras[{number}].folder", f"{show_name(link)} {message}", warning=True)
        for number, links in sorted(dict(found).items())
        for link in links
    ]


def _libraries() -> Iterator[Finding]:
    installed = [name for name in RUNTIMES if _version(name)]
    if len(installed) > 1:
        yield Finding("bad", "onnxruntime", f"{' and '.join(installed)} overwrite each other: uninstall all but one")
    missing = [name for name in LIBRARIES if not _version(name)]
    versions = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES if _version(name))
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
        detail = "the system allows no namespace of their own: workers share the box's network, which they do not use"
        yield Finding("note", "worker's network", detail)
    if found.returncode == 0:
        yield Finding("good", "worker's libraries", f"can be imported; onnxruntime offers {providers.strip()}")
        return
    last = (found.stderr.strip().splitlines() or [""])[-1]
    yield Finding("bad", "worker's libraries", f"importing them ends with {found.returncode}: {last}")


def _system() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding("good", "box", f"{cores} cores, {memory:.1f} GiB of memory, SQLite {sqlite3.sqlite_version}")
    if now_ms() < BUILT_MS:
        yield Finding("bad", "clock", "is before this software was made: nothing ages, and time stamps are wrong")
    watches = Path("/proc/sys/fs/inotify/max_user_watches")
    if watches.exists() and int(watches.read_text(encoding="ascii")) < FEW_WATCHES:
        detail = (
            f"{watches} is {watches.read_text(encoding='ascii').strip()}: deep camera folders may fall back to polling"
        )
        yield Finding("note", "inotify", detail)


def _folders(config: Config) -> Iterator[Finding]:
    for what, folder in (("state folder", config.agent.state_folder), ("heatmap folder", config.heatmap_folder)):
        existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
        free_gib = free_bytes(existing) / 2**30
        enough = free_gib >= config.heatmaps.min_free_gib
        yield Finding("good" if enough else "bad", what, f"{folder}: {free_gib:.1f} GiB free")


def _broker(config: Config) -> Finding:
    where = f"{config.mqtt.host}:{config.mqtt.port}"
    try:
        with socket.create_connection((config.mqtt.host, config.mqtt.port), CONNECT_SECONDS):
            return Finding("good", "broker", f"{where} accepts connections")
    except OSError as error:
        return Finding("note", "broker", f"{where}: {error}; results wait in the outbox until it is there")
