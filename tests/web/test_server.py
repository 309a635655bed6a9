"""The page as it is served: slow and many clients, live events, TLS, and how it starts and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.config.file import ConfigError, load_config
from agent.web import guard
from tests.helpers.broker import free_port, wait_for
from tests.helpers.certificates import make_authority, make_pair
from tests.helpers.metrics import can_connect
from tests.helpers.repository import ROOT
from tests.web.served import ServedBox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUEST = b"GET /static/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A page in a process of its own, as its unit starts it."""

    def __init__(self, folder: Path, **web: Any) -> None:
        self.port = free_port()
        self.config = folder / "agent.yaml"
        values = {
            "agent": {"name": "box1", "state_folder": str(folder / "state")},
            "cameras": [{"name": name, "folder": str(folder / name)} for name in ("top", "side")],
            "web": {"enabled": True, "listen": f"127.0.0.1:{self.port}", **web},
        }
        self.config.write_text(yaml.safe_dump(values))
        self.log = folder / "web.log"

    @contextmanager
    def run(self, *, limits: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Run it; `limits` are Python statements that are executed before."""
        code = f"import sys\n{limits}\nfrom agent.cli.__main__ import main\nmain()"
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", code, "web", "--config", str(self.config)], stdout=log, stderr=log, cwd=ROOT,
                env=os.environ,
            )  # fmt: skip
        try:
            wait_for(lambda: process.poll() is not None or can_connect(self.port), "the page is served")
            assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(120)

    def connect(self) -> socket.socket:
        """Connect, as a client that says nothing yet."""
        return socket.create_connection(("127.0.0.1", self.port), 60)


def read_all(link: socket.socket) -> bytes:
    """Read until the other end is done."""
    answer = b""
    try:
        while part := link.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def test_slow_and_many_clients_keep_nobody_out(tmp_path: Path) -> None:
    """Connections that say nothing, or never end what they say, make room or are let go; the next one is served."""
    page = Served(tmp_path)
    limits = "import agent.web.guard as g; g.MAX_CONNECTIONS = 20; g.HEAD_SECONDS = 10.0"
    with page.run(limits=limits):
        silent = [page.connect() for _ in range(60)]
        for link in silent[::2]:
            try:
                link.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
            except OSError:
                continue  # it has made room already
        with page.connect() as link:
            link.sendall(REQUEST)
            assert link.recv(100).startswith(b"HTTP/1.1 200 OK")
        for link in silent:
            assert read_all(link) == b"", "let go without an answer"
            link.close()


def test_a_body_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    """Byte by byte is too slow as well: the time is for all of it."""
    page = Served(tmp_path)
    with page.run(limits="import agent.web.walls as w; w.BODY_SECONDS = 1.0"), page.connect() as link:
        kind = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n"
        link.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\n" + kind + b"\r\n")
        link.settimeout(0.2)
        answer = b""
        while not answer:
            with suppress(ConnectionError):  # it has answered and gone; the answer lies here
                link.sendall(b"x")
            with suppress(TimeoutError):
                answer = link.recv(100)
        assert b"408" in answer[:20]


def test_heads_that_grow_without_end_are_cut_off(tmp_path: Path) -> None:
    """A request's lines are held up to a limit."""
    page = Served(tmp_path)
    with page.run(), page.connect() as link:
        try:
            link.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000_000)
        except OSError:
            return
        assert b"400" in read_all(link)[:20]


