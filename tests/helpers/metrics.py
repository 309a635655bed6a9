"""Ask /metrics as Prometheus does."""

from __future__ import annotations

import socket

from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.broker import wait_for

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def get(port: int, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", seconds: float = 60.0) -> bytes:
    """Send a request, as soon as somebody listens, and read until the end."""
    wait_for(lambda: can_connect(port), "somebody listens")
    with socket.create_connection(("127.0.0.1", port), seconds) as client:
        client.sendall(request)
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer


def can_connect(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def scrape(port: int) -> Samples:
    """Read all samples as Prometheus does."""
    head, _, body = get(port).partition(b"\r\n\r\n")
    assert b"200 OK" in head
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    """Give one sample."""
    return samples[name, tuple(sorted(labels.items()))]
