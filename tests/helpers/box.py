"""A whole box for tests: configuration, folders, the real service as a process, and what it published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml
from click.testing import CliRunner

from agent.cli.__main__ import cli
from agent.control import endpoint
from tests.helpers.broker import KIND, wait_for
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from typing import Self

    from tests.helpers.broker import Subscriber


class Box:
    """Folders and configuration of one box; `start` runs the service as systemd would."""

    def __init__(self, folder: Path, port: int, *, cameras: tuple[str, ...] = ("top",), **sections: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.inbox = folder / "inbox"
        self.heatmaps = self.state / "heatmaps"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "service.log"
        self.config: dict[str, Any] = {
            "agent": {"name": "box1", "state_folder": str(self.state)},
            "cameras": [
                {"name": name, "folder": str(folder / "cameras" / name), "settle_seconds": 0.05, "rescan_seconds": 1.0}
                for name in cameras
            ],
            "models": {"inbox": str(self.inbox), "settle_seconds": 0.05},
            "mqtt": {
                "host": "127.0.0.1",
                "port": port,
                "keepalive_seconds": 60,  # a busy machine is not taken for a dead link; who tests that says 5
                # amqtt does not answer MQTT 5 at all, and to find that out takes half a minute
                "protocol": "auto" if KIND == "mosquitto" else "3.1.1",
            },
            "heatmaps": {"min_free_gib": 0},
        }
        for name, values in sections.items():
            if isinstance(values, dict):
                self.config.setdefault(name, {}).update(values)
            else:
                self.config[name] = values
        # A busy machine makes a model that takes a millisecond a strip fifty times slower; who tests that says so.
        self.config["models"].setdefault("probation", {}).setdefault("max_latency_ratio", None)
        for camera in self.config["cameras"]:
            Path(camera["folder"]).mkdir(parents=True, exist_ok=True)
        self.config_file = folder / "agent.yaml"
        self.write_config()
        self.process: subprocess.Popen[bytes] | None = None
        self.program = [sys.executable, "-m", "agent.cli"]
        """What `start` runs; tests put a launcher here."""

    def write_config(self) -> None:
        """Write what `config` holds."""
        self.config_file.write_text(yaml.safe_dump(self.config))

    def camera(self, name: str = "top") -> Path:
        """Give a camera's folder."""
        return next(Path(camera["folder"]) for camera in self.config["cameras"] if camera["name"] == name)

    def change_constants(self, constants: dict[str, Any]) -> None:
        """Have `start` run the service with other values of the product's constants, by their dotted names."""
        settings = self.folder / "constants.json"
        settings.write_text(json.dumps({"constants": constants, "arm_file": str(self.folder / "never")}))
        self.program = [sys.executable, "-m", "tests.models.launch", str(settings)]

    # -- the service ---------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True, env: dict[str, str] | None = None) -> None:
        """Start the service and wait until it answers."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "run", "--config", str(self.config_file)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"PYTHONFAULTHANDLER": "1"} | (env or {}),
            )
        if wait:
            wait_for(self.answers, f"the service answers (see {self.log_file})")

    def answers(self) -> bool:
        """Whether the control socket answers."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended with {self.process.returncode}:\n{self.log}")
        try:
            return bool(self.ask("status")["ok"])
        except (endpoint.NotRunningError, OSError):
            return False

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Ask over the control socket."""
        return endpoint.ask(self.state / "control.sock", {"command": command, **arguments})

    def stop(self) -> int:
        """Stop it as systemd does and give its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # has Python write where every thread is
            self.process.wait(60)
            raise AssertionError(f"the service does not stop:\n{self.log}") from None

    def kill(self) -> None:
        """Kill the supervisor as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if kind is None and self.log_file.exists():
            assert "is in no table" not in self.log, "an alarm was raised that docs/messages.md does not explain"

    @property
    def log(self) -> str:
        """What it wrote."""
        return self.log_file.read_text(errors="replace")

    def workers(self) -> list[psutil.Process]:
        """Give the worker processes of this box, whoever started them."""
        lock = str(self.state / "workers.lock")
        found = []
        for process in psutil.process_iter():
            try:
                if "agent.worker" in process.cmdline() and any(f.path == lock for f in process.open_files()):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    # -- the command line ----------------------------------------------------------------------------------------------

    def cli_process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `strip-agent ARGUMENTS --config ...`."""
        command = [sys.executable, "-m", "agent.cli", *arguments, "--config", str(self.config_file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the same command in this process, which takes a twentieth of the processor's time."""
        owner = self.state.stat().st_uid if self.state.exists() else os.geteuid()
        assert owner == os.geteuid(), "the command would become the service's user for good"
        done = CliRunner().invoke(cli, [*arguments, "--config", str(self.config_file)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    def audit(self, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        """Run the audit, asserting its exit code, by default that it balances."""
        done = self.cli("audit", "--json", *arguments)
        assert done.returncode == exit_code, done.stdout + done.stderr
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def wait_until_published(self, strips: int, seconds: float = 180) -> None:
        """Wait until so many strips have been seen and nothing is pending."""

        def published() -> bool:
            sums = self.ask("status")["strips"]
            return bool(sums["seen"] >= strips and sums["pending"] == 0)

        wait_for(published, f"{strips} strips are published (see {self.log_file})", seconds)


def results(subscriber: Subscriber, camera: str = "") -> list[dict[str, Any]]:
    """Give the strip results that arrived, in the order of their arrival, repeats included."""
    return [json.loads(payload) for payload in subscriber.payloads(f"/event/strip/{camera}")]


def unique_results(subscriber: Subscriber) -> dict[str, dict[str, Any]]:
    """Give the results by msg_id; asserts that repeats are the same bytes."""
    found: dict[str, bytes] = {}
    for payload in subscriber.payloads("/event/strip/"):
        msg_id = json.loads(payload)["msg_id"]
        assert found.setdefault(msg_id, payload) == payload, f"{msg_id} was sent twice with different bytes"
    return {msg_id: json.loads(payload) for msg_id, payload in found.items()}


def wait_for_results(subscriber: Subscriber, number: int, seconds: float = 180) -> list[dict[str, Any]]:
    """Wait until so many different results have arrived; give them in the order of their `seq`."""
    wait_for(lambda: len(unique_results(subscriber)) >= number, f"{number} results arrive", seconds)
    return sorted(unique_results(subscriber).values(), key=lambda result: (result["stream"], result["seq"]))


def drop_file(source: Path, target: Path) -> float:
    """Put a file into a camera's folder as a careful camera does; give the time when it was there."""
    temporary = target.with_name(f".{target.name}.writing")
    temporary.write_bytes(source.read_bytes())
    temporary.rename(target)
    return time.monotonic()


__all__ = ["Box", "drop_file", "results", "unique_results", "wait_for_results"]
