"""What a version of the agent is asked while another takes its place, or while it leaves.

Asked by the installer, as the service's user, with `python -m agent.cli.changeover`; the answer is one JSON object.

look           whether this version would start here: configuration, the active models, the ledger's version
take-ledger    while no service runs: make a ledger of this version out of one of a newer version
ready          whether the running service has loaded every active model, and its health
farewell       while no service runs: clear what is retained on the broker
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent import __version__, logs, mqtt
from agent.cli.doctor.ledger import newer_ledger
from agent.cli.doctor.walls import ask_unit, with_credentials, with_environment
from agent.cli.oneshot import load_active
from agent.config import LogSection
from agent.config.check import check_environment
from agent.config.file import ConfigError, load_config
from agent.control import endpoint
from agent.errors import AgentError
from agent.ledger.database import take_over_newer
from agent.models.store import Store
from agent.ownership import take_lock
from agent.printable import json_text
from agent.publisher.retained import Retained

if TYPE_CHECKING:
    from agent.config import Config

FAREWELL_SECONDS = 30.0
GOODBYE_SECONDS = 2.0


@click.command()
@click.argument("question", type=click.Choice(["look", "take-ledger", "ready", "farewell"]))
@click.option("--config", "config_path", type=click.Path(path_type=Path), required=True)
def answer(question: str, config_path: Path) -> None:
    """Answer one of the installer's questions."""
    logs.setup(LogSection(level="warning", format="human"))
    try:
        unit = ask_unit()
        config = with_credentials(load_config(config_path, with_environment(os.environ, unit)), unit)
        facts = {"look": look, "take-ledger": take_ledger, "ready": ready, "farewell": farewell}[question](config)
    except ConfigError as error:
        if question != "look":
            raise SystemExit(f"{config_path}: {error}") from error
        facts = {"version": __version__, "problems": [str(problem) for problem in error.problems], "models": []}
    except AgentError as error:
        sys.exit(str(error))
    print(json_text(facts))


def look(config: Config) -> dict[str, Any]:
    """Say whether this version would start here, and score; nothing is changed."""
    problems = [str(problem) for problem in check_environment(config) if not problem.warning]
    store = Store(config.agent.state_folder / "store")
    refused = []
    for slot in config.slots:
        loaded = store.load(slot)
        if loaded.problem:
            refused.append(f"slot {slot}: {loaded.problem}")
        elif loaded.state.active and (why_not := load_active(config, slot, loaded.state.active)):
            refused.append(why_not)
    newer = [str(problem) for problem in newer_ledger(config.agent.state_folder)]
    return {
        "version": __version__,
        "problems": problems,
        "models": refused,
        "newer_ledger": newer,
        "state_folder": str(config.agent.state_folder),
    }


def take_ledger(config: Config) -> dict[str, Any]:
    """Go on with what a newer version wrote; `set_aside` is where that went, "" where it was not newer."""
    path = config.agent.state_folder / "ledger.db"
    with take_lock(config.agent.state_folder):
        aside = take_over_newer(path) if path.exists() else None
    return {"set_aside": str(aside or "")}


def ready(config: Config) -> dict[str, Any]:
    """Ask the running service: `waiting` are the slots whose active model has no worker yet."""
    try:
        facts = endpoint.ask(config.agent.state_folder / "control.sock", {"command": "status"})
    except (endpoint.NotRunningError, OSError) as error:
        return {"waiting": list(config.slots), "health": "failing", "alarms": str(error)}
    store = Store(config.agent.state_folder / "store")
    with_model = [slot for slot in config.slots if store.load(slot).state.active]
    waiting = [slot for slot in with_model if facts["workers"].get(slot, {}).get("pid") is None]
    return {"waiting": waiting, "health": facts["health"]["status"], "alarms": facts["health"]["alarms"]}


def farewell(config: Config) -> dict[str, Any]:
    """Clear the retained messages on the broker; name what belongs to the agent and lies elsewhere."""
    broker = f"{config.mqtt.host}:{config.mqtt.port}"
    file = config.agent.state_folder / "broker.json"
    with take_lock(config.agent.state_folder):
        cleared, problem = (0, "") if not file.exists() else _clear(config, Retained(file, broker, wanted=False))
    state = config.agent.state_folder
    elsewhere = [path for path in (config.heatmap_folder, config.models.inbox) if not path.is_relative_to(state)]
    return {
        "cleared": cleared,
        "problem": problem,
        "state_folder": str(state),
        "elsewhere": [str(path) for path in elsewhere],
    }


def _clear(config: Config, retained: Retained) -> tuple[int, str]:
    """Clear topic after topic; return how many, and why not all."""
    protocols: tuple[mqtt.ProtocolName, ...] = (
        ("5", "3.1.1") if config.mqtt.protocol == "auto" else (config.mqtt.protocol,)
    )
    problem = ""
    for protocol in protocols:
        rung = threading.Event()
        client_id = config.mqtt.client_id or config.agent.name
        connection = mqtt.Connection(config.mqtt, client_id, protocol, None, rung.set)
        try:
            cleared, problem = _clear_over(connection, retained, rung)
        finally:
            if connection.alive:
                connection.disconnect(GOODBYE_SECONDS)
            connection.abort()
        if not problem:
            return cleared, ""
    return 0, problem


def _clear_over(connection: mqtt.Connection, retained: Retained, rung: threading.Event) -> tuple[int, str]:
    cleared = 0
    until = time.monotonic() + FAREWELL_SECONDS
    while (left := until - time.monotonic()) > 0:
        rung.wait(left)
        rung.clear()
        for event in connection.take_events():
            if isinstance(event, mqtt.Ended):
                return cleared, event.text
            if isinstance(event, mqtt.Connected):
                retained.begin(broker_keeps=True)
            elif isinstance(event, mqtt.Acked) and retained.answered(event):
                cleared += event.code < mqtt.FAILURE
            else:
                continue
            retained.clear_one(connection, set())
            if not retained.clearing:
                return cleared, ""
    return cleared, f"no answer within {FAREWELL_SECONDS:g} s"


if __name__ == "__main__":
    answer()
