#!/usr/bin/env python
"""Measure the strip's journey: the real service, the real broker, real files. Nothing here is asserted.

tools/bench_journey.py disk FOLDER                   how long a flush takes there
tools/bench_journey.py cost --model M.onnx STRIP...  time beside the settle time and the model, one strip at a time
tools/bench_journey.py load --strips 10000           throughput with a trivial model, memory on the way
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.box import Box
from tests.helpers.broker import Broker, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import make_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTLE_SECONDS = 0.5
REST_SECONDS = 2.0  # then a worker has given back what it does not need
AHEAD = 100  # strips in the camera's folder that have no result yet


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
def running(folder: Path, model: Path | None, **camera: Any) -> Iterator[tuple[Box, Arrivals]]:
    """Run broker, service and subscriber in `folder`; `model` None is a trivial one."""
    with Broker(folder) as broker, Box(folder / "box", broker.port) as box:
        print(f"broker: {broker.kind}")
        box.config["cameras"][0] |= {"settle_seconds": SETTLE_SECONDS, "rescan_seconds": 30, **camera}
        box.write_config()
        box.start()
        if model is None:
            difference_model(box.inbox / "model.onnx")
        else:
            shutil.copyfile(model, box.inbox / "model.onnx")
        wait_for(lambda: box.ask("status")["workers"]["default"]["pid"], "the model is active", 120)
        arrivals = Arrivals(broker.port)
        try:
            yield box, arrivals
        finally:
            arrivals.close()
            print(f"exit code of the service: {box.stop()}")


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


def say(what: str, values: list[float], unit: str) -> None:
    """Print median and spread."""
    ordered = sorted(values)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"{what}: median {statistics.median(ordered):.1f}, p95 {p95:.1f}, max {ordered[-1]:.1f} {unit}")


def pss_mib(pid: int, kind: str = "Pss") -> float:
    """Proportional set size of a process; `Pss_Anon` leaves out what it shares with others on this machine."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory(box: Box) -> str:
    """Say what the processes need, in MiB."""
    assert box.process is not None  # noqa: S101 - it runs
    everything = [box.process.pid, *(worker.pid for worker in box.workers())]
    total, own = (sum(pss_mib(pid, kind) for pid in everything) for kind in ("Pss", "Pss_Anon"))
    return f"PSS of the supervisor {pss_mib(box.process.pid):.1f}, of all {total:.2f}, their own {own:.2f} MiB"


def cpu_seconds(box: Box) -> tuple[float, float]:
    """Give the time that (supervisor, worker) have computed: it says more than the clock where others compute too."""
    assert box.process is not None  # noqa: S101 - it runs
    return tuple(  # type: ignore[return-value] # two of them
        sum(psutil.Process(pid).cpu_times()[:2]) for pid in (box.process.pid, box.workers()[0].pid)
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the strip's journey on this machine."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
def disk(folder: Path) -> None:
    """Time a flush of 4 KiB."""
    say("flush", flush_ms(folder), "ms")


@main.command()
@click.argument("strips", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="On the disk that is to be measured.")
def cost(strips: tuple[Path, ...], model: Path, rounds: int, folder: Path | None) -> None:
    """Time from a closed file to its message at a subscriber, minus the settle time, minus the run of the model."""
    beside, total, inference, flushes = [], [], [], []
    with (
        tempfile.TemporaryDirectory(dir=folder) as temporary,
        running(Path(temporary), model) as (box, arrivals),
    ):
        contents = {path.name: path.read_bytes() for path in strips}
        for number in range(rounds + 1):
            flushes += flush_ms(Path(temporary), 20)
            for name, data in contents.items():
                path = box.camera() / f"{number}-{name}"
                path.write_bytes(data)
                closed = time.monotonic()
                arrived, result = arrivals.wait_for(path.name)
                if number == 0:
                    continue  # everything is cold
                total.append((arrived - closed) * 1e3)
                inference.append(float(result["inference_ms"]))
                beside.append(total[-1] - SETTLE_SECONDS * 1e3 - inference[-1])
        say("flush of 4 KiB on this disk", flushes, "ms")
        say("file closed -> message arrived", total, "ms")
        say("the run of the model", inference, "ms")
        say("beside settle time and model", beside, "ms")
        print(memory(box))


@main.command()
@click.option("--strips", default=2000, show_default=True)
@click.option("--when-done", type=click.Choice(["keep", "delete"]), default="keep", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "uint8"]), default="float32", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="On the disk that is to be measured.")
def load(strips: int, when_done: str, dtype: str, folder: Path | None) -> None:
    """Keep the service busy with a trivial model; `--when-done delete` bounds the space that it takes."""
    from tests.helpers.strips import encode  # noqa: PLC0415

    data = encode(make_pixels().round().astype(dtype))
    with (
        tempfile.TemporaryDirectory(dir=folder) as temporary,
        running(Path(temporary), None, when_done=when_done) as (box, arrivals),
    ):
        say("flush of 4 KiB on this disk", flush_ms(Path(temporary)), "ms")
        step = max(1, strips // 10)
        cpu = cpu_seconds(box)
        busy_seconds = 0.0
        for first in range(0, strips, step):
            began = time.monotonic()
            last = min(first + step, strips)
            for number in range(first, last):
                while number - len(arrivals.at) >= AHEAD:
                    arrivals.rang.wait(1.0)
                    arrivals.rang.clear()
                hidden = box.camera() / f".{number}"
                hidden.write_bytes(data)
                hidden.rename(box.camera() / f"{number:06}.tif")
            arrivals.wait_for(f"{last - 1:06}.tif")
            seconds = time.monotonic() - began
            busy_seconds += seconds - SETTLE_SECONDS
            wait_for(lambda: box.ask("status")["strips"]["pending"] == 0, "everything is acknowledged", 60)
            time.sleep(REST_SECONDS)
            rate = (last - first) / (seconds - SETTLE_SECONDS)
            print(f"{last:7} strips: {rate:6.1f}/s, {memory(box)}", flush=True)  # at rest: no strip's own needs
        print(f"{strips} strips, all acknowledged: {strips / busy_seconds:.1f}/s")
        used = [(after - before) * 1e3 / strips for before, after in zip(cpu, cpu_seconds(box), strict=True)]
        print(f"processor time for a strip: supervisor {used[0]:.1f}, worker {used[1]:.1f} ms")
        print(f"audit balanced: {box.ask('audit')['balanced']}")


if __name__ == "__main__":
    main()
