"""The control socket: whatever a client sends, the service goes on."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.control.endpoint import ControlServer, NotRunningError, ask
from agent.errors import Blame, Reason, Retry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer as the service does, and fail as it may."""
    if request.get("command") == "busy":
        raise Retry(Reason.IO_ERROR, "the ledger is busy", Blame.BOX)
    if request.get("command") == "bug":
        raise ZeroDivisionError
    return {"ok": True, "echo": request}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Serve on a socket whose path is longer than the system allows for names of sockets."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    server = ControlServer(folder / "control.sock", answer)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.step(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder / "control.sock"
    stop.set()
    thread.join()
    server.close()


def say(path: Path, data: bytes) -> dict[str, Any]:
    """Send raw bytes and return the answer."""
    link = socket.socket(socket.AF_UNIX)
    with link:
        descriptor = os.open(path.parent, os.O_DIRECTORY)
        link.connect(f"/proc/self/fd/{descriptor}/{path.name}")
        os.close(descriptor)
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        found: dict[str, Any] = json.loads(link.makefile("rb").readline())
        return found


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"no json\n", b"[]\n", b"1\n", b"[" * 60000 + b"\n", b"\xff\n", b'{"command": "x"}' * 9000]
)
def test_no_request_ends_the_service(path: Path, data: bytes) -> None:
    """Nonsense gets an answer that says so, and the next client is served."""
    assert not say(path, data)["ok"]
    assert ask(path, {"command": "status"})["ok"]


@pytest.mark.parametrize(("command", "part"), [("busy", "the ledger is busy"), ("bug", "ZeroDivisionError")])
def test_a_request_that_fails_is_answered(path: Path, command: str, part: str) -> None:
    """An error inside is told to who asked, and the next client is served."""
    refused = ask(path, {"command": command})
    assert not refused["ok"]
    assert part in refused["error"]
    assert ask(path, {"command": "status"})["ok"]


def test_without_a_service_the_client_says_so(tmp_path: Path) -> None:
    """A missing socket, and one that a dead service left, are both "not running"."""
    with pytest.raises(NotRunningError):
        ask(tmp_path / "control.sock", {"command": "status"})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(NotRunningError):
        ask(tmp_path / "dead.sock", {"command": "status"})
