"""Asks the running service over its control socket, without holding anybody else up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_SECONDS = 5.0
MAX_ANSWER_BYTES = 16 << 20
AT_A_TIME = 4  # of the places at the socket, which others need too
CHUNK_BYTES = 1 << 16


class AgentSilentError(Exception):
    """The service does not answer; the text says why."""


class AgentRefusedError(Exception):
    """The service answers no; the text is its own, for people. `code` is one of `agent.messages.Fault`, or ""."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail)
        self.code = code


class Agent:
    """The service at the other end of the control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places = asyncio.Semaphore(AT_A_TIME)

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a command. Raises AgentSilentError and AgentRefusedError."""
        request = json.dumps({"command": command, **arguments}).encode() + b"\n"
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._places:
                line = await self._exchange(request)
        except TimeoutError as error:
            raise AgentSilentError(f"no answer within {ANSWER_SECONDS:g} s") from error
        except OSError as error:
            raise AgentSilentError(error.strerror or str(error)) from error
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise AgentSilentError("an answer that cannot be read") from error
        if not isinstance(answer, dict) or "ok" not in answer:
            raise AgentSilentError("an answer that cannot be read")
        if not answer.pop("ok"):
            raise AgentRefusedError(str(answer.get("error", "")), str(answer.get("code", "")))
        return answer

    async def _exchange(self, request: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(0.0)
            # Through its folder's descriptor: names of sockets are limited to about 100 bytes, paths are not.
            folder = os.open(self._path.parent, os.O_DIRECTORY | os.O_PATH | os.O_CLOEXEC)
            try:
                await loop.sock_connect(link, f"/proc/self/fd/{folder}/{self._path.name}")
            finally:
                os.close(folder)
            await loop.sock_sendall(link, request)
            answer = bytearray()
            while not answer.endswith(b"\n"):
                chunk = await loop.sock_recv(link, CHUNK_BYTES)
                if not chunk:
                    raise ConnectionResetError("the service closed the connection")
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ConnectionResetError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return bytes(answer)