def events(link: socket.socket) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a stream as they come."""
    lines = link.makefile("rb")
    kind = ""
    for line in lines:
        if line.startswith(b"event: "):
            kind = line.removeprefix(b"event: ").decode().strip()
        elif line.startswith(b"data: "):
            yield kind, json.loads(line.removeprefix(b"data: "))


def test_an_open_page_hears_of_a_new_strip_and_of_silence(tmp_path: Path) -> None:
    """`news` when a result was recorded, `beat` while there is none; `silent` as soon as the agent does not answer."""
    page = Served(tmp_path)
    with ServedBox(tmp_path) as box, page.run(), page.connect() as link:
        link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream = events(link)
        assert next(stream)[0] == "beat"
        first = next(fact for fact in stream if fact[0] == "news" or not fact[1]["silent"])
        assert not first[1]["silent"]
        wait_quietly(stream)
        began = time.monotonic()
        box.judge("a.tif", 0.9)
        assert next(fact for fact in stream if fact[0] == "news")[1]["silent"] is False
        assert time.monotonic() - began < 30, "it was told because of the strip, not by chance"
        box.stop()
        assert next(fact for fact in stream if fact[1]["silent"])
        box.start()
        assert next(fact for fact in stream if not fact[1]["silent"])


def wait_quietly(stream: Iterator[tuple[str, dict[str, Any]]]) -> None:
    """Wait for two beats without news between them."""
    beats = 0
    while beats < 2:
        beats = beats + 1 if next(stream)[0] == "beat" else 0


def test_streams_are_bounded(tmp_path: Path) -> None:
    """One too many is told to come later, and pages look by themselves then."""
    page = Served(tmp_path)
    with page.run(limits="import agent.web.live as l; l.MAX_STREAMS = 2"):
        links = [page.connect() for _ in range(3)]
        answers = []
        for link in links:
            link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answers.append(link.recv(12))
        assert answers == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 503"]
        links[0].close()
        wait_for(lambda: one_more(page), "a place is free again")
        for link in links:
            link.close()


def one_more(page: Served) -> bool:
    """Whether a stream is given."""
    with page.connect() as link:
        link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return link.recv(12) == b"HTTP/1.1 200"


def test_the_page_is_encrypted_where_it_has_a_certificate(tmp_path: Path) -> None:
    """TLS 1.2 or newer, with the certificate of the configuration; plain HTTP gets nothing."""
    make_pair(tmp_path, "page", make_authority(tmp_path, "ca"), "127.0.0.1")
    page = Served(tmp_path, tls={"cert_file": str(tmp_path / "page.crt"), "key_file": str(tmp_path / "page.key")})
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with page.run():
        with page.connect() as link, context.wrap_socket(link, server_hostname="127.0.0.1") as safe:
            safe.sendall(REQUEST)
            assert safe.recv(100).startswith(b"HTTP/1.1 200 OK")
        with page.connect() as link:
            link.sendall(REQUEST)
            assert b"200 OK" not in read_all(link)


def test_it_ends_at_once_with_open_pages(tmp_path: Path) -> None:
    """A stream that somebody listens to does not keep it from stopping, and it ends with 0."""
    page = Served(tmp_path)
    with page.run() as process, page.connect() as link:
        link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert link.recv(12) == b"HTTP/1.1 200"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


@pytest.mark.parametrize(
    ("web", "where"),
    [
        ({"listen": "0.0.0.0:8080"}, "web.password_file"),
        ({"listen": "[::]:8080"}, "web.password_file"),
        ({"listen": "box7.plant:8080"}, "web.password_file"),
        ({"listen": "127.0.0.1"}, "web.listen"),
        ({"tls": {"cert_file": "/a"}}, "web.tls"),
        ({"language": "de"}, "web.language"),
    ],
)
def test_an_unsafe_or_wrong_configuration_is_refused(tmp_path: Path, web: dict[str, Any], where: str) -> None:
    """Beyond this machine only with a password; the problem names the key."""
    page = Served(tmp_path, **web)
    with pytest.raises(ConfigError) as refused:
        load_config(page.config, {})
    assert [problem.where for problem in refused.value.problems] == [where]


@pytest.mark.parametrize(
    ("web", "said"),
    [
        ({"enabled": False}, "web.enabled"),
        ({"password_file": "/nowhere/password"}, "web.password_file"),
        ({"tls": {"cert_file": "/nowhere/a", "key_file": "/nowhere/b"}}, "web.tls"),
    ],
)
def test_it_does_not_start_with_what_cannot_be_served(tmp_path: Path, web: dict[str, Any], said: str) -> None:
    """Exit code 78: starting it again would not help."""
    page = Served(tmp_path, **web)
    command = [sys.executable, "-m", "agent.cli", "web", "--config", str(page.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, said in done.stderr) == (78, True), done.stderr


def test_a_taken_address_is_said(tmp_path: Path) -> None:
    """Exit code 1: it may be free the next time."""
    page = Served(tmp_path)
    with socket.create_server(("127.0.0.1", page.port)):
        command = [sys.executable, "-m", "agent.cli", "web", "--config", str(page.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, "cannot listen" in done.stderr) == (1, True), done.stderr


def test_the_limits_are_those_of_a_panel() -> None:
    """A few hundred connections at most; the tests above make them smaller."""
    assert 64 <= guard.MAX_CONNECTIONS <= 1024
