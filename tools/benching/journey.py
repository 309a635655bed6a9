"""Measure the strip's journey: the real service, a real broker, real files; beside it the script people write today."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from tests.helpers.box import Box
from tests.helpers.broker import Broker, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import Pixels, encode, make_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SETTLE_SECONDS = 0.5
REST_SECONDS = 3.0  # then a worker has given back what it does not need
FLUSHES = 20
HEIGHT, WIDTH = 976, 176  # of a real strip; those of tests are smaller
PLAIN_SCRIPT = Path(__file__).with_name("plain_script.py")


@dataclass(frozen=True, slots=True)
class Compared:
    """Milliseconds from a closed file to the message at a subscriber, one strip at a time, run by run in turn."""

    flush: list[float]  # of 4 KiB, on the disk with the ledger
    agent: list[float]
    model: list[float]  # the model's part of `agent`
    beside: list[float]  # `agent` without the settle time and the model
    plain: list[float]  # the plain script
    settle: list[float]  # the parts of `agent`: until the file is known to be complete,
    judge: list[float]  # until its result is committed, without the model,
    publish: list[float]  # until the message is there


@dataclass(frozen=True, slots=True)
class Burst:
    """A number of strips at once: how fast they were worked off, and what each cost."""

    agent_per_second: float
    plain_per_second: float
    supervisor_ms: float  # processor time for a strip
    worker_ms: float


@dataclass(frozen=True, slots=True)
class Idle:
    """A box that nothing arrives at: processor time in percent of one core, and wakeups a second."""

    supervisor_percent: float
    workers_percent: float
    wakeups_per_second: float
    memory: str


class Arrivals:
    """A subscriber that notes when each result arrived, monotonic seconds."""

    def __init__(self, port: int) -> None:
        self.at: dict[str, tuple[float, dict[str, Any]]] = {}
        self.rang = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("strip-agent/+/event/strip/#", qos=1)
        self._client.loop_start()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        now = time.monotonic()
        result = json.loads(message.payload)
        self.at.setdefault(result["file"], (now, result))
        self.rang.set()

    def wait_for(self, name: str, seconds: float = 60.0) -> tuple[float, dict[str, Any]]:
        """Wait for the result of a file."""
        deadline = time.monotonic() + seconds
        while name not in self.at:
            self.rang.wait(max(0.0, deadline - time.monotonic()))
            self.rang.clear()
            if time.monotonic() > deadline:
                raise click.ClickException(f"{name} has no result after {seconds:g} s")
        return self.at[name]

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def running(
    folder: Path, model: Path | None, *, cameras: int = 1, settle_seconds: float = SETTLE_SECONDS
) -> Iterator[tuple[Box, Broker]]:
    """Run broker and service in `folder`; `model` None is a trivial one."""
    names = tuple(f"camera{number}" for number in range(cameras))
    with Broker(folder) as broker, Box(folder / "box", broker.port, cameras=names) as box:
        for camera in box.config["cameras"]:
            camera |= {"settle_seconds": settle_seconds, "rescan_seconds": 30}
        del box.config["models"]["settle_seconds"]  # tests are in a hurry
        box.write_config()
        box.start()
        put_model(model, box.inbox / "model.onnx")
        wait_for(lambda: box.ask("status")["workers"]["default"]["pid"], "the model is active", 120)
        yield box, broker
        box.stop()


@contextmanager
def arrivals_at(broker: Broker) -> Iterator[Arrivals]:
    """Subscribe."""
    arrivals = Arrivals(broker.port)
    try:
        yield arrivals
    finally:
        arrivals.close()


@contextmanager
def plain_script(folder: Path, model: Path, port: int) -> Iterator[None]:
    """Run the plain script on a folder."""
    command = [sys.executable, str(PLAIN_SCRIPT), str(folder), str(model), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            if process.stdout.readline().strip() != b"ready":
                raise click.ClickException("the plain script does not start; see above")
            yield
        finally:
            process.kill()


def put_model(model: Path | None, target: Path) -> None:
    """Copy the model there, or make the trivial one."""
    if model is None:
        difference_model(target, height=HEIGHT, width=WIDTH)
    else:
        shutil.copyfile(model, target)


def drawn_pixels(seed: int) -> Pixels:
    """Make up a strip of real size, (4, H, W)."""
    return make_pixels(seed=seed, height=HEIGHT, width=WIDTH)


def drawn_strips(number: int) -> dict[str, bytes]:
    """Make up strips, as the bytes of their files by name."""
    return {f"strip{seed}.tif": encode(drawn_pixels(seed)) for seed in range(number)}


def drop(folder: Path, name: str, data: bytes) -> float:
    """Write a file as a careful camera does; return when it was there."""
    hidden = folder / f".{name}.part"
    hidden.write_bytes(data)
    hidden.rename(folder / name)
    return time.monotonic()


def compare(folder: Path, strips: Mapping[str, bytes], model: Path, rounds: int) -> Compared:
    """Give every strip to the agent and to the plain script in turn; the first round warms up and does not count."""
    found = Compared([], [], [], [], [], [], [], [])
    (folder / "plain").mkdir()
    with (
        running(folder, model) as (box, broker),
        plain_script(folder / "plain", model, broker.port),
        arrivals_at(broker) as arrivals,
    ):
        camera = box.camera("camera0")
        for number in range(rounds + 1):
            flushes = flush_ms(folder, FLUSHES)
            for name, data in strips.items():
                closed = drop(camera, f"agent-{number}-{name}", data)
                closed_ms = time.time() * 1e3
                arrived, result = arrivals.wait_for(f"agent-{number}-{name}")
                plain_closed = drop(folder / "plain", f"plain-{number}-{name}", data)
                plain_arrived, _ = arrivals.wait_for(f"plain-{number}-{name}")
                if number == 0:
                    continue
                found.agent.append((arrived - closed) * 1e3)
                found.model.append(float(result["inference_ms"]))
                found.beside.append(found.agent[-1] - SETTLE_SECONDS * 1e3 - found.model[-1])
                found.plain.append((plain_arrived - plain_closed) * 1e3)
                found.settle.append(result["ts_ms"] - result["total_ms"] - closed_ms)
                found.judge.append(result["total_ms"] - found.model[-1])
                found.publish.append(closed_ms + found.agent[-1] - result["ts_ms"])
            found.flush.extend(flushes)
    return found


def burst(folder: Path, strips: int) -> Burst:
    """Drop many strips at once, for the agent and then for the plain script, with a trivial model."""
    data = encode(drawn_pixels(0).round().astype("uint8"))
    (folder / "plain").mkdir()
    put_model(None, folder / "trivial.onnx")
    with (
        running(folder, None) as (box, broker),
        plain_script(folder / "plain", folder / "trivial.onnx", broker.port),
        arrivals_at(broker) as arrivals,
    ):
        before = cpu_seconds(box)
        rates = []
        for kind, target in (("agent", box.camera("camera0")), ("plain", folder / "plain")):
            began = time.monotonic()
            for number in range(strips):
                drop(target, f"{kind}-{number:06}.tif", data)
            for number in range(strips):
                arrivals.wait_for(f"{kind}-{number:06}.tif", 300)
            waited = SETTLE_SECONDS if kind == "agent" else 0.0
            rates.append(strips / (time.monotonic() - began - waited))
            if kind == "agent":
                used = [(after - was) * 1e3 / strips for was, after in zip(before, cpu_seconds(box), strict=True)]
        return Burst(*rates, *used)


def idle(folder: Path, cameras: int, seconds: float) -> Idle:
    """Watch a box with a model and nothing to do."""
    with running(folder, None, cameras=cameras) as (box, _):
        time.sleep(REST_SECONDS)
        cpu, woken = cpu_seconds(box), wakeups(box)
        time.sleep(seconds)
        supervisor, workers = ((after - was) / seconds * 100 for was, after in zip(cpu, cpu_seconds(box), strict=True))
        return Idle(supervisor, workers, (wakeups(box) - woken) / seconds, memory(box))


def wakeups(box: Box) -> int:
    """Count how often threads of supervisor and workers have waited, since they began."""
    return sum(
        int(line.split()[1])
        for process in processes(box)
        for task in Path(f"/proc/{process}/task").iterdir()
        for line in (task / "status").read_text(encoding="ascii", errors="replace").splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def processes(box: Box) -> list[int]:
    """Give the supervisor's number and those of its workers."""
    assert box.process is not None  # noqa: S101 - it runs
    return [box.process.pid, *(worker.pid for worker in box.workers())]


def flush_ms(folder: Path, rounds: int = 200) -> list[float]:
    """Write 4 KiB and flush, `rounds` times; give the milliseconds of each flush, sorted."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(rounds):
            file.write(b"x" * 4096)
            start = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    return sorted(times)


def pss_mib(pid: int, kind: str = "Pss") -> float:
    """Proportional set size of a process; `Pss_Anon` leaves out what it shares with others on this machine."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory(box: Box) -> str:
    """Say what the processes need, in MiB."""
    supervisor, *workers = processes(box)
    total, own = (sum(pss_mib(pid, kind) for pid in (supervisor, *workers)) for kind in ("Pss", "Pss_Anon"))
    return f"PSS of the supervisor {pss_mib(supervisor):.0f}, of all {total:.0f}, their own {own:.0f} MiB"


def cpu_seconds(box: Box) -> tuple[float, float]:
    """Give the time that (supervisor, workers) have computed: it says more than the clock where others compute too."""
    supervisor, *workers = processes(box)
    times = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in (supervisor, *workers)]
    return times[0], sum(times[1:])
