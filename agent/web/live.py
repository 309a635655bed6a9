"""Tells open pages that there is news, by server-sent events: one question to the agent for all of them together."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, StreamingResponse

from agent.web.asking import AgentRefusedError, AgentSilentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from agent.web.asking import Agent

MAX_STREAMS = 32
LOOK_SECONDS = 0.3
BEAT_SECONDS = 2.0  # pages that hear nothing for longer say that they are stale


class Live:
    """Looks while anybody listens."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._streams = 0
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._version = 0
        self._known: object = None
        self._silent = False

    async def stream(self, _: Request) -> Response:
        """Answer with a stream of events `news` and `beat`, or with 503 while there are as many as allowed."""
        if self._streams >= MAX_STREAMS:
            return PlainTextResponse("too many pages are open\n", 503, {"retry-after": "10"})
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(), headers=headers, media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        self._streams += 1
        try:
            seen = self._version
            yield "retry: 2000\n\n" + self._event("beat")
            while True:
                if self._looking is None or self._looking.done():  # also where it failed
                    self._looking = asyncio.create_task(self._look())
                try:
                    async with asyncio.timeout(BEAT_SECONDS), self._changed:
                        await self._changed.wait_for(lambda seen=seen: self._version != seen)  # type: ignore[misc]
                except TimeoutError:
                    yield self._event("beat")
                    continue
                seen = self._version
                yield self._event("news")
        finally:
            self._streams -= 1

    def _event(self, kind: str) -> str:
        facts = {"now_ms": time.time_ns() // 1_000_000, "silent": self._silent}
        return f"event: {kind}\ndata: {json.dumps(facts)}\n\n"

    async def _look(self) -> None:
        while self._streams:
            try:
                news = await self._agent.ask("page_news")
                known, silent = (news["stream"], news["seq"]), False
            except (AgentSilentError, AgentRefusedError, KeyError):
                known, silent = self._known, True  # type: ignore[assignment] # whatever it was, it is not known better
            if known != self._known or silent != self._silent:
                self._known, self._silent = known, silent
                async with self._changed:
                    self._version += 1
                    self._changed.notify_all()
            await asyncio.sleep(LOOK_SECONDS)
