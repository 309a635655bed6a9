"""Whether messages arrive, on MQTT 3.1.1, where a broker acknowledges a message that it denies like any other.

The agent subscribes to the very topic it publishes to until the first of its own messages comes back. A probe on a
topic of its own would only prove that the broker lets the agent write there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.mqtt import Connection

_REMEMBERED = 64  # more than a window: an answer may come late, but not that late
_CONNECTIONS_THAT_DOUBT = 2  # in a row; a single cut may always come between a message and its echo


class Echo:
    """What has come back on one connection."""

    def __init__(self, connection: Connection, subscribed: str, doubts: Mapping[str, int] | None = None) -> None:
        """Begin with a new connection; `subscribed` is a topic that it is subscribed to for other reasons.

        `doubts` is what `left_unproven` says of the connection before: the broker may hang up on what it denies.
        """
        self._connection = connection
        self._subscribed = subscribed
        self._doubts = dict(doubts or {})
        self._waiting: dict[str, deque[bytes]] = {}
        self._proven: set[str] = set()

    @property
    def complete(self) -> bool:
        """Every topic that was used has brought a message back."""
        return bool(self._proven) and not self.unproven

    @property
    def unproven(self) -> set[str]:
        """The topics that were used and have brought nothing back, here or on several connections before."""
        return _doubtful(self._doubts) | set(self._waiting)

    @property
    def leaves_doubt(self) -> bool:
        """Should the connection end now, the next one begins with a topic that is not proven."""
        return bool(_doubtful(self.left_unproven()))

    def left_unproven(self) -> dict[str, int]:
        """Say of each topic on how many of the connections that used it, in a row, nothing has come back."""
        used = {topic: self._doubts.get(topic, 0) + 1 for topic in self._waiting if topic != self._subscribed}
        return self._doubts | used

    def before_publish(self, topic: str, payload: bytes) -> None:
        """Watch out for this message, if nothing has come back from its topic yet."""
        if topic in self._proven:
            return
        if topic not in self._waiting:
            self._waiting[topic] = deque(maxlen=_REMEMBERED)
            if topic != self._subscribed:
                self._connection.subscribe(topic)
        self._waiting[topic].append(payload)

    def received(self, topic: str, payload: bytes) -> bool:
        """Note that a message came in; returns whether its topic is one that this subscribed to."""
        if payload in self._waiting.get(topic, ()):
            del self._waiting[topic]
            self._doubts.pop(topic, None)
            self._proven.add(topic)
            if topic != self._subscribed:
                self._connection.unsubscribe(topic)
        return topic in self._proven or topic in self._waiting


def _doubtful(doubts: Mapping[str, int]) -> set[str]:
    return {topic for topic, connections in doubts.items() if connections >= _CONNECTIONS_THAT_DOUBT}
