"""Workers that die, hang, shout or lose their parent: the supervisor lives, and the right one is blamed."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agent.errors import Reason
from tests.e2e.checks import check_audit, check_messages, check_processes
from tests.helpers.box import Box, unique_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.broker import Broker


class Faulty:
    """A running service whose faults can be switched."""

    def __init__(self, folder: Path, port: int) -> None:
        self.box = Box(folder / "box", port, inference={"deadline_seconds": 5.0})
        self.switches = folder / "switches"
        self.switches.mkdir()
        self.box.program = [sys.executable, "-m", "tests.e2e.faulty", str(self.switches)]
        difference_model(self.box.inbox / "model.onnx")

    def switch(self, fault: str, *, on: bool) -> None:
        """Switch a fault."""
        (self.switches / fault).touch() if on else (self.switches / fault).unlink()

    def drop(self, source: Path, *names: str) -> None:
        """Put strips into the camera's folder at once: the names decide the order."""
        for name in names:
            hidden = self.box.camera() / f".{name}.writing"
            hidden.write_bytes(source.read_bytes())
            os.utime(hidden, ns=(10**18, 10**18))  # before it is seen: with another time it is another strip
            hidden.rename(self.box.camera() / name)

    @property
    def worker(self) -> int | None:
        """Process id of the worker that strips go to."""
        pid = self.box.ask("status")["workers"]["default"]["pid"]
        return None if pid is None else int(pid)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Faulty]:
    """Run one service for all faults."""
    faulty = Faulty(tmp_path_factory.mktemp("faulty"), broker.port)
    with faulty.box:
        faulty.box.start()
        yield faulty


@pytest.fixture(scope="module")
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    """Listen to everything."""
    with Subscriber(broker.port) as subscriber:
        yield subscriber


def result_of(subscriber: Subscriber, name: str) -> dict[str, Any]:
    """Wait for the one result of a file."""

    def found() -> list[dict[str, Any]]:
        return [result for result in unique_results(subscriber).values() if result["file"] == name]

    wait_for(found, f"{name} has a result")
    assert len(found()) == 1
    return found()[0]


def last_health(subscriber: Subscriber) -> dict[str, Any]:
    """Give the newest health."""
    wait_for(lambda: subscriber.payloads("state/health"), "a health")
    health: dict[str, Any] = json.loads(subscriber.payloads("state/health")[-1])
    return health


