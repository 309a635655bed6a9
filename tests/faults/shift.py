"""A shift at the line: cameras that go on writing whatever happens to the box, and what the box was promised to do."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.faults.judging import Verdict, Written, judge, strip_of
from tests.helpers.box import Box, unique_results
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from tests.helpers.broker import Subscriber

HEIGHT, WIDTH = 128, 128
TEMPLATES = 6
LOOK_SECONDS = 0.05  # at a rate that may have changed
FORGETS_MS, RECORDED_MS = 1000.0, 5000.0  # what a killed broker forgets; how late its last acknowledgement is recorded


def make_box(folder: Path, port: int, *, cameras: tuple[str, ...] = ("top", "side"), **sections: Any) -> Box:
    """Make a box with a model for small strips."""
    box = Box(folder / "box", port, cameras=cameras, **sections)
    difference_model(box.inbox / "model.onnx", height=HEIGHT, width=WIDTH)
    return box


class Cameras:
    """While it is open, each camera writes so many strips a second; every third strip has a defect."""

    def __init__(self, box: Box, folder: Path, strips_per_second: Mapping[str, float]) -> None:
        self.anomalous: Written = set()
        """Those of `written` that have a defect."""
        self.pause = threading.Event()
        """Set, nothing is written."""
        self._box = box
        self._rates = dict(strips_per_second)
        self._written: dict[str, list[str]] = {camera: [] for camera in strips_per_second}
        self._templates = [folder / f"template{number}.tif" for number in range(TEMPLATES)]
        for number, path in enumerate(self._templates):
            defect = number % 3 == 0
            write_strip(path, defect=defect, seed=number, height=HEIGHT, width=WIDTH, dtype="uint8", channels=3)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(camera,)) for camera in strips_per_second]

    @property
    def written(self) -> Written:
        """What they have written so far."""
        return {(camera, name) for camera, names in list(self._written.items()) for name in list(names)}

    def in_order(self, camera: str) -> list[str]:
        """Return what a camera has written, in that order."""
        return list(self._written[camera])

    def set_rates(self, strips_per_second: Mapping[str, float]) -> None:
        """Write faster or slower from now on."""
        self._rates.update(strips_per_second)

    def burst(self, camera: str, strips: int) -> None:
        """Write so many at once; before it is opened."""
        for _ in range(strips):
            self._write(camera)

    def template(self, number: int) -> Path:
        """Return the file that a camera's strip of this number is a copy of."""
        return self._templates[number % TEMPLATES]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Write no more."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, camera: str) -> None:
        last = time.monotonic()
        while not self._over.wait(min(LOOK_SECONDS, max(0.0, last + 1 / self._rates[camera] - time.monotonic()))):
            now = time.monotonic()
            if now < last + 1 / self._rates[camera]:
                continue
            last = max(last + 1 / self._rates[camera], now - 1.0)  # after a pause no more than a second's
            if not self.pause.is_set():
                self._write(camera)

    def _write(self, camera: str) -> None:
        number = len(self._written[camera])
        name = f"{number:06d}.tif"
        part = self._box.camera(camera) / f"{name}.part"
        shutil.copyfile(self.template(number), part)
        part.rename(part.with_suffix(""))
        if number % 3 == 0:
            self.anomalous.add((camera, name))
        self._written[camera].append(name)


def judge_shift(box: Box, subscriber: Subscriber, cameras: Cameras, *, seconds: float = 180) -> Verdict:
    """Let both judges speak; nothing is invalid, and what has a defect is the very thing that is anomalous."""
    cameras.stop()
    verdict = judge(box, subscriber, cameras.written, seconds=seconds)
    assert verdict.invalid == 0, [result for result in verdict.results if result["verdict"] == "invalid"][:3]
    found = {strip_of(result) for result in verdict.results if result["verdict"] == "anomalous"}
    assert found == cameras.anomalous, found ^ cameras.anomalous
    return verdict


