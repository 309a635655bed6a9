"""A broker from before MQTT 5, in front of a real one."""

from __future__ import annotations

import socket
import threading


class OldBroker:
    """Answers every CONNECT of MQTT 5 as old brokers do, and passes 3.1.1 on to a real one."""

    def __init__(self, target_port: int, answer: bytes) -> None:
        self.versions: list[int] = []
        self._answer = answer
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connect_packet = connection.recv(4096)
            version = connect_packet[connect_packet.index(b"MQTT") + 4]
            self.versions.append(version)
            if version == 5:
                connection.sendall(self._answer)
                connection.close()
            else:
                threading.Thread(target=self._pass_on, args=(connection, connect_packet), daemon=True).start()

    def _pass_on(self, connection: socket.socket, first: bytes) -> None:
        with connection, socket.create_connection(("127.0.0.1", self._target_port)) as broker:
            broker.sendall(first)
            back = threading.Thread(target=_copy, args=(broker, connection), daemon=True)
            back.start()
            _copy(connection, broker)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