def told_held(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Give what was told of a slot that is held, which it is for a moment only, again and again."""
    told = [json.loads(payload) for payload in subscriber.payloads("state/health")]
    return [health for health in told if "slot_default_held" in health["alarms"]]


def test_an_idle_worker_that_is_killed_is_replaced_and_no_strip_is_blamed(
    faulty: Faulty, subscriber: Subscriber, good_strip: Path
) -> None:
    """A worker killed from outside is replaced before the next strip comes, which has all its attempts."""
    wait_for(lambda: faulty.worker is not None, "the worker is there")
    first = faulty.worker
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: faulty.worker not in (None, first), "another worker is there")
    faulty.drop(good_strip, "after the kill.tif")
    result = result_of(subscriber, "after the kill.tif")
    assert result["verdict"] == "ok"
    assert faulty.box.ask("strips_show", strip_id=result["strip_id"])["strip"]["attempts"] == 0
    check_processes(faulty.box)


def test_a_worker_that_stands_still_is_killed_at_its_deadline(
    faulty: Faulty, subscriber: Subscriber, good_strip: Path
) -> None:
    """A hung worker is replaced after inference.deadline_seconds; a second hang on the strip makes it invalid."""
    faulty.switch("hang", on=True)
    faulty.drop(good_strip, "1 hang.tif", "2 behind it.tif")
    hung, behind = result_of(subscriber, "1 hang.tif"), result_of(subscriber, "2 behind it.tif")
    assert (hung["verdict"], hung["reason"]) == ("invalid", Reason.WORKER_TIMEOUT)
    assert behind["verdict"] == "ok"
    assert behind["seq"] < hung["seq"]  # the second attempt waits for all others
    faulty.switch("hang", on=False)
    check_processes(faulty.box)


def test_a_strip_that_always_kills_the_worker(faulty: Faulty, subscriber: Subscriber, good_strip: Path) -> None:
    """Two attempts, the second alone at the end of the queue, then invalid; the others are judged in between."""
    faulty.switch("crash", on=True)
    before = faulty.box.ask("status")["health"]["worker_restarts"]
    faulty.drop(good_strip, "1 crash.tif", "2 good.tif", "3 good.tif")
    crashed = result_of(subscriber, "1 crash.tif")
    assert (crashed["verdict"], crashed["reason"]) == ("invalid", Reason.WORKER_CRASHED)
    for name in ("2 good.tif", "3 good.tif"):
        assert result_of(subscriber, name)["verdict"] == "ok"
        assert result_of(subscriber, name)["seq"] < crashed["seq"]
    wait_for(lambda: faulty.worker is not None, "a new worker is there")
    assert faulty.box.ask("status")["health"]["worker_restarts"] == before + 2
    faulty.switch("crash", on=False)


def test_a_strip_that_killed_the_worker_once_is_judged(
    faulty: Faulty, subscriber: Subscriber, good_strip: Path
) -> None:
    """One lost worker is no verdict: the second attempt counts."""
    faulty.switch("crash_once", on=True)
    faulty.drop(good_strip, "once crash.tif")
    result = result_of(subscriber, "once crash.tif")
    assert result["verdict"] == "ok"
    assert faulty.box.ask("strips_show", strip_id=result["strip_id"])["strip"]["attempts"] == 1


def test_three_different_strips_in_a_row_blame_the_model(
    faulty: Faulty, subscriber: Subscriber, good_strip: Path
) -> None:
    """Then no strip is to blame: all stay pending, the slot is held with an alarm, and it recovers by itself."""
    faulty.switch("crash", on=True)
    names = [f"{number} crash.tif" for number in (11, 12, 13, 14)]
    faulty.drop(good_strip, *names)
    wait_for(lambda: told_held(subscriber), "the alarm is published")
    assert {health["status"] for health in told_held(subscriber)} == {"failing"}
    status = faulty.box.ask("status")
    assert status["strips"]["pending"] == 4
    assert faulty.box.ask("audit")["balanced"]
    faulty.switch("crash", on=False)
    for name in names:
        assert result_of(subscriber, name)["verdict"] == "ok"
    wait_for(lambda: last_health(subscriber)["alarms"] == "", "the alarm is over")


def test_a_worker_that_floods_standard_error_does_not_block(
    faulty: Faulty, subscriber: Subscriber, good_strip: Path
) -> None:
    """Standard error is read as fast as it comes and logged in moderation; the strip is judged."""
    faulty.switch("flood", on=True)
    assert faulty.box.process is not None
    before = psutil.Process(faulty.box.process.pid).memory_info().rss
    logged = faulty.box.log_file.stat().st_size
    faulty.drop(good_strip, *(f"{number} flood.tif" for number in range(3)))
    for number in range(3):
        assert result_of(subscriber, f"{number} flood.tif")["verdict"] == "ok"
    faulty.switch("flood", on=False)
    assert psutil.Process(faulty.box.process.pid).memory_info().rss < before + (8 << 20)
    assert faulty.box.log_file.stat().st_size < logged + (2 << 20)


def test_all_of_it_adds_up(faulty: Faulty, subscriber: Subscriber) -> None:
    """After all these faults the books balance, every message keeps its schema, and one supervisor did it all."""
    check_audit(faulty.box, faulty.box.ask("status")["strips"]["seen"])
    check_messages(subscriber)
    assert faulty.box.stop() == 0
    assert not faulty.box.workers()


def test_a_worker_never_outlives_its_supervisor(tmp_path: Path, broker: Broker) -> None:
    """Killed while the worker is still loading its model: no process is left."""
    with Box(tmp_path / "box", broker.port) as box:
        difference_model(box.inbox / "model.onnx")
        box.start(wait=False)
        assert box.process is not None
        supervisor = psutil.Process(box.process.pid)
        wait_for(supervisor.children, "a worker is started")
        children = supervisor.children(recursive=True)
        box.kill()
        wait_for(lambda: not any(is_alive(child) for child in children), "it ends as well")


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; it may be gone between two looks."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
