"""`strip-agent simulate`: a box that is not there, for whoever builds the SCADA side first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.terminal import fail
from agent.config import Config
from agent.config.file import load_config
from agent.control.endpoint import NotRunningError, ask
from agent.errors import ExitCode
from agent.printable import printable

if TYPE_CHECKING:
    from agent.config import MqttSection


@click.command("simulate")
@click.option("--broker", metavar="HOST:PORT", help="The broker, without TLS and login.  [default: localhost:1883]")
@click.option("--name", default="simulated", show_default=True, help="Name of the box (agent.name).")
@click.option("--cameras", default="top,side", show_default=True, help="Names of its cameras.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Be the box of this file instead: its name, cameras, topics, TLS. Its folders are not touched.",
)
@click.option("--rate", type=click.FloatRange(0.01, 50.0), default=1.0, show_default=True, help="Strips each second.")
@click.option("--strips", type=click.IntRange(1), help="Stop after so many strips; else at Ctrl-C.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same scores.")
def simulate_command(
    broker: str | None, name: str, cameras: str, config_path: Path | None, rate: float, strips: int | None, seed: int
) -> None:
    """Publish believable results, outages, alarms and invalid strips, without camera or model."""
    from agent.simulate.run import simulate  # noqa: PLC0415 - starts faster without

    if config_path is None:
        config = _config_of(broker or "localhost:1883", name, cameras)
    elif broker is not None:
        raise click.UsageError("--broker and --config exclude each other: the file names the broker")
    else:
        config = _config_in(config_path)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print(f"{config.base_topic} at {_address(config.mqtt)}, {rate:g} strips each second; Ctrl-C ends it", flush=True)
    simulate(
        config, rate=rate, strips=strips, seed=seed, stop=stop, say=lambda text: print(printable(text), flush=True)
    )
    print("ended; the retained messages are those of a box that was stopped (docs/scada/simulate.md)")


def _say(text: str) -> None:
    print(printable(text), flush=True)


def _address(mqtt: MqttSection) -> str:
    return f"{mqtt.host}:{mqtt.port}"


def _config_of(address: str, name: str, cameras: str) -> Config:
    host, _, port = address.rpartition(":") if ":" in address else (address, "", "1883")
    values = {
        "agent": {"name": name},
        "cameras": [{"name": camera, "folder": f"/nowhere/{camera}"} for camera in cameras.split(",")],
        "mqtt": {"host": host.strip("[]"), "port": int(port) if port.isdecimal() else 0},
    }
    try:
        return Config.model_validate(values)
    except ValueError as error:
        fail(f"--broker, --name or --cameras: {error}", ExitCode.USAGE)


def _config_in(path: Path) -> Config:
    config = load_config(path, os.environ)
    with contextlib.suppress(NotRunningError, OSError):
        ask(config.agent.state_folder / "control.sock", {"command": "status"})
        fail("the service of this file runs here: its results and the simulated ones would be mixed up")
    return config
