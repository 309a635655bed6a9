"""More strips than the box can judge, for a while: order, fairness, memory, and what is told of the backlog."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.faults.reliability import Row, tell
from tests.faults.shift import (
    HEIGHT,
    WIDTH,
    Cameras,
    anonymous_mib,
    by_commit,
    heard,
    judge_shift,
    make_box,
    worker_pid,
)
from tests.helpers.broker import MOSQUITTO, Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.soak import SHARE, share_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal, Self

    import onnx

    from tests.helpers.box import Box

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.mosquitto,
    pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto"),
]
BUSY, QUIET = ("top", "side", "left"), "right"
CHANNELS, LAYERS = 32, 6
IN_WORK = 3  # strips of which the last one is chosen when the one before them has been committed
OVERTAKEN_AT_MOST = 8  # two strips in the worker, a turn of the other cameras, and what is committed meanwhile
MEMORY_MIB = 16.0
MOST_WAITING = 3000  # then it is enough


def heavy_model(path: Path) -> None:
    """Write a model that judges as `difference_model` does and takes some milliseconds for it."""
    kernels = [
        numpy_helper.from_array(np.full((CHANNELS, 1, 3, 3), 0.01, np.float32), "widen"),
        numpy_helper.from_array(np.full((1, CHANNELS, 3, 3), 0.01, np.float32), "narrow"),
    ]
    nodes, last = [], "heatmap"
    for number in range(LAYERS):
        nodes.append(helper.make_node("Conv", [last, "widen"], [f"wide{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Conv", [f"wide{number}", "narrow"], [f"thin{number}"], pads=[1, 1, 1, 1]))
        last = f"thin{number}"
    nodes += [helper.make_node("Mul", [last, "zero"], ["none"]), helper.make_node("Add", ["heatmap", "none"], ["out"])]

    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.extend(kernels)

    difference_model(path, height=HEIGHT, width=WIDTH, tail=lambda: nodes, edit=edit)


@dataclass
class Watch:
    """Looks at a box all the time while it is open: what the status says of the backlog, and the memory."""

    box: Box
    pending: list[int] = field(default_factory=list)
    oldest_seconds: list[float] = field(default_factory=list)
    supervisor_mib: list[float] = field(default_factory=list)
    worker_mib: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.box.process is not None
        self._supervisor, self._worker = self.box.process.pid, worker_pid(self.box)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            health = self.box.ask("status")["health"]
            self.pending.append(health["strips_pending"])
            self.oldest_seconds.append(health["strips_oldest_s"])
            self.supervisor_mib.append(anonymous_mib(self._supervisor))
            self.worker_mib.append(anonymous_mib(self._worker))


def check_order(cameras: Cameras, found: list[dict[str, Any]]) -> None:
    """Each camera's strips were committed in the order in which it wrote them."""
    for camera in (*BUSY, QUIET):
        names = [result["file"] for result in found if result["camera"] == camera]
        assert names == cameras.in_order(camera), camera


def seen_of(box: Box, camera: str) -> dict[str, int]:
    """Return when each of a camera's strips was begun (Unix milliseconds), by its id."""
    return {
        strip["strip_id"]: strip["seen_ms"] for strip in box.ask("strips_list", camera=camera, limit=100_000)["strips"]
    }


def check_turns(box: Box, found: list[dict[str, Any]], from_ms: float, until_ms: float) -> int:
    """Busy cameras took turns while all of them waited; return how many strips that was seen on.

    Where the cameras themselves were held up one of them may have had nothing to be judged: then all begin anew.
    """
    seen_ms = {strip_id: at for camera in BUSY for strip_id, at in seen_of(box, camera).items()}
    busy = [result for result in found if result["camera"] in BUSY]
    waiting = {
        camera: deque(seen_ms[result["strip_id"]] for result in busy if result["camera"] == camera) for camera in BUSY
    }
    counts: Counter[str] = Counter(dict.fromkeys(BUSY, 0))
    total = 0
    for position, result in enumerate(busy):
        chosen_ms = busy[max(0, position - IN_WORK)]["ts_ms"]  # not before
        all_wait = all(begun and begun[0] < chosen_ms for begun in waiting.values())
        waiting[result["camera"]].popleft()
        if not (all_wait and from_ms <= result["ts_ms"] <= until_ms):
            counts = Counter(dict.fromkeys(BUSY, 0))
            continue
        counts[result["camera"]] += 1
        total += 1
        assert max(counts.values()) - min(counts.values()) <= 2, counts
    return total


def overtaken(box: Box, found: list[dict[str, Any]]) -> int:
    """Return how many strips of other cameras at most were committed while it was the quiet camera's turn."""
    seen_ms = seen_of(box, QUIET)
    most, before = 0, -1  # the quiet camera's strip before this one
    for position, result in enumerate(found):
        if result["camera"] == QUIET:
            others = found[before + 1 : position]
            most = max(most, sum(other["ts_ms"] > seen_ms[result["strip_id"]] for other in others))
            before = position
    return most


