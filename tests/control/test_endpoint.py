"""The control socket: whatever a client sends, the service goes on."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from agent.control import endpoint
from agent.control.endpoint import ControlServer, NotRunningError, ask
from agent.errors import Blame, Reason, Retry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


LONG = 1 << 24  # characters, far more than the system keeps for a socket


def answer(request: dict[str, Any], user: str) -> dict[str, Any]:
    """Answer as the service does, and fail as it may."""
    if request.get("command") == "busy":
        raise Retry(Reason.IO_ERROR, "the ledger is busy", Blame.BOX)
    if request.get("command") == "bug":
        raise ZeroDivisionError
    if request.get("command") == "unwritable":
        return {"ok": True, "path": b"no text"}
    if request.get("command") == "long":
        return {"ok": True, "text": "x" * LONG}
    return {"ok": True, "echo": request, "user": user}


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
    with connect(path) as link:
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


def test_who_asks_is_who_the_system_says(path: Path) -> None:
    """Not what the request claims: it stands in the record of what was changed."""
    assert ask(path, {"command": "status", "user": "somebody"})["user"] == pwd.getpwuid(os.getuid()).pw_name


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


def connect(path: Path) -> socket.socket:
    """Connect and say nothing."""
    link = socket.socket(socket.AF_UNIX)
    descriptor = os.open(path.parent, os.O_DIRECTORY)
    try:
        link.connect(f"/proc/self/fd/{descriptor}/{path.name}")
    finally:
        os.close(descriptor)
    return link


@pytest.mark.parametrize("number", [10, 3 * endpoint.MAX_CLIENTS])
def test_silent_clients_stop_nobody_else(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connect and say nothing, or half of something: who asks is answered, and without waiting."""
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 600.0)
    with contextlib.ExitStack() as silent:
        for one in range(number):
            silent.enter_context(connect(path)).sendall(b'{"command"' if one % 2 else b"")
        assert ask(path, {"command": "status"})["ok"]


def test_a_client_that_takes_too_long_loses_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole request: one byte now and then does not make it longer."""
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 0.3)
    until = time.monotonic() + 150
    with connect(path) as slow, contextlib.suppress(BrokenPipeError):
        while time.monotonic() < until:
            slow.sendall(b" ")
            time.sleep(0.01)
    assert time.monotonic() < until, "it kept its place"


def test_an_answer_that_nobody_reads_holds_up_nobody(path: Path) -> None:
    """It is sent piece by piece, beside the others' and only as long as somebody takes it."""
    with connect(path) as lazy:
        lazy.sendall(b'{"command": "long"}\n')
        assert ask(path, {"command": "status"})["ok"]
        lines = lazy.makefile("rb")
        assert len(json.loads(lines.readline())["text"]) == LONG


def test_a_request_beyond_the_limit_is_told_so(path: Path) -> None:
    """The client hears why, although it could not even send all of it."""
    refused = ask(path, {"command": "x" * (1 << 22)})
    assert refused == {"ok": False, "error": f"the request is longer than {endpoint.MAX_REQUEST_BYTES} bytes"}


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """The service is busy with something long and many ask: none of them fails at once."""
    server = ControlServer(tmp_path / "control.sock", answer)
    answers: list[dict[str, Any]] = []
    clients = [
        threading.Thread(target=lambda: answers.append(ask(tmp_path / "control.sock", {"command": "status"})))
        for _ in range(endpoint.MAX_CLIENTS + 8)
    ]
    try:
        for client in clients:
            client.start()
        until = time.monotonic() + 150
        while len(answers) < len(clients) and time.monotonic() < until:
            server.step(0.05)
    finally:
        server.close()
    assert [one["ok"] for one in answers] == [True] * len(clients)


def test_a_client_whose_request_came_in_time_is_answered_after_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What kept the service busy is not counted against those who waited for it."""
    now = [100.0]

    def answer_late(*_: object) -> dict[str, Any]:
        now[0] += 2 * endpoint.REQUEST_SECONDS
        return {"ok": True}

    monkeypatch.setattr(endpoint, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    server = ControlServer(tmp_path / "control.sock", answer_late)
    with (
        contextlib.closing(server),
        connect(tmp_path / "control.sock") as one,
        connect(tmp_path / "control.sock") as two,
    ):
        for _ in range(2):
            server.step(5)  # both are accepted
        one.sendall(b"{}\n")
        two.sendall(b"{}\n")
        for _ in range(4):
            server.step(5)
        assert json.loads(one.makefile("rb").readline())["ok"]
        assert json.loads(two.makefile("rb").readline())["ok"]


def test_an_answer_that_is_no_json_costs_that_request_only(path: Path) -> None:
    """The client is told, and the service answers the next one."""
    assert "TypeError" in ask(path, {"command": "unwritable"})["error"]
    assert ask(path, {"command": "status"})["ok"]
