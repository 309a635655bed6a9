"""The primary host: whether it is there, by what it publishes on `spBv1.0/STATE/<host>`."""

from __future__ import annotations

import json
import logging

log = logging.getLogger(__name__)


class PrimaryHost:
    """What is known of it. Of two messages the one with the later time counts, over connections too."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.online = False
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
            return False
        self._timestamp_ms = timestamp_ms
        changed = online != self.online
        self.online = online
        return changed
