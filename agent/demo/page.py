"""The demo's page: the same process as on a box, at an address that is free."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import urllib.request
import webbrowser
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.config.web import WebSection
from agent.demo.child import start_child

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

OPEN_SECONDS = 30.0  # the page is opened when it answers within so long


def choose_address() -> str:
    """Return HOST:PORT for the page: the usual one where it is free."""
    usual = WebSection().listen
    host, _, port = usual.rpartition(":")
    with suppress(OSError), socket.create_server((host, int(port))):
        return usual
    with socket.create_server((host, 0)) as free:
        return f"{host}:{free.getsockname()[1]}"


def start_page(config: Path, folder: Path, address: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the page's process, and open it where there is a desktop. Call it from the main thread (`start_child`)."""
    command = [sys.executable, "-m", "agent.cli", "web", "--config", str(config)]
    child = start_child(command, folder / "web.log", environment)
    if sys.stdout.isatty() and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        threading.Thread(target=_open, args=(f"http://{address}/", child), daemon=True).start()
    return child


def _open(url: str, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + OPEN_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{url}static/icon.svg", timeout=5):  # noqa: S310 - our own page
            webbrowser.open(url)
            return
        time.sleep(0.2)
