"""A TCP proxy between the agent and the broker whose faults a test can switch while connections are open."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_LOOK_SECONDS = 0.02


class TcpProxy:
    """Listens on the loopback interface from the start (port 0: a free one); `close` it in the end."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.refuse = False
        """Close new connections at once, without a byte."""
        self.frozen = False
        """Half-open: nothing passes in either direction, nothing is closed."""
        self.answers_dropped = False
        """Throw away what the broker says (lost PUBACKs); what the agent says still reaches it."""
        self.forbidden = b""
        """Hang up when the agent says this; what came before it still reaches the broker, and is answered."""
        self.answers_held = False
        """Keep back what the broker says; it arrives late, when this is set to False again."""
        self.chunk_bytes = 65536
        """1: byte at a time."""
        self.chunk_seconds = 0.0
        """Pause after each chunk."""
        self.watch: Callable[[], Callable[[str, bytes], None]] | None = None
        """Called for each new connection; what it returns gets each chunk that passes: ("agent" or "broker", bytes)."""
        self.accepted = 0
        """Connections so far."""
        self.requests_bytes = 0
        """From the agent to the broker, so far."""
        self._target_port = target_port
        self._closing = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(_LOOK_SECONDS)
        self.port = int(self._listener.getsockname()[1])
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self) -> None:
        """End every open connection, as a router that forgot them would."""
        sockets, self._open = self._open, []
        for sock in sockets:
            with contextlib.suppress(OSError):
                # Unsent bytes are thrown away and the other side sees a reset.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._closing.set()
        self.cut()
        for thread in self._threads:
            thread.join(5.0)
        self._listener.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="tcp-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                agent, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.accepted += 1
            try:
                broker = None if self.refuse else socket.create_connection(("127.0.0.1", self._target_port), 2.0)
            except OSError:
                broker = None
            if broker is None:
                agent.close()
                continue
            self._open += [agent, broker]
            self._spawn(self._carry, agent, broker)

    def _carry(self, agent: socket.socket, broker: socket.socket) -> None:
        """Carry both directions of one connection until one side ends it."""
        tail = b""  # of what the agent said: what is forbidden may come in two chunks
        look = self.watch() if self.watch is not None else lambda _sender, _data: None
        with agent, broker, contextlib.suppress(OSError):
            for sock in (agent, broker):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._closing.is_set():
                if self.frozen:
                    time.sleep(_LOOK_SECONDS)
                    continue
                watched = [agent] if self.answers_held else [agent, broker]
                for source in select.select(watched, [], [], _LOOK_SECONDS)[0]:
                    data = b"" if self.frozen else source.recv(self.chunk_bytes)
                    if not data and not self.frozen:
                        _hang_up(broker)
                        return
                    if source is agent:
                        self.requests_bytes += len(data)
                        look("agent", data)
                        said = tail + data
                        if self.forbidden and self.forbidden in said:
                            _let_pass(said[len(tail) : said.index(self.forbidden)], broker, agent)
                            return
                        tail = said[max(0, len(said) - max(0, len(self.forbidden) - 1)) :]
                        broker.sendall(data)
                    elif not self.answers_dropped:
                        look("broker", data)
                        agent.sendall(data)
                    if self.chunk_seconds:
                        time.sleep(self.chunk_seconds)


def _hang_up(broker: socket.socket) -> None:
    """Let what the agent said last arrive: closing with answers unread would reset the connection before it is read."""
    broker.shutdown(socket.SHUT_WR)
    broker.settimeout(5.0)
    while broker.recv(65536):
        pass


def _let_pass(requests: bytes, broker: socket.socket, agent: socket.socket) -> None:
    """Carry the last requests, and their answers until there are none for a moment."""
    broker.sendall(requests)
    while select.select([broker], [], [], 5 * _LOOK_SECONDS)[0] and (answers := broker.recv(65536)):
        agent.sendall(answers)
