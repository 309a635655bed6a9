"""What a client says to the broker, packet by packet, for the rules that no subscriber can see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT, PUBLISH, SUBSCRIBE, DISCONNECT = 1, 3, 8, 14
_SESSION_EXPIRY, _MAXIMUM_PACKET_SIZE = 0x11, 0x27


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; `body` is what follows the fixed header."""

    kind: int
    flags: int
    body: bytes

    @property
    def topic(self) -> str:
        """Of a PUBLISH."""
        return self.body[2 : 2 + int.from_bytes(self.body[:2], "big")].decode()

    def subscription(self, *, v5: bool) -> tuple[str, int]:
        """Return topic and QoS of a SUBSCRIBE with one topic."""
        at = 3 if v5 else 2
        length = int.from_bytes(self.body[at : at + 2], "big")
        return self.body[at + 2 : at + 2 + length].decode(), self.body[at + 2 + length] & 3


class Packets:
    """Give it to `TcpProxy.watch`; `connections` are the packets of each connection, in order."""

    def __init__(self) -> None:
        self.connections: list[list[Packet]] = []

    def __call__(self) -> Callable[[str, bytes], None]:
        """Begin with a new connection."""
        packets: list[Packet] = []
        self.connections.append(packets)
        buffer = bytearray()

        def look(sender: str, data: bytes) -> None:
            if sender != "agent":
                return
            buffer.extend(data)
            while (found := _first(buffer)) is not None:
                packets.append(found)

        return look


def _first(buffer: bytearray) -> Packet | None:
    """Take the first packet, if it is complete."""
    length = shift = 0
    for at, byte in enumerate(buffer[1:5], start=1):
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            end = at + 1 + length
            if len(buffer) < end:
                return None
            packet = Packet(buffer[0] >> 4, buffer[0] & 15, bytes(buffer[at + 1 : end]))
            del buffer[:end]
            return packet
    return None
