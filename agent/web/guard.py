"""Connections: who sends a request too slowly, or only holds a place, is let go, so that others can come in.

uvicorn times idle connections out, but not a request that never ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

HEAD_SECONDS = 10.0  # for all lines of a request
MAX_CONNECTIONS = 256


class GuardedProtocol(H11Protocol):
    """One connection. While all places are taken, the one that has been idle for longest makes room."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._born = self.loop.time()
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        """Take a place, or that of an idle connection; without one, go at once."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > MAX_CONNECTIONS:
            _longest_idle(self.connections, self).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in what came; the time for a request's lines ends when they are whole."""
        before = self.cycle
        if self.is_idle:
            self._wait_for_head()
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the place."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.is_idle:
            self.transport.abort()


def _longest_idle(connections: Iterable[Any], newest: GuardedProtocol) -> GuardedProtocol:
    idle = [one for one in connections if isinstance(one, GuardedProtocol) and one.is_idle]
    return min(idle, key=lambda one: one._born, default=newest)  # noqa: SLF001 - its own class
