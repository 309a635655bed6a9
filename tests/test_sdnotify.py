"""Messages to systemd, received on a real socket."""

from __future__ import annotations

import os
import socket
import uuid
from typing import TYPE_CHECKING

import pytest

from agent import sdnotify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen where systemd would: on a path, and on an abstract name."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@strip-agent-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def received(systemd: socket.socket) -> list[str]:
    """Return the lines of the next message."""
    return systemd.recv(65536).decode().split("\n")


def test_each_message_arrives_as_systemd_expects_it(systemd: socket.socket) -> None:
    """The keys are those of sd_notify(3), several of them in one message."""
    assert sdnotify.ready("scoring with model 7")
    assert received(systemd) == ["READY=1", "STATUS=scoring with model 7"]
    assert sdnotify.status("3 pending")
    assert received(systemd) == ["STATUS=3 pending"]
    assert sdnotify.watchdog()
    assert received(systemd) == ["WATCHDOG=1"]
    assert sdnotify.extend_timeout(2.5)
    assert received(systemd) == ["EXTEND_TIMEOUT_USEC=2500000"]
    assert sdnotify.stopping("draining")
    assert received(systemd) == ["STOPPING=1", "STATUS=draining"]


def test_a_status_with_line_breaks_cannot_add_a_line(systemd: socket.socket) -> None:
    """A file name that says READY=1 on a line of its own stays part of the status."""
    assert sdnotify.status("bad file\nREADY=1\r\nWATCHDOG=1\x85x\0\udc80")
    assert received(systemd) == ["STATUS=bad file READY=1 WATCHDOG=1 x \\udc80"]


def test_nothing_is_raised_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, a strange one, or a socket that is gone: the answer is False."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not sdnotify.ready("x")
    for address in ("", "relative", str(tmp_path / "gone"), "@gone-" + uuid.uuid4().hex, "/" + "x" * 300):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not sdnotify.ready("x")


def test_a_manager_that_does_not_read_cannot_stop_the_service(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the socket's buffer is full, the message is given up after a moment."""
    monkeypatch.setattr(sdnotify, "SEND_SECONDS", 0.05)
    assert systemd.fileno() >= 0
    assert not all(sdnotify.status("x" * 1000) for _ in range(10_000))


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, None),
    ],
)
def test_the_beat_is_twice_as_fast_as_the_watchdog(environ: dict[str, str], seconds: float | None) -> None:
    """One late beat is forgiven; a watchdog that is meant for another process is not ours."""
    assert sdnotify.watchdog_interval_seconds(environ) == seconds
