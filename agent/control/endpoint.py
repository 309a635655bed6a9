"""The control socket: how the command line asks a running service. One JSON object per line, there and back."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 16
CLIENT_SECONDS = 120.0
SERVER_SECONDS = 5.0


class NotRunningError(Exception):
    """No service listens on the control socket."""


def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the service and return its answer. Raises NotRunningError, or OSError when it goes silent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(CLIENT_SECONDS)
        try:
            _at(path, link.connect)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(str(path)) from error
        link.sendall(json.dumps(request).encode() + b"\n")
        with link.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise ConnectionResetError(f"the service closed {path} without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer


class ControlServer:
    """The service's end. `step` answers at most one request."""

    def __init__(self, path: Path, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._path = path
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)  # a dead service's: the lock says that there is no other
        _at(path, self._socket.bind)
        path.chmod(0o660)
        self._socket.listen(8)

    def step(self, timeout_seconds: float) -> None:
        """Wait for a request and answer it; a client that misbehaves is only logged."""
        self._socket.settimeout(timeout_seconds)
        try:
            link, _ = self._socket.accept()
        except TimeoutError:
            return
        with link:
            try:
                answer = self._answer_to(_read_line(link, time.monotonic() + SERVER_SECONDS))
                link.settimeout(SERVER_SECONDS)
                link.sendall(json.dumps(answer).encode() + b"\n")
            except OSError as error:
                log.warning("control socket: a request could not be answered: %s", error)

    def _answer_to(self, line: bytes) -> dict[str, Any]:
        """Answer whatever came: nothing that a client sends may end the service."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return {"ok": False, "error": "a request is one JSON object on one line"}
        try:
            return self._answer(request)
        except AgentError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:
            log.exception("control socket: request %.200r failed", line)
            return {"ok": False, "error": f"the request failed: {type(error).__name__}: {error}"}

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


def _read_line(link: socket.socket, deadline: float) -> bytes:
    """Read up to the first line break, for the time of one client and not of one byte."""
    line = b""
    while not line.endswith(b"\n") and len(line) <= MAX_REQUEST_BYTES:
        link.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = link.recv(65536)
        if not chunk or time.monotonic() > deadline:
            break
        line += chunk
    return line


def _at(path: Path, do: Callable[[str], None]) -> None:
    """Use a socket through its folder's descriptor: names of sockets are limited to about 100 bytes, paths are not."""
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_PATH)
    try:
        do(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
