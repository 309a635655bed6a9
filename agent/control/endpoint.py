"""The control socket: how the command line asks a running service. One JSON object per line, there and back."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import selectors
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 16
MAX_CLIENTS = 64  # at a time
REQUEST_SECONDS = 5.0  # for all of it, not for each byte
SEND_SECONDS = 60.0  # for all of an answer to be read
ANSWER_SECONDS = 120.0  # a client's patience: the audit of a large ledger takes long
SEND_BYTES = 1 << 18
ACCEPT_PAUSE_SECONDS = 0.1
BUSY_PAUSE_SECONDS = 0.05


class NotRunningError(Exception):
    """No service listens on the control socket."""


def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the service and return its answer. Raises NotRunningError, or OSError when it goes silent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(ANSWER_SECONDS)
        try:
            _at(path, lambda name: _connect(link, name))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(str(path)) from error
        with contextlib.suppress(ConnectionError):  # it has had enough of it, and says why
            link.sendall(json.dumps(request).encode() + b"\n")
        with link.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise ConnectionResetError(f"the service closed {path} without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _connect(link: socket.socket, name: str) -> None:
    """Connect as soon as there is room in the queue: with a time-out a full one fails at once (EAGAIN)."""
    until = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return link.connect(name)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(BUSY_PAUSE_SECONDS)


@dataclass(slots=True)
class _Client:
    """Who has connected: what came in so far, what is still to go out, and until when (monotonic seconds)."""

    link: socket.socket
    user: str
    deadline: float
    asked: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None


class ControlServer:
    """The service's end: one request and one answer for each client, and many clients at a time.

    Who says nothing, sends without end or does not read its answer costs its own place until its time is over, and
    nobody else's. While all places are taken, the client that has been silent for longest makes room.
    """

    def __init__(self, path: Path, answer: Callable[[dict[str, Any], str], dict[str, Any]]) -> None:
        """`answer` gets a request and the system's user who asks."""
        self._path = path
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)  # a dead service's: the lock says that there is no other
        _at(path, self._socket.bind)
        path.chmod(0o660)
        self._socket.listen(MAX_CLIENTS)
        self._socket.settimeout(0.0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._clients: list[_Client] = []  # the oldest first

    def step(self, timeout_seconds: float) -> None:
        """Serve whoever is ready, waiting for at most that long; a client that misbehaves is only logged."""
        now = time.monotonic()
        until = min([now + timeout_seconds, *(client.deadline for client in self._clients)])
        for key, _ in self._selector.select(max(0.0, until - now)):
            client = key.data
            if client is None:
                self._accept()
            elif client in self._clients:  # it may have made room for another one just now
                self._serve(client)
        # Whose time was over before this look, not during it: an answer to another one may have taken long.
        for client in [client for client in self._clients if client.deadline <= now]:
            self._drop(client, "its time is over")

    def close(self) -> None:
        """Stop listening."""
        while self._clients:
            self._forget(self._clients[0])
        self._selector.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            link, _ = self._socket.accept()
        except BlockingIOError:  # gone again
            return
        except OSError as error:  # no descriptors; without a pause this would be asked again at once, for ever
            log.warning("control socket: %s", error)
            time.sleep(ACCEPT_PAUSE_SECONDS)
            return
        if len(self._clients) >= MAX_CLIENTS:
            silent = [client for client in self._clients if client.answer is None]
            self._drop((silent or self._clients)[0], "others wait")
        link.settimeout(0.0)
        client = _Client(link, _user(link), time.monotonic() + REQUEST_SECONDS)
        self._clients.append(client)
        self._selector.register(link, selectors.EVENT_READ, client)

    def _serve(self, client: _Client) -> None:
        try:
            if client.answer is None:
                self._read(client)
            else:
                client.answer = client.answer[client.link.send(client.answer[:SEND_BYTES]) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(client, str(error))
            return
        if client.answer is not None and not client.answer:
            self._forget(client)

    def _read(self, client: _Client) -> None:
        """Take in what has come, and answer once it is a line, too long for one, or all there will be."""
        chunk = client.link.recv(MAX_REQUEST_BYTES + 1)
        client.asked += chunk
        if chunk and b"\n" not in chunk and len(client.asked) <= MAX_REQUEST_BYTES:
            return
        answer = self._answer_to(bytes(client.asked.partition(b"\n")[0]), client.user)
        client.asked.clear()
        client.answer = memoryview(answer + b"\n")
        client.deadline = time.monotonic() + SEND_SECONDS
        self._selector.modify(client.link, selectors.EVENT_WRITE, client)

    def _answer_to(self, line: bytes, user: str) -> bytes:
        """Answer whatever came: nothing that a client sends may end the service."""
        if len(line) > MAX_REQUEST_BYTES:
            return _refusal(f"the request is longer than {MAX_REQUEST_BYTES} bytes")
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return _refusal("a request is one JSON object on one line")
        try:
            return json.dumps(self._answer(request, user)).encode()
        except AgentError as error:
            return _refusal(str(error))
        except Exception as error:
            log.exception("control socket: request %.200r failed", line)
            return _refusal(f"the request failed: {type(error).__name__}: {error}")

    def _drop(self, client: _Client, why: str) -> None:
        state = "a request did not come" if client.answer is None else "an answer was not read"
        log.warning("control socket: %s: %s", state, why)
        self._forget(client)

    def _forget(self, client: _Client) -> None:
        self._clients.remove(client)
        self._selector.unregister(client.link)
        client.link.close()


def user_name(uid: int) -> str:
    """Name a user of the system."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _user(link: socket.socket) -> str:
    """Return who is at the other end, as the system knows it and not as it says."""
    _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return user_name(uid)


def _refusal(error: str) -> bytes:
    return json.dumps({"ok": False, "error": error}).encode()


def _at(path: Path, do: Callable[[str], None]) -> None:
    """Use a socket through its folder's descriptor: names of sockets are limited to about 100 bytes, paths are not."""
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_PATH)
    try:
        do(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
