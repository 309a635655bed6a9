"""`state/agent`: whether this agent is there, and what others say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from agent import __version__, messages, mqtt

if TYPE_CHECKING:
    from collections.abc import Callable


class Presence:
    """Births, goodbyes and the will. A run of the agent is known by the moment of its start."""

    def __init__(self, agent: str, base_topic: str, wall_ms: Callable[[], int]) -> None:
        """`wall_ms` returns Unix milliseconds."""
        self.topic = f"{base_topic}/{messages.STATE_AGENT}"
        self._agent = agent
        self._wall_ms = wall_ms
        self._started_ts = messages.utc_text(wall_ms())
        self._born = False  # a birth of this run has reached the broker
        self.birth_arrived = False  # the one of this connection

    def payload(self, *, online: bool, reason: str) -> bytes:
        """Make the state of this moment."""
        now_ms = self._wall_ms()
        return messages.encode(
            messages.AgentState(
                agent=self._agent,
                online=online,
                reason=reason,
                ts=messages.utc_text(now_ms),
                ts_ms=now_ms,
                started_ts=self._started_ts,
                version=__version__,
            )
        )

    def birth(self) -> bytes:
        """Make the state of a connected agent."""
        return self.payload(online=True, reason="connected")

    def will(self) -> mqtt.Will:
        """Make what the broker says when the connection ends without a goodbye."""
        payload = self.payload(online=False, reason="connection_lost")
        return mqtt.Will(self.topic, payload, messages.schema_name(payload))

    def arrived(self) -> None:
        """Note that the broker has the birth of this connection."""
        self._born = self.birth_arrived = True

    def read(self, message: mqtt.Received) -> tuple[bool, bool]:
        """Look at what the broker says about this agent; returns (another agent has our name, we are called offline).

        A will that an earlier run left behind comes late and live; anything else that is foreign is another agent. Not
        every broker says that it gave our place to another.
        """
        try:
            state = messages.AgentState.model_validate_json(message.payload)
        except ValidationError:
            return False, False
        foreign = state.started_ts != self._started_ts
        return foreign and self._born and (message.retain or state.online), self.birth_arrived and not state.online
