"""`state/agent`: whether this agent is there, and what others say about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agent import __version__, messages, mqtt

if TYPE_CHECKING:
    from collections.abc import Callable


class Presence:
    """Births, goodbyes and the will. A run of the agent is known by the moment of its start.

    The will is written before the birth and comes after it. So that both the number and the time tell their order, all
    births of a connection carry the moment at which it began, and its will the millisecond after it.
    """

    def __init__(self, agent: str, base_topic: str, wall_ms: Callable[[], int], number: Callable[[], int]) -> None:
        """`wall_ms` returns Unix milliseconds, `number` that of the coming connection."""
        self.topic = f"{base_topic}/{messages.STATE_AGENT}"
        self._agent = agent
        self._wall_ms = wall_ms
        self._number = number
        self._connection = 0
        self._began_ms = wall_ms()
        self._started_ts = messages.utc_text(self._began_ms)
        self._born = False  # a birth of this run has reached the broker
        self.birth_arrived = False  # the one of this connection

    def _payload(self, now_ms: int, *, online: bool, reason: str) -> bytes:
        return messages.encode(
            messages.AgentState(
                agent=self._agent,
                online=online,
                reason=reason,
                ts=messages.utc_text(now_ms),
                ts_ms=now_ms,
                started_ts=self._started_ts,
                version=__version__,
                connection=self._connection,
            )
        )

    def birth(self) -> bytes:
        """Make the state of a connected agent."""
        return self._payload(self._began_ms, online=True, reason="connected")

    def goodbye(self, reason: str) -> bytes:
        """Make the state of an agent that stops."""
        return self._payload(max(self._wall_ms(), self._began_ms + 2), online=False, reason=reason)

    def will(self, *, retain: bool) -> mqtt.Will:
        """Begin with an attempt to connect: make what the broker says when it ends without a goodbye."""
        self._began_ms = max(self._wall_ms(), self._began_ms + 2)
        self._connection = self._number()
        payload = self._payload(self._began_ms + 1, online=False, reason="connection_lost")
        return mqtt.Will(self.topic, payload, messages.schema_name(payload), retain)

    def arrived(self) -> None:
        """Note that the broker has the birth of this connection."""
        self._born = self.birth_arrived = True

    def read(self, message: mqtt.Received) -> tuple[bool, bool]:
        """Look at what the broker says about this agent; returns (another agent has our name, we are called offline).

        A will that an earlier run left behind comes late and live; anything else that is foreign is another agent. Not
        every broker says that it gave our place to another.
        """
        try:
            state = json.loads(message.payload)
            # Only what every version has: the other agent may be an older or a newer one.
            online, foreign = bool(state["online"]), state["started_ts"] != self._started_ts
        except (ValueError, LookupError, TypeError, RecursionError):
            return False, False
        return foreign and self._born and (message.retain or online), self.birth_arrived and not online
