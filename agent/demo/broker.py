"""Finds an MQTT broker for the demo: mosquitto as a child process, else amqtt, which is Python, else the user's own.

It listens on the loopback address only. As a program (`python -m agent.demo.broker PORT`) this file is amqtt.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.demo.child import last_lines, start_child, stop_child
from agent.errors import ExitCode, Fatal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

LOOPBACK = "127.0.0.1"
START_SECONDS = 10.0
START_ATTEMPTS = 3  # a free port may be taken by someone else before the broker has it

NO_BROKER = """there is no MQTT broker on this machine. Install one of these, or name your own with --broker HOST:PORT:
  apt-get install mosquitto
  pip install 'strip-agent[demo]'"""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that accepts connections; `name` is for people, `protocol` is what `mqtt.protocol` is to be."""

    host: str
    port: int
    name: str
    protocol: str = "auto"


def broker_at(address: str) -> Broker:
    """Read `HOST:PORT` (a bare host means port 1883); raises `Fatal` when it is neither."""
    host, _, port = address.rpartition(":") if ":" in address else (address, "", "1883")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65535:  # noqa: PLR2004 - the highest TCP port
        raise Fatal(ExitCode.USAGE, f"--broker {address!r}: give it as HOST:PORT, for example localhost:1883")
    return Broker(host.strip("[]"), int(port), "your broker")


@contextlib.contextmanager
def running_broker(folder: Path, program: str | None = None) -> Iterator[Broker]:
    """Run a broker while the context lasts; its files are below `folder`.

    `program` is `mosquitto` or `amqtt`; None takes the first that is there. Raises `Fatal` when there is none, or when
    it does not start.
    """
    program = program or ("mosquitto" if find_mosquitto() else "amqtt")
    if program == "amqtt" and importlib.util.find_spec("amqtt") is None:
        raise Fatal(ExitCode.FAILED, NO_BROKER)
    log_file = folder / "broker.log"
    for _ in range(START_ATTEMPTS):
        port = _free_port()
        child = start_child(_command(program, folder, port), log_file)
        try:
            if _accepts(port, child):
                # amqtt knows no MQTT 5, and instead of saying so it is silent, which costs the agent a minute.
                yield Broker(LOOPBACK, port, program, "3.1.1" if program == "amqtt" else "auto")
                return
        finally:
            stop_child(child, seconds=5)
    raise Fatal(ExitCode.FAILED, f"{program} did not start; the end of {log_file}:\n{last_lines(log_file)}")


def find_mosquitto() -> str | None:
    """Return the path of mosquitto; Debian keeps it where ordinary users do not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _command(program: str, folder: Path, port: int) -> list[str]:
    if program == "amqtt":
        return [sys.executable, "-m", "agent.demo.broker", str(port)]
    settings = folder / "mosquitto.conf"
    lines = [f"listener {port} {LOOPBACK}", "allow_anonymous true", "persistence false", "max_queued_messages 0"]
    if os.geteuid() == 0:
        lines.append("user root")  # it would become a user who cannot read `folder`
    settings.write_text("\n".join(lines) + "\n")
    return [find_mosquitto() or "mosquitto", "-c", str(settings)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _accepts(port: int, child: subprocess.Popen[bytes]) -> bool:
    """Wait until the port accepts connections; False when the program ends or `START_SECONDS` pass before it does."""
    deadline = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return child.poll() is None
        time.sleep(0.02)
    return False


async def _serve_amqtt(port: int) -> None:
    from amqtt.broker import Broker as AmqttBroker  # noqa: PLC0415 - only this process needs it

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    broker = AmqttBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(_serve_amqtt(int(sys.argv[1])))
