"""Counts what is under way between the agent and the broker, out of the bytes that pass a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PUBLISH, _PUBACK = 3, 4


class UnderWay:
    """For `TcpProxy.watch`: the agent's messages that the broker has not acknowledged, over all connections."""

    def __init__(self) -> None:
        self.most = 0
        """At any moment of any connection."""
        self.sent = 0
        """Messages that the agent has sent, states and repeats included."""

    def __call__(self) -> Callable[[str, bytes], None]:
        """Watch a new connection."""
        rests = {"agent": bytearray(), "broker": bytearray()}
        unanswered = 0

        def look(sender: str, data: bytes) -> None:
            nonlocal unanswered
            rests[sender] += data
            for kind in _take_packets(rests[sender]):
                if (sender, kind) == ("agent", _PUBLISH):
                    self.sent += 1
                    unanswered += 1
                    self.most = max(self.most, unanswered)
                elif (sender, kind) == ("broker", _PUBACK):
                    unanswered -= 1

        return look


def _take_packets(buffer: bytearray) -> list[int]:
    """Take the whole packets out of the buffer; return their kinds (the first four bits, see MQTT 2.1)."""
    kinds = []
    begin = 0
    while (end := _end_of_packet(buffer, begin)) <= len(buffer):
        kinds.append(buffer[begin] >> 4)
        begin = end
    del buffer[:begin]
    return kinds


def _end_of_packet(buffer: bytearray, begin: int) -> int:
    """Return where the packet ends that begins there; beyond the buffer's end when that is not known yet."""
    length = 0
    for place in range(4):  # the remaining length: seven bits a byte, the lowest first
        at = begin + 1 + place
        if at >= len(buffer):
            break
        length |= (buffer[at] & 0x7F) << 7 * place
        if buffer[at] < 0x80:
            return at + 1 + length
    return len(buffer) + 1
