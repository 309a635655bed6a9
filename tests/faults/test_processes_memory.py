"""Memory that runs out, of a model's limit or of the box: the right one is blamed, and no strip is lost."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import Reason
from tests.faults.judging import Written, judge
from tests.faults.memory_group import MemoryGroup, memory_group, needs_memory_group
from tests.faults.reliability import Row, tell
from tests.faults.shift import (
    Cameras,
    anonymous_mib,
    attempts_of,
    by_commit,
    judge_shift,
    make_box,
    wait_for_progress,
    worker_pid,
    worker_restarts,
)
from tests.helpers.bad_models import BRIGHT, HUNGRY_MIB, hungry_on_bright
from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import put
from tests.helpers.strips import encode, make_pixels, write_strip

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(400)


LIMIT_MIB = 700
KERNEL_MIB = 12.0  # page tables and the like, which count too
SHORTER = {
    "agent.models.keeper.BOX_PAUSE_SECONDS": 2.0,
    "agent.models.keeper.SHORTEST_HOLD_SECONDS": 3.0,
    "agent.models.keeper.LONGEST_HOLD_SECONDS": 12.0,
}


def test_a_model_that_needs_more_memory_than_it_may_have(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """Its strips are invalid with the reason, the worker lives, and on probation the model before it comes back."""
    bright, plain = tmp_path / "bright.tif", tmp_path / "plain.tif"
    pixels = make_pixels()
    pixels[0, 400:416, 60:72] = BRIGHT + 5
    bright.write_bytes(encode(pixels))
    write_strip(plain)
    written: Written = set()

    def drop(source: Path, name: str) -> None:
        drop_file(source, box.camera() / name)
        written.add(("top", name))

    with Box(tmp_path / "box", broker.port, models={"trial": {"memory_mib": LIMIT_MIB}}) as box:
        good = difference_model(box.inbox / "good.onnx")
        box.start()
        drop(plain, "0.tif")
        wait_for(lambda: len(unique_results(subscriber)) == 1, "the good model scores")
        put(box.inbox / "hungry.onnx", lambda path: hungry_on_bright(path, 2))
        hungry = hashlib.sha256((box.inbox / "hungry.onnx").read_bytes()).hexdigest()

        def works(sha256: str) -> bool:
            return bool(box.ask("status")["workers"]["default"]["model_sha256"] == sha256)

        wait_for(lambda: works(hungry), "the hungry model is active")
        worker = worker_pid(box)
        for number in range(1, 3):
            drop(bright, f"{number} bright.tif")
            wait_for(lambda number=number: len(unique_results(subscriber)) == 1 + number, "it has a result")  # type: ignore[misc]
        refused = by_commit(subscriber)[1:]
        reasons = {result["reason"] for result in refused}
        assert reasons == {Reason.MODEL_NEEDS_TOO_MUCH_MEMORY}, refused
        wait_for(lambda: works(good), "the good model is back")
        drop(bright, "3 bright.tif")
        verdict = judge(box, subscriber, written)
        assert by_commit(subscriber)[-1]["verdict"] == "anomalous"
        assert worker_restarts(box) == 0, f"worker {worker} died"
        assert box.stop() == 0
    tell(
        Row(
            "Processes",
            "model needs more memory than models.trial.memory_mib",
            "the strip is invalid with that reason, the worker lives; on probation the model before it comes back",
            f"a model that takes {HUNGRY_MIB} MiB for bright strips only, which its golden strip is not; the limit is "
            f"{LIMIT_MIB} MiB",
            f"{verdict}; no worker lost, the good model back after 2 strips",
        )
    )


def starve(group: MemoryGroup, supervisor: int, worker: int) -> None:
    """Leave the supervisor what it has, and two thirds of what a worker needs.

    A limit below what is in use cannot be set: first the worker has to go, for the next strip is one too many for it.
    """
    limit_mib = anonymous_mib(supervisor) + KERNEL_MIB + anonymous_mib(worker) * 2 / 3

    def starved() -> bool:
        with suppress(OSError):
            group.limit(round(limit_mib * (1 << 20)))
            return True
        with suppress(OSError):  # what is in use grew meanwhile
            group.limit(group.used_bytes() + (256 << 10))
        return False

    wait_for(starved, "the worker is gone, and there is no room for another one")


@needs_memory_group
def test_a_worker_that_the_kernel_kills_for_lack_of_memory(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """No strip is blamed, however often it happens: all are scored in the end, with every attempt left."""
    with (
        memory_group() as group,
        make_box(tmp_path, broker.port) as box,
        Cameras(box, tmp_path, {"top": 5.0, "side": 5.0}) as cameras,
    ):
        box.change_constants(SHORTER)
        box.program = group.launch(box.program)
        box.start()
        wait_for_progress(subscriber, 10)
        assert box.process is not None
        supervisor = box.process.pid
        told_before = len(subscriber.payloads("/state/health"))
        starve(group, supervisor, worker_pid(box))
        kills_wanted = 3  # more than any strip has attempts

        def told() -> list[dict[str, Any]]:
            healths = map(json.loads, subscriber.payloads("/state/health")[told_before:])
            return [one for one in healths if one["status"] == "failing" and "slot_default_" in one["alarms"]]

        wait_for(lambda: group.kills() >= kills_wanted, "the kernel kills workers")
        wait_for(told, "health says that the slot has no worker, or is held")  # a second or so after it is so
        during = told()[-1]
        group.limit(None)
        wait_for_progress(subscriber, 10)
        verdict = judge_shift(box, subscriber, cameras)
        kills = group.kills()
        assert set(attempts_of(box).values()) == {0}, "a strip was blamed"
        assert box.process.pid == supervisor
        assert box.process.poll() is None
        mib = anonymous_mib(supervisor)
        assert box.stop() == 0
    tell(
        Row(
            "Processes",
            "worker killed by the kernel for lack of memory",
            "the supervisor lives, no strip loses an attempt for it; health is failing with an alarm while the slot "
            "has no worker, and while it is held after three different strips in a row; all are scored once there is "
            "memory",
            "the service in a memory cgroup whose limit is lowered until no worker fits, and raised again later",
            f"{kills} kills by the kernel; {verdict}; no attempt lost; health said {during.get('status')!r} "
            f"({during.get('alarms')}); supervisor {mib:.0f} MiB",
        )
    )
