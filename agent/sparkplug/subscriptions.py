"""What an edge node subscribes to, and whether the broker allows it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent import mqtt
from agent.sparkplug.commands import DEVICE_COMMANDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.sparkplug.topics import Topics

log = logging.getLogger(__name__)


class Subscriptions:
    """Commands to the node and to its cameras, and the primary host's state. Used by one thread."""

    def __init__(self, topics: Topics, may_write: Collection[str]) -> None:
        """`may_write` names the metrics that hosts may write."""
        self._topics = topics
        self._of_cameras = bool(set(may_write) & DEVICE_COMMANDS)
        self._cameras: set[str] = set()  # whose commands are asked for on this connection
        self._asked: set[int] = set()  # packets whose answer tells whether it is granted
        self.refused = False

    def begin(self, connection: mqtt.Connection, *more: str) -> None:
        """Ask on a new connection for the node's commands, and for what lies on the topics `more`."""
        self._asked = {connection.subscribe(topic) for topic in (self._topics.of("NCMD"), *more)}
        self._cameras = set()
        self.refused = False

    def ask_for(self, cameras: Iterable[str], connection: mqtt.Connection) -> None:
        """Ask for the commands to these cameras, where that has not been done."""
        for camera in cameras if self._of_cameras else ():
            if camera not in self._cameras:
                self._cameras.add(camera)
                self._asked.add(connection.subscribe(self._topics.of("DCMD", camera)))

    def answered(self, answer: mqtt.Subscribed) -> None:
        """Take the broker's answer."""
        if answer.code >= mqtt.FAILURE and answer.mid in self._asked:
            log.warning("The broker does not let this node subscribe to its commands, or to its primary host")
            self.refused = True
        self._asked.discard(answer.mid)