def judge_after_broker_kills(
    box: Box, subscriber: Subscriber, written: Written, killed_ms: list[float], *, seconds: float = 180
) -> tuple[Verdict, int]:
    """Let both judges speak where the broker itself was killed; return how many messages it forgot, too.

    A broker that is killed forgets what it has acknowledged and neither written down nor handed on. Whatever did not
    arrive must be that: acknowledged shortly before one of its deaths.
    """
    judge(box, subscriber, written, seconds=seconds, messages_arrived=False)
    end = f"test/end/{uuid.uuid4()}"
    subscriber.publish(end, b"")  # what the broker handed on before arrives before
    wait_for(lambda: subscriber.messages(end), "the subscriber has everything")
    verdict = judge(box, subscriber, written, seconds=seconds, messages_arrived=False)
    missing = written - {strip_of(result) for result in verdict.results}
    numbers = [int(result["seq"]) for result in verdict.results]
    for strip in box.ask("strips_list", limit=1_000_000)["strips"] if missing else []:
        if (strip["camera"], strip["file"]) in missing:
            (shown,) = box.ask("strips_show", strip_id=strip["strip_id"])["strip"]["results"]
            ended_ms = shown["delivery_ended_ms"]
            assert any(kill - FORGETS_MS < ended_ms < kill + RECORDED_MS for kill in killed_ms), (shown, killed_ms)
            numbers.append(int(shown["seq"]))
    assert sorted(numbers) == list(range(1, box.audit()["last_seq"] + 1)), "the sequence numbers have a gap"
    return verdict, len(missing)


def forgotten(number: int) -> str:
    """Say it in the words of the table."""
    if not number:
        return ""
    return f"; {number} of them acknowledged by the broker right before it was killed, and forgotten by it"


def heard(subscriber: Subscriber) -> int:
    """Return how many strip messages have arrived, repeats included."""
    return len(subscriber.messages("/event/strip/"))


def wait_for_progress(subscriber: Subscriber, strips: int = 1, seconds: float = 180) -> float:
    """Wait until more messages arrive; return the seconds that took."""
    began, before = time.monotonic(), heard(subscriber)
    wait_for(lambda: heard(subscriber) >= before + strips, f"{strips} more results arrive", seconds)
    return time.monotonic() - began


def worker_pid(box: Box) -> int:
    """Wait until a worker takes strips; return its process id."""
    found: list[int] = []

    def at_work() -> bool:
        found[:] = [pid] if (pid := box.ask("status")["workers"]["default"]["pid"]) else []
        return bool(found)

    wait_for(at_work, f"a worker is there (see {box.log_file})")
    return found[0]


def worker_restarts(box: Box) -> int:
    """Return how many workers were lost since the start."""
    return int(box.ask("status")["health"]["worker_restarts"])


def attempts_of(box: Box) -> dict[str, int]:
    """Return camera/file -> workers that were lost on it, for all strips of the ledger."""
    strips = box.ask("strips_list", limit=100_000)["strips"]
    return {f"{strip['camera']}/{strip['file']}": strip["attempts"] for strip in strips}


@dataclass(frozen=True, slots=True)
class Use:
    """What the supervisor uses at rest."""

    pss_mib: float
    descriptors: int
    threads: int

    def __str__(self) -> str:
        """Say it in the words of the table."""
        return f"{self.pss_mib:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


def use_at_rest(box: Box, looks: int = 30) -> Use:
    """Wait until nothing is to be done; return the least that the supervisor uses in some looks at it."""
    assert box.process is not None
    process = psutil.Process(box.process.pid)

    def rests() -> bool:
        health = box.ask("status")["health"]
        done = health["strips_pending"] == 0 and health["outbox_depth"] == 0 and health["slots_ready"] == 1
        return bool(done and len(box.workers()) == 1)  # a second one tries a model

    try:
        wait_for(rests, f"nothing is left to do (see {box.log_file})", 600)
    except AssertionError as error:
        left = box.ask("strips_list", state="pending", limit=20)["strips"]
        health = box.ask("status")["health"]
        raise AssertionError(f"{error}: {left}, {len(box.workers())} workers, {health}") from None
    seen = []
    for _ in range(looks):
        time.sleep(0.1)  # what is given back a little later is not used
        seen.append(Use(supervisor_mib(box), process.num_fds(), process.num_threads()))
    return Use(*(min(getattr(use, name) for use in seen) for name in ("pss_mib", "descriptors", "threads")))


def supervisor_mib(box: Box) -> float:
    """Return the supervisor's own memory: what it has allocated, without the libraries' files."""
    assert box.process is not None
    return anonymous_mib(box.process.pid)


def anonymous_mib(pid: int) -> float:
    """Return a process's proportional part of the memory that is no file's, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss_Anon:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def newest_health(subscriber: Subscriber) -> dict[str, Any]:
    """Return the newest `state/health`."""
    health: dict[str, Any] = json.loads(subscriber.payloads("/state/health")[-1])
    return health


def by_commit(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Return the results in the order of their commit."""
    return sorted(unique_results(subscriber).values(), key=lambda result: int(result["seq"]))


def threads_of(pid: int) -> list[int]:
    """Return the kernel's ids of a process's threads."""
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
