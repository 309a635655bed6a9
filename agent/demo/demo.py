"""The demo's story: a broker, the real service, two simulated cameras and a real subscriber; at the end the audit."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from agent.demo.broker import Broker, broker_at, running_broker
from agent.demo.child import last_lines, start_child, stop_child
from agent.demo.page import choose_address, start_page
from agent.demo.pushes import MODEL, Pushes, put_model
from agent.demo.screen import Screen, choose_screen, row_of
from agent.demo.subscriber import Subscriber, Tally
from agent.demo.truth import compare, read_truth
from agent.errors import ExitCode, Fatal

if TYPE_CHECKING:
    from collections.abc import Iterator

CAMERAS = ("top", "bottom")
STRIPS_PER_SECOND = 2.0  # both cameras together
INCOMPLETE_SECONDS = 3.0  # the usual minute is a long time in front of a screen
PATIENCE_SECONDS = 30.0  # a result that is due and does not come for so long is missing
STOP_SECONDS = 30.0


@dataclass(slots=True)
class Run:
    """One run of the demo: its folder, its processes, and what was seen so far."""

    folder: Path
    service: subprocess.Popen[bytes]
    camera: subprocess.Popen[bytes]
    subscriber: Subscriber
    screen: Screen
    tally: Tally
    pushes: Pushes
    service_state: str = "service starting"
    model_state: str = "no model yet: strips wait in the ledger"


def run_demo(strips: int | None, folder: Path | None, broker: str | None, *, page: bool) -> int:
    """Show the product at work until `strips` strips are judged (None: until Ctrl-C); return the exit code.

    `page`: serve the page on the box as well, and open it where there is a desktop.

    0 when the audit balances and every strip has its result, else the audit's code, or 1. The files of this run stand
    in a new folder inside `folder` (None: the system's temporary folder) and stay there. `broker` is HOST:PORT; None
    starts one. Raises `Fatal` when something that the demo needs is missing.
    """
    if not MODEL.is_file():
        raise Fatal(ExitCode.FAILED, f"the bundled model {MODEL} is missing: install strip-agent again")
    folder = _make_folder(folder)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_on_signals())
        used = broker_at(broker) if broker else stack.enter_context(running_broker(folder))
        name = f"demo-{secrets.token_hex(3)}" if broker else "demo"
        address = choose_address() if page else ""
        config = _write_config(folder, name, used, address)
        subscriber = Subscriber(used, f"strip-agent/{name}")
        stack.callback(subscriber.close, forget=broker is not None)
        _introduce(folder, used, strips, address)
        put_model(folder / "inbox", 1, MODEL.read_bytes())
        service = start_child(_agent_command("run", config), folder / "service.log", _environment())
        stack.callback(stop_child, service, seconds=STOP_SECONDS)
        if address:
            stack.callback(stop_child, start_page(config, folder, address, _environment()), seconds=STOP_SECONDS)
        camera = start_child(_camera_command(folder, strips), folder / "camera.log", _environment())
        stack.callback(stop_child, camera, seconds=STOP_SECONDS)
        with contextlib.closing(choose_screen()) as screen:
            run = Run(folder, service, camera, subscriber, screen, Tally(), Pushes(folder / "inbox"))
            _watch(run, stop)
            _wait_for_the_rest(run)
            _stop_service(run)
    audit_code = _audit(config)
    complete = _conclude(run)
    return audit_code or (ExitCode.OK if complete else ExitCode.FAILED)


# Before: the folder, the configuration, the processes.


def _make_folder(runs: Path | None) -> Path:
    if runs is None:
        return Path(tempfile.mkdtemp(prefix="strip-agent-demo-"))
    now = datetime.now().astimezone().strftime("%Y-%m-%d_%H%M%S_")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=now, dir=runs.resolve()))
    except OSError as error:
        raise Fatal(ExitCode.FAILED, f"{runs} cannot hold the demo's files: {error.strerror}") from error


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into an event; the second one ends the demo at once."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_config(folder: Path, name: str, broker: Broker, address: str) -> Path:
    for below in ("inbox", "state", *(f"cameras/{camera}" for camera in CAMERAS)):
        (folder / below).mkdir(parents=True)
    config: dict[str, Any] = {
        "agent": {"name": name, "state_folder": str(folder / "state")},
        "cameras": [
            {"name": camera, "folder": str(folder / "cameras" / camera), "settle_seconds": 0.3, "rescan_seconds": 2.0}
            for camera in CAMERAS
        ],
        "models": {"inbox": str(folder / "inbox"), "settle_seconds": 0.3},
        "checks": {"incomplete_seconds": INCOMPLETE_SECONDS},
        "heatmaps": {"folder": str(folder / "heatmaps"), "png": "all", "tiff": "anomalous", "min_free_gib": 0.1},
        "mqtt": {"host": broker.host, "port": broker.port, "protocol": broker.protocol},
        "log": {"format": "human"},
    }
    if address:
        config["web"] = {"enabled": True, "listen": address}
    path = folder / "agent.yaml"
    path.write_text("# The configuration of this demo run.\n" + yaml.safe_dump(config, sort_keys=False))
    return path


def _agent_command(command: str, config: Path) -> list[str]:
    return [sys.executable, "-m", "agent.cli", command, "--config", str(config)]


def _camera_command(folder: Path, strips: int | None) -> list[str]:
    seed = secrets.randbelow(1_000_000)
    command = [sys.executable, "-m", "agent.demo.camera", str(folder / "cameras"), str(folder / "truth.jsonl")]
    command += ["--rate", str(STRIPS_PER_SECOND), "--seed", str(seed)]
    return command if strips is None else [*command, "--strips", str(strips)]


def _environment() -> dict[str, str]:
    """Leave out what would reconfigure this service or make it speak to somebody else's systemd."""
    ours = ("STRIP_AGENT__", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def _introduce(folder: Path, broker: Broker, strips: int | None, address: str) -> None:
    count = "strips until Ctrl-C" if strips is None else f"{strips} strip{'s' if strips != 1 else ''}"
    print(
        f"""strip-agent demo: an inspection machine in miniature

  Two simulated cameras drop strips into folders: flexible circuits, some with defects, some files slow or broken.
  The service takes the bundled model from its inbox, scores every strip, writes its heatmap and publishes the result.
  Meanwhile a newer model is pushed, and then a damaged one. What you see below has come over MQTT.

  cameras   {", ".join(CAMERAS)}: {count}, {STRIPS_PER_SECOND:g} a second
  broker    {broker.name} at {broker.host}:{broker.port}
  page      {f"http://{address}/" if address else "none"}
  folder    {folder}
            agent.yaml, cameras/, inbox/, heatmaps/, state/ (the ledger), service.log
""",
        flush=True,
    )


# While it runs.


def _watch(run: Run, stop: threading.Event) -> None:
    """Show results until the cameras have written everything, or somebody asks to stop."""
    phase = "Ctrl-C ends it with the audit"
    while not stop.is_set() and run.camera.poll() is None and run.service.poll() is None:
        _show_next(run, phase)
        if said := run.pushes.push_next(len(run.tally.results)):
            run.screen.say(said)


def _wait_for_the_rest(run: Run) -> None:
    """Stop the cameras and wait until each strip that they wrote has a result, and each push its answer."""
    stop_child(run.camera, seconds=STOP_SECONDS)
    written = {strip.key for strip in read_truth(run.folder / "truth.jsonl")}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while run.service.poll() is None and time.monotonic() < deadline:
        waiting = run.pushes.still_waits()
        if written <= run.tally.results.keys() and not waiting:
            return
        if _show_next(run, "cameras stopped; waiting for the last answers") or waiting:
            deadline = time.monotonic() + PATIENCE_SECONDS


def _stop_service(run: Run) -> None:
    """Let the service drain, as `systemctl stop` does, and show what still arrives."""
    if run.service.poll() is None:
        run.service.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while run.service.poll() is None and time.monotonic() < deadline:
        _show_next(run, "cameras stopped, all strips judged; the service is stopping")
    stop_child(run.service, seconds=0.1)
    while _show_next(run, "stopped"):
        pass


def _show_next(run: Run, phase: str, timeout_seconds: float = 0.1) -> bool:
    """Show the next message; False when none came in time."""
    try:
        message = run.subscriber.messages.get(timeout=timeout_seconds)
    except queue.Empty:
        message = None
    if message is not None:
        payload = message.payload
        if message.topic.startswith("event/strip/") and run.tally.add(payload):
            run.screen.result(row_of(payload, message.arrived_ms))
        elif message.topic == "state/agent":
            run.service_state = "service online" if payload["online"] else f"service offline ({payload['reason']})"
        elif message.topic.startswith("event/model/"):
            if said := run.pushes.take(payload, len(run.tally.results)):
                run.screen.say(said)
        elif message.topic.startswith("state/model/"):
            run.model_state = _describe_model(payload, run.model_state)
    run.screen.status(f"{run.service_state} · {run.model_state} · {phase}", _totals(run.tally))
    return message is not None


def _describe_model(state: dict[str, Any], otherwise: str) -> str:
    if state["active_model_id"]:
        golden = ", golden strip reproduced" if state["golden"] == "passed" else ""
        refused = f", refused last: {state['last_refused_reason']}" if state["last_refused_reason"] else ""
        return f"model {state['active_model_id']} v{state['active_version']} active{golden}{refused}"
    if state["last_refused_reason"]:
        return f"model refused: {state['last_refused_reason']} ({state['last_refused_detail']})"
    return otherwise


def _totals(tally: Tally) -> str:
    verdicts = ", ".join(f"{tally.count(verdict)} {verdict}" for verdict in ("ok", "anomalous", "invalid"))
    lost = "no gap in seq" if tally.gaps == 0 else f"{tally.gaps} missing in seq"
    return f"{len(tally.results)} results: {verdicts} · {tally.repeats} repeated · {lost}"


# Afterwards.


def _audit(config: Path) -> int:
    print(f"\n$ strip-agent audit --config {config}", flush=True)
    return subprocess.run(_agent_command("audit", config), env=_environment(), check=False).returncode


def _conclude(run: Run) -> bool:
    """Say how the results compare with what the cameras wrote; False when something is missing or went wrong."""
    found = compare(read_truth(run.folder / "truth.jsonl"), run.tally.results)
    print(f"""
Written by the cameras, and what the agent made of it: {_totals(run.tally)}
  defective strips found (anomalous)   {found.defective_found} of {found.defective}
  good strips passed (ok)              {found.good_passed} of {found.good}
  broken files refused (invalid)       {found.broken_refused} of {found.broken}""")
    for (camera, file), what, verdict in found.wrong:
        print(f"  not so: {camera}/{file} ({what}) was judged {verdict}")
    for camera, file in found.missing:
        print(f"  MISSING: no result came for {camera}/{file}")
    for said in run.pushes.said:
        print(f"  model {said}")
    print(f"\nHeatmaps: {run.folder / 'heatmaps'}")
    pictures = [result for result in run.tally.results.values() if result["preview_path"]]
    if pictures:
        best = max(pictures, key=lambda result: float(result["score"]))
        print(f"Look at:  {run.folder / 'heatmaps' / best['preview_path']}")
    failed = False
    for name, child in (("service", run.service), ("camera", run.camera)):
        if child.returncode not in {0, -signal.SIGTERM}:  # SIGTERM: stopped before it was ready to stop by itself
            failed = True
            log = run.folder / f"{name}.log"
            print(f"\nThe {name} ended with exit code {child.returncode}; the end of {log}:\n{last_lines(log)}")
    return not (failed or found.missing or run.tally.gaps or run.pushes.wrong)
