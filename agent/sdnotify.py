"""Messages to systemd over $NOTIFY_SOCKET (sd_notify(3)); without systemd they go nowhere and nothing is raised."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SEND_SECONDS = 1.0  # a service manager that does not read must not stop the heart


def notify(*lines: str) -> bool:
    """Send `KEY=value` lines in one message; True when systemd has it.

    Line breaks inside a line become spaces, so that a file name or an error text cannot add a line of its own.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # "@" stands for the zero byte that begins an abstract name.
    name = b"\0" + os.fsencode(address[1:]) if address.startswith("@") else os.fsencode(address)
    message = "\n".join(" ".join(line.splitlines()).replace("\0", " ") for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(SEND_SECONDS)
            channel.connect(name)
            channel.sendall(message.encode(errors="backslashreplace"))
    except OSError:
        return False
    return True


def ready(status: str) -> bool:
    """Say that the service is up, and what it is doing."""
    return notify("READY=1", f"STATUS={status}")


def reloading() -> bool:
    """Say that the configuration is read again; `reloaded` has to follow."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def reloaded(status: str) -> bool:
    """Say that the service goes on, with the old configuration or the new one."""
    return ready(status)


def status(text: str) -> bool:
    """Set the line that `systemctl status` shows."""
    return notify(f"STATUS={text}")


def watchdog() -> bool:
    """Beat: every loop has shown progress since the last time."""
    return notify("WATCHDOG=1")


def stopping(status: str) -> bool:
    """Say that the service is going down on purpose."""
    return notify("STOPPING=1", f"STATUS={status}")


def extend_timeout(seconds: float) -> bool:
    """Ask for `seconds` from now before systemd loses patience with a start or a stop."""
    return notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")


def watchdog_interval_seconds(environ: Mapping[str, str]) -> float | None:
    """Return how often to beat, half of the unit's WatchdogSec; None when nobody watches this process."""
    try:
        watched_pid = int(environ.get("WATCHDOG_PID", os.getpid()))
        interval = int(environ["WATCHDOG_USEC"]) / 1e6 / 2
    except (KeyError, ValueError):
        return None
    return interval if interval > 0 and watched_pid == os.getpid() else None
