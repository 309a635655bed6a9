"""Requests: under whose name they come, how many, how large; and what browsers may do with the answers.

Everything here holds for every path, before anything else looks at a request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 64 << 10
MAX_TARGET_BYTES = 4096  # of path and query
BODY_SECONDS = 20.0  # for all of a body
SEND_SECONDS = 20.0  # for a part of an answer to be taken
REQUESTS_A_SECOND = 60.0
BURST = 600.0  # a page with many thumbnails
CLIENTS_REMEMBERED = 1024
METHODS = ("GET", "HEAD", "POST")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


def own_names(listen_host: str) -> frozenset[str]:
    """Return the names that a request may be for, in small letters; any address as well, see `is_ours`."""
    host = socket.gethostname().lower()
    return frozenset(
        {"localhost", listen_host.lower(), host, host.partition(".")[0], f"{host.partition('.')[0]}.local"}
    )


def is_ours(host_header: str, names: frozenset[str]) -> bool:
    """Say whether a request is for this machine: another name that leads here may be a page that was rebound to it.

    An address cannot be rebound, so any is fine.
    """
    host = host_header.strip()
    if host.startswith("["):
        host = host.partition("]")[0][1:]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") in names
    return True


class Rates:
    """How often each client may ask: a bucket that fills up again, of the clients that came last."""

    def __init__(self, clock: Callable[[], float], per_second: float, burst: float) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Count a request; False when it is one too many."""
        now = self._clock()
        left, at = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        if len(self._left) > CLIENTS_REMEMBERED:
            self._left.popitem(last=False)
        return allowed


class Walls:
    """Stands around the whole application."""

    def __init__(self, app: ASGIApp, names: frozenset[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._names = names
        self._rates = Rates(clock, REQUESTS_A_SECOND, BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        status, why = self._refusal(scope)
        sender = _Sender(send)
        if status:
            await _refuse(sender, status, why)
            return
        await self._app(scope, _Body(receive), sender)

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not is_ours(hosts[0].decode("latin-1"), self._names):
            return 421, "this page has another name: use its address, or the name of the machine"
        if scope["method"] not in METHODS:
            return 405, "only GET, HEAD and POST"
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            return 414, "the address is too long"
        client = scope.get("client")
        if not self._rates.take(client[0] if client else ""):
            return 429, "too many requests; wait a second"
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if lengths and (not lengths[0].isdigit() or int(lengths[0]) > MAX_BODY_BYTES):
            return 413, f"at most {MAX_BODY_BYTES} bytes"
        return 0, ""


class TooLargeError(Exception):
    """A body went beyond MAX_BODY_BYTES."""


class _Body:
    """What comes in: no more than allowed, and no slower."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._bytes = 0
        self._until = asyncio.get_running_loop().time() + BODY_SECONDS
        self._done = False

    async def __call__(self) -> Message:
        # Once the body is there, what is waited for is the client's going away, which may take hours.
        async with asyncio.timeout_at(None if self._done else self._until):
            message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > MAX_BODY_BYTES:
            raise TooLargeError
        self._done = self._done or not message.get("more_body", False)
        return message


class _Sender:
    """What goes out: with the headers, and taken in time."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            if not any(name.lower() == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*headers, *HEADERS]}
        await asyncio.wait_for(self._send(message), SEND_SECONDS)


async def _refuse(send: Send, status: int, why: str) -> None:
    body = f"{why}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # nothing that was sent with it is read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
