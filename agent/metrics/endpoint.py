"""A few lines of HTTP: one `GET /metrics` after the other, each with its time and its size, and nothing else.

Who says nothing, or says it slowly, costs the others a moment and the service nothing: this has a loop of its own.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING

from agent.errors import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

REQUEST_BYTES = 8192
CLIENT_SECONDS = 2.0  # for all of it: asking and reading the answer
BACKLOG = 16
END = b"\r\n\r\n"


class MetricsServer:
    """Listens on `listen`, HOST:PORT, from its first step on. `step` is called by one thread."""

    def __init__(self, listen: str, expose: Callable[[str], tuple[bytes, str]]) -> None:
        """Prepare; `expose` gives the figures for an Accept header, and may raise Retry."""
        self.problem = ""  # why nobody is answered now
        self._listen = listen
        self._expose = expose
        self._socket: socket.socket | None = None

    def step(self, timeout_seconds: float) -> None:
        """Answer one client, waiting for it at most that long. Where the address cannot be had it is tried again."""
        if self._socket is None:
            self._socket = self._open()
        if self._socket is None:
            time.sleep(timeout_seconds)
            return
        self._socket.settimeout(timeout_seconds)
        try:
            client, _ = self._socket.accept()
        except TimeoutError:
            return
        except OSError as error:  # no descriptors; without a pause this would be asked again at once, for ever
            log.warning("/metrics: %s", error)
            time.sleep(timeout_seconds)
            return
        with client:
            try:
                self._serve(client, time.monotonic() + CLIENT_SECONDS)
            except OSError as error:  # it went, or was too slow: Prometheus asks again
                log.debug("a client of /metrics: %s", error)

    def alarms(self) -> list[str]:
        """Say that nobody is answered."""
        return ["metrics_not_served"] if self.problem else []

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()

    def _open(self) -> socket.socket | None:
        host, _, port = self._listen.rpartition(":")
        try:
            family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
            opened = socket.create_server((str(address[0]), int(address[1])), family=family, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:  # a name that can be none, with two dots say, is the latter
            if not self.problem:
                log.error("metrics.listen %s: %s; it is tried again", self._listen, error)  # noqa: TRY400 - no stack
            self.problem = str(error)
            return None
        self.problem = ""
        return opened

    def _serve(self, client: socket.socket, deadline: float) -> None:
        request = b""
        while END not in request:
            if len(request) > REQUEST_BYTES:
                self._send(client, deadline, "431 Request Header Fields Too Large")
                return
            client.settimeout(_left(deadline))
            part = client.recv(REQUEST_BYTES)
            if not part:
                return
            request += part
        first, *rest = request.partition(END)[0].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        method, _, target = first.partition(" ")
        if method != "GET":
            self._send(client, deadline, "405 Method Not Allowed")
        elif target.split(" ")[0].split("?")[0] != "/metrics":
            self._send(client, deadline, "404 Not Found")
        else:
            try:
                body, kind = self._expose(headers.get("accept", ""))
            except Retry as error:
                log.warning("figures cannot be taken: %s", error)
                self._send(client, deadline, "503 Service Unavailable")
                return
            self._send(client, deadline, "200 OK", body, kind)

    def _send(
        self, client: socket.socket, deadline: float, status: str, body: bytes = b"", kind: str = "text/plain"
    ) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        client.settimeout(_left(deadline))
        client.sendall(f"{head}Allow: GET\r\nConnection: close\r\n\r\n".encode() + body)


def _left(deadline: float) -> float:
    """Return the seconds that are left; TimeoutError where none are."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("too slow")
    return left
