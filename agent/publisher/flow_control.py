"""How many messages may be unanswered at a time, and which message makes the broker hang up."""

from __future__ import annotations

from agent import mqtt

WINDOW = 16  # enough to keep a fast link busy, few to send twice after a cut
_CLOSES_THAT_SUSPECT = 2
_CLOSES_THAT_BLAME = 3

NEVER = {
    mqtt.TOPIC_NAME_INVALID: "topic_invalid",
    mqtt.PACKET_TOO_LARGE: "too_large",
    mqtt.PAYLOAD_FORMAT_INVALID: "payload_invalid",
}
"""Codes of the broker that say that it will never take a message, and what the audit calls them."""


class FlowControl:
    """A window that shrinks when nothing comes back, down to one when a single message is to blame."""

    def __init__(self) -> None:
        self._size = WINDOW
        self._receive_maximum = WINDOW
        self._answers = 0  # on this connection
        self._outbox_answers = 0  # of these, to messages of the outbox
        self._suspect: tuple[str, int] = ("", 0)  # what was the oldest when the broker hung up, and how often in a row

    @property
    def size(self) -> int:
        """Messages that may be unanswered, states included."""
        return min(self._size, self._receive_maximum)

    @property
    def link_works(self) -> bool:
        """Something was answered on this connection; before that nothing of the outbox is sent.

        A link that never answers costs no repeats, and a broker that hangs up after that does so because of a message.
        """
        return self._answers > 0

    def begin(self, receive_maximum: int) -> None:
        """Begin with a new connection, on which the broker takes this many at a time."""
        self._receive_maximum = receive_maximum
        self._answers = self._outbox_answers = 0

    def state_answered(self) -> None:
        """Note an answer to a state."""
        self._answers += 1

    def outbox_answered(self) -> None:
        """Note an answer to a message of the outbox."""
        self._answers += 1
        self._outbox_answers += 1
        self._suspect = ("", 0)
        self._size = min(WINDOW, self._size + 1)

    def stalled(self) -> None:
        """Send half as much on the next connection: a link that is only slow must get through with less."""
        self._size = max(1, self._size // 2)

    def hung_up(self, code: int | None, oldest: str, *, alone: bool) -> int:
        """Note that the other side ended the connection; returns how often in a row because of `oldest`, mostly 0.

        `oldest` names the first message that was unanswered; `alone`: it was the only one.
        """
        if self._outbox_answers:
            return 0
        times = self._suspect[1] + 1 if self._suspect[0] == oldest else 1
        self._suspect = (oldest, times)
        if alone and (times >= _CLOSES_THAT_BLAME or code in NEVER):
            self._suspect = ("", 0)
            return times
        if times >= _CLOSES_THAT_SUSPECT or code in NEVER:
            self._size = 1
        return 0
