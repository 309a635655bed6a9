"""What this agent has left on the broker, in one small file: its retained topics, and the number of its connections.

A camera, a slot or a name that goes out of the configuration takes its retained messages with it: else an HMI would
show the last strip of a camera that was taken away years ago.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from agent import messages, mqtt
from agent.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_TRIES = 3  # connections that ended while a topic was being cleared: perhaps because of it


class Retained:
    """The file, and what is done with it. Used by the publisher's thread only.

    A disk that takes no changes costs only that they are forgotten at the next start.
    """

    def __init__(self, file: Path | None, broker: str, *, wanted: bool) -> None:
        """Read `file`, if it is there; None: remember nothing. `broker` says which one is spoken to.

        `wanted` False: nothing is to be retained any more.
        """
        self._file = file
        self._broker = broker
        self._wanted = wanted
        self._broker_keeps = True
        self._connections, self._topics = (0, {}) if file is None else _read(file)
        self._here = set(self._topics.get(broker, ()))
        self._reserved = False  # the number of connections counts one that has not come about yet
        self._clearing: tuple[int, str] | None = None  # packet id and topic
        self._tries: dict[str, int] = {}
        self._given_up: set[str] = set()  # until the next start

    @property
    def clearing(self) -> bool:
        """A topic is being cleared; nothing else is to be sent: the broker may hang up on it."""
        return self._clearing is not None

    @property
    def alarm(self) -> bool:
        """Messages are to be retained and the broker says that it keeps none."""
        return self._wanted and not self._broker_keeps

    def connection_number(self) -> int:
        """Count the coming connection: higher than all before it, also those of earlier runs."""
        if not self._reserved:
            self._connections += 1
            self._reserved = True
            self._write()
        return self._connections

    def begin(self, *, broker_keeps: bool) -> None:
        """Begin with a new connection."""
        self._reserved = False
        self._broker_keeps = broker_keeps

    def end(self) -> None:
        """Note that the connection has ended, perhaps because of what was being cleared."""
        if self._clearing is None:
            return
        _, topic = self._clearing
        self._clearing = None
        self._tries[topic] = self._tries.get(topic, 0) + 1
        if self._tries[topic] >= _TRIES:
            self._refused(topic, f"the connection ended {_TRIES} times while it was being cleared")
            if not self._wanted:  # a broker that cannot retain may hang up on each: one is enough to know it
                self._given_up |= self._here

    def retain(self, topic: str) -> bool:
        """Say whether what is published on this topic is to be retained, and remember that."""
        if not (self._wanted and self._broker_keeps):
            return False
        if topic not in self._here:
            self._here.add(topic)
            self._write()
        return True

    def clear_one(self, connection: mqtt.Connection, in_use: set[str]) -> None:
        """Clear one topic that is not in use any more, if there is one and the broker keeps messages at all.

        `state/agent` comes last: an agent that has taken over a name sees that, and sends all its states again.
        """
        stale = self._here - (in_use if self._wanted else set()) - self._given_up
        if not stale or not self._broker_keeps:
            return
        topic = min(stale, key=lambda topic: (topic.endswith(messages.STATE_AGENT), topic))
        try:
            self._clearing = connection.publish(topic, b"", "", retain=True), topic
        except mqtt.CannotSend as error:
            self._refused(topic, str(error))

    def answered(self, ack: mqtt.Acked) -> bool:
        """Take the broker's answer; returns whether it was one to a clearing."""
        if self._clearing is None or self._clearing[0] != ack.mid:
            return False
        _, topic = self._clearing
        self._clearing = None
        if ack.code >= mqtt.FAILURE:
            self._refused(topic, ack.text)
        else:
            log.info("Cleared the retained message on %s: nothing is published there any more", topic)
            self._here.discard(topic)
            self._write()
        return True

    def _refused(self, topic: str, why: str) -> None:
        self._given_up.add(topic)
        log.warning("The retained message on %s stays, although nothing is published there any more: %s", topic, why)

    def _write(self) -> None:
        if self._file is None:
            return
        topics = self._topics | {self._broker: sorted(self._here)}
        values = {
            "connections": self._connections,
            "topics": {broker: found for broker, found in topics.items() if found},
        }
        try:
            write_atomically(self._file, (json.dumps(values, indent=1) + "\n").encode())
        except OSError as error:
            log.warning("What is retained on the broker cannot be written down: %s", error)


def _read(file: Path) -> tuple[int, dict[str, list[str]]]:
    """Return the number of connections, and the topics by broker; nothing where the file is damaged."""
    try:
        values: Any = json.loads(file.read_bytes())
        topics = {str(broker): [str(topic) for topic in found] for broker, found in values["topics"].items()}
        return max(0, int(values["connections"])), topics
    except FileNotFoundError:
        return 0, {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.warning("%s is not readable (%s); retained messages of earlier runs may stay on the broker", file, error)
        return 0, {}
