"""The primary host: whether it is there, by what it publishes on `spBv1.0/STATE/<host>`."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from agent.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

AHEAD_MS = 300_000  # of this box's clock; a time that lies further ahead may be of a host's clock that is wrong


class PrimaryHost:
    """What is known of it. Of two messages the one with the later time counts, over connections too.

    Where the later one is ahead of this box's clock still, and the other one is not, the host's clock was wrong and has
    been set: then what comes later counts. While this box's own clock is behind, both are ahead of it.
    """

    def __init__(self, host: str, wall_ms: Callable[[], int] = now_ms) -> None:
        self.host = host
        self.online = False
        self._wall_ms = wall_ms
        self._timestamp_ms = 0

    def forget(self) -> None:
        """Begin with a new connection: only what the broker says on it counts."""
        self.online = False

    def heard(self, payload: bytes) -> bool:
        """Take what it says, or its will; returns whether that made a difference. What is no STATE is passed over."""
        try:
            state = json.loads(payload)
            online, timestamp_ms = state["online"], state["timestamp"]
        except (ValueError, LookupError, TypeError, RecursionError):
            online = timestamp_ms = None
        if type(online) is not bool or type(timestamp_ms) is not int or timestamp_ms < 0:
            log.warning("What the primary host %s publishes is no STATE of Sparkplug 3.0", self.host)
            return False
        if timestamp_ms < self._timestamp_ms:
            if not timestamp_ms <= self._wall_ms() + AHEAD_MS < self._timestamp_ms:
                return False
            log.warning("The clock of the primary host %s was ahead and has been set back", self.host)
        self._timestamp_ms = timestamp_ms
        changed = online != self.online
        self.online = online
        return changed
