"""The HTTP end of /metrics: every request is answered, and no client of it can hurt the others or the service."""

from __future__ import annotations

import os
import resource
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from agent.errors import Blame, Reason, Retry
from agent.metrics import endpoint
from agent.metrics.endpoint import MetricsServer
from tests.helpers.broker import free_port, wait_for
from tests.helpers.metrics import can_connect, get

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    """Run a server, stepped in a thread; its figures are one line."""
    port = free_port()
    made = MetricsServer(f"127.0.0.1:{port}", lambda accept: (f"# {accept}\n".encode(), "text/plain"))
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            made.step(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: can_connect(port), "it listens")
    yield made
    stop.set()
    thread.join()
    made.close()


def port_of(server: MetricsServer) -> int:
    """Where it listens."""
    return int(server._listen.rpartition(":")[2])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n", b"200 OK"),
        (b"GET /metrics?name[]=up HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /../metrics HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n", b"405 Method Not Allowed"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000, b"431 Request Header Fields Too Large"),
    ],
)
def test_every_request_gets_its_answer(server: MetricsServer, request_bytes: bytes, status: bytes) -> None:
    """Whatever is asked, the next client is served."""
    try:
        assert status in get(port_of(server), request_bytes).split(b"\r\n")[0]
    except ConnectionResetError:  # what it did not read is thrown away with the connection
        assert status.startswith(b"431")
    assert get(port_of(server)).endswith(b"# \n")


def test_silent_clients_cost_the_others_a_moment(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve that connect and say nothing, or a byte now and then, are left alone after their time."""
    monkeypatch.setattr(endpoint, "CLIENT_SECONDS", 0.1)
    clients = [socket.create_connection(("127.0.0.1", port_of(server)), 60) for _ in range(12)]
    for client in clients[::2]:
        client.sendall(b"G")
    assert get(port_of(server)).endswith(b"# \n")
    for client in clients:
        client.close()


def test_an_address_that_is_taken_is_an_alarm_and_tried_again() -> None:
    """Nothing else of the service is touched, and it is served as soon as it can be."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        server = MetricsServer(listen, lambda _: (b"", "text/plain"))
        server.step(0.01)
        assert server.alarms() == ["metrics_not_served"]
    server.step(0.01)
    assert server.alarms() == []
    server.close()


def test_a_ledger_that_does_not_answer_is_said() -> None:
    """503, which Prometheus shows as a failed scrape; no figure is made up."""

    def fails(_: str) -> tuple[bytes, str]:
        raise Retry(Reason.NO_MEMORY, "no room", Blame.BOX)

    port = free_port()
    server = MetricsServer(f"127.0.0.1:{port}", fails)
    server.step(0.01)
    answers: list[bytes] = []
    client = threading.Thread(target=lambda: answers.append(get(port)))
    client.start()
    while client.is_alive():
        server.step(0.1)
    server.close()
    assert b"503 Service Unavailable" in answers[0]


@pytest.mark.parametrize("host", ["two..dots", ".dot", "x" * 64])
def test_a_name_that_no_machine_can_have_costs_the_figures_alone(host: str) -> None:
    """A typing error in `metrics.listen` is an alarm; what is raised would end the service."""
    server = MetricsServer(f"{host}:9464", lambda _: (b"", ""))
    server.step(0.05)
    assert server.alarms() == ["metrics_not_served"]


def test_a_box_without_descriptors_costs_the_figures_alone() -> None:
    """While no connection can be taken nothing is raised, which would end the service."""
    server = MetricsServer(f"127.0.0.1:{free_port()}", lambda _: (b"1", "text/plain"))
    server.step(0.05)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=10) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        lowest_free = os.dup(client.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
        try:
            server.step(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        server.step(10.0)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
    server.close()
