"""A goodbye that arrives: the broker must not take a clean end for a lost connection and publish the will."""

from __future__ import annotations

import socket
import threading

from agent.config.sections import MqttSection
from agent.mqtt import Connected, Connection, Will
from tests.helpers.broker import wait_for

CONNACK = b"\x20\x02\x00\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"


def test_a_goodbye_arrives_though_the_broker_was_still_sending() -> None:
    """What came and was not read yet does not reset the connection: DISCONNECT is the last that the broker reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        settings = MqttSection(host="127.0.0.1", port=server.getsockname()[1], protocol="3.1.1")
        wake = threading.Event()
        connection = Connection(settings, "box1", "3.1.1", Will("state", b"gone", None, retain=False), wake.set)
        broker, _ = server.accept()
        with broker:
            broker.settimeout(60)
            assert broker.recv(4096).startswith(b"\x10"), "CONNECT"
            broker.sendall(CONNACK + PINGRESP * 20_000)
            wait_for(lambda: any(isinstance(event, Connected) for event in connection.take_events()), "connected")
            connection.disconnect(30.0)
            wait_for(lambda: not connection.alive, "the client has closed")
            heard = b""
            while piece := broker.recv(4096):
                heard += piece
            assert heard.endswith(DISCONNECT)
