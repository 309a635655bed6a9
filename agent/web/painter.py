"""The handle of the process that decodes pictures (paint/): one at a time, killed when it hangs, ended when idle.

What cameras write is decoded by C libraries. In a process of its own a file that crashes them, or takes them over, has
neither the passwords and sessions nor the connections of the page, and a crash costs one picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

JOB_SECONDS = 15.0
IDLE_SECONDS = 120.0
MAX_WAITING = 128  # jobs: a page of thumbnails for some people at once
MAX_PICTURE_BYTES = 64 << 20
MAX_HEAD_BYTES = 1 << 20


class NoPictureError(Exception):
    """There is none; the text says why, for people. `busy`: there may be one later."""

    def __init__(self, detail: str, *, busy: bool = False) -> None:
        super().__init__(detail)
        self.busy = busy


class Painter:
    """Starts the process when a picture is wanted."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._idle: asyncio.TimerHandle | None = None

    async def paint(self, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return facts and the picture as PNG. Raises NoPictureError."""
        if self._waiting >= MAX_WAITING:
            raise NoPictureError("too many pictures are asked for at once", busy=True)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._do(job)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the process."""
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _do(self, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if self._idle is not None:
            self._idle.cancel()
        finished = False
        try:
            async with asyncio.timeout(JOB_SECONDS):
                head, body = await self._exchange(job)
            finished = True
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise NoPictureError(f"the picture's process failed: {type(error).__name__}") from error
        finally:
            if not finished:  # also when whoever asked has gone: an answer half read would be taken for the next one's
                await self.close()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_idle)
        if not head["ok"]:
            raise NoPictureError(str(head["error"])[:500])
        return head["facts"], body

    async def _exchange(self, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agent.web.paint", str(os.getpid()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MAX_HEAD_BYTES,
            )  # fmt: skip
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(json.dumps(job).encode() + b"\n")
        await process.stdin.drain()
        head = json.loads(await process.stdout.readline())
        if not isinstance(head, dict) or not 0 <= int(head.get("size", -1)) <= MAX_PICTURE_BYTES:
            raise ValueError("an answer that cannot be read")
        return head, await process.stdout.readexactly(int(head["size"]))

    def _end_idle(self) -> None:
        if self._process is not None and not self._turn.locked():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process = None