def measure_capacity(cameras: Cameras, subscriber: Subscriber, strips: int = 30, warm: int = 10) -> float:
    """Return how many strips the box judges in a second, once the first ones have settled and are through."""
    cameras.burst(QUIET, strips)
    wait_for(lambda: heard(subscriber) >= strips, "the box judges them")
    committed_ms = [result["ts_ms"] for result in by_commit(subscriber)]
    return (strips - warm) * 1000 / float(committed_ms[strips - 1] - committed_ms[warm - 1])


def overload(folder: Path, *, seconds: float, times: float, run: Literal["test", "soak"]) -> None:
    """Let so many times as many strips arrive as can be judged, then few; check all that is promised."""
    with (
        Broker(folder) as broker,
        Subscriber(broker.port) as subscriber,
        make_box(folder, broker.port, cameras=(*BUSY, QUIET)) as box,
        ExitStack() as stack,
    ):
        heavy_model(box.inbox / "model.onnx")
        box.change_constants({"agent.health.PUBLISH_SECONDS": seconds / 2})  # a minute in the product
        box.start()
        worker_pid(box)
        cameras = Cameras(box, folder, dict.fromkeys((*BUSY, QUIET), 1.0))
        capacity = measure_capacity(cameras, subscriber)
        low = dict.fromkeys((*BUSY, QUIET), capacity / 32)
        rates = dict.fromkeys(BUSY, times * capacity / len(BUSY)) | {QUIET: capacity / 12}
        cameras.set_rates(low)
        stack.enter_context(cameras)
        with Watch(box) as watch:
            wait_for(lambda: len(watch.worker_mib) >= 5, "the watch has begun")
            at_first = max(watch.supervisor_mib), max(watch.worker_mib)
            for _ in range(5):  # the machine may have been busier when the capacity was measured
                began_ms = time.time() * 1000
                cameras.set_rates(rates)
                lasts_until = time.monotonic() + seconds
                while time.monotonic() < lasts_until and watch.pending[-1] < MOST_WAITING:
                    time.sleep(0.1)  # the overload itself: not a wait for anything
                ended_ms = time.time() * 1000
                if watch.pending[-1] > 4 * len(rates):
                    break
                rates = {camera: 2 * rate for camera, rate in rates.items()}
            cameras.set_rates(low)
            wait_for(lambda: watch.pending[-1] <= len(rates), "the backlog is gone, while strips go on arriving", 600)
        verdict = judge_shift(box, subscriber, cameras)
        found = by_commit(subscriber)
        check_order(cameras, found)
        assert check_turns(box, found, began_ms, ended_ms) >= 6, "there was no overload"
        late = overtaken(box, found)
        assert late <= OVERTAKEN_AT_MOST, late
        lasted = (ended_ms - began_ms) / 1000
        judged_per_second = sum(began_ms <= result["ts_ms"] <= ended_ms for result in found) / lasted
        assert judged_per_second < sum(rates.values()) / 1.2, "that was no overload"
        every = [json.loads(payload) for payload in subscriber.payloads("/state/health")]
        told = [health for health in every if health["ts_ms"] > began_ms]
        assert max(health["strips_pending"] for health in told) > len(rates), "no message told of the backlog"
        assert max(health["strips_oldest_s"] for health in told) > 0.5, "no message told how old it was"
        grown = [max(watch.supervisor_mib) - at_first[0], max(watch.worker_mib) - at_first[1]]
        assert max(grown) < MEMORY_MIB, grown
        assert max(watch.pending) > len(rates)
        assert max(watch.oldest_seconds) > 0.5
        latency = defaultdict(list)
        for result in found:
            latency[result["camera"]].append(result["total_ms"] / 1000)
        assert box.stop() == 0
    tell(
        Row(
            "Load",
            "more strips than can be judged, on four cameras",
            "each camera's strips in their order, cameras in turn, a quiet camera never waits behind a busy one's "
            "backlog; number and age of what waits in status and state/health; memory bounded; all scored in the end",
            f"three busy cameras and a quiet one, {sum(rates.values()):.0f} strips a second for {lasted:.0f} s where "
            f"{judged_per_second:.0f} are judged, then {sum(low.values()):.0f}",
            f"{verdict}; up to {max(watch.pending)} waited, the oldest for {max(watch.oldest_seconds):.0f} s; the "
            f"quiet camera's turn never after more than {late} others, {max(latency[QUIET]):.1f} s at most (busy ones "
            f"{max(max(latency[camera]) for camera in BUSY):.0f} s); supervisor {at_first[0]:.0f} MiB and "
            f"{grown[0]:+.1f}, worker {at_first[1]:.0f} MiB and {grown[1]:+.1f}",
            run=run,
            share=SHARE if run == "soak" else 1.0,
        )
    )


def test_more_strips_than_can_be_judged_for_a_while(tmp_path: Path) -> None:
    """They wait in order and in turns, visibly, and all of them are scored when fewer arrive."""
    overload(tmp_path, seconds=2.0, times=3.0, run="test")


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_more_strips_than_can_be_judged_for_minutes(tmp_path: Path) -> None:
    """The same for longer, until thousands wait."""
    overload(tmp_path, seconds=share_of(90, at_least=9), times=2.5, run="soak")
