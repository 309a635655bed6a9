"""A shadow beside the active model, on a real box: what it finds, and that it costs nobody but itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agent.errors import Reason
from agent.shadow.rules import STRIKES
from tests.e2e.checks import check_messages
from tests.helpers.bad_models import BRIGHT, hungry_on_bright, kills_on_bright
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import make_manifest, put_manifest
from tests.helpers.strips import encode, make_pixels, write_strip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.broker import Broker

TOPIC = "strip-agent/box1/state/shadow/default"
MEMORY_MIB = 700  # of which the strips' models take a small part
IDLE_SECONDS = 400  # a shadow takes only what the other tests leave of the processor


class Line(Box):
    """A box with an active model, the candidates for a shadow, and faults that can be switched."""

    def __init__(self, folder: Path, port: int, **sections: Any) -> None:
        super().__init__(folder / "box", port, **sections)
        self.switches = folder / "switches"
        self.switches.mkdir()
        self.program = [sys.executable, "-m", "tests.e2e.faulty", str(self.switches)]
        self.active = difference_model(self.inbox / "active.onnx")
        self.dropped = 0

    def push_shadow(
        self, name: str = "shadow.onnx", *, make: Callable[..., str] = difference_model, **options: Any
    ) -> str:
        """Push a model whose manifest asks for a shadow; the model last, as `push --shadow` does."""
        hidden = self.folder / name
        sha256 = make(hidden, version=2, **options)
        model = self.inbox / name
        manifest = put_manifest(hidden, make_manifest(hidden, version=2, shadow=True), None)
        manifest.rename(self.inbox / manifest.name)
        hidden.rename(model)
        return sha256

    def drop(self, *sources: Path) -> None:
        """Put strips into the camera's folder."""
        for source in sources:
            drop_file(source, self.camera() / f"{self.dropped}.tif")
            self.dropped += 1

    def shadow(self, key: str) -> Any:
        """Ask for something that is known of the comparison."""
        return self.ask("shadow")["comparison"][key]

    def is_done_with_all(self) -> bool:
        """Whether the shadow has compared or missed every strip, or has been switched off."""
        facts = self.ask("shadow")
        done = facts["comparison"]["compared"] + facts["comparison"]["missed"]
        return bool(facts["shadow"]["reason"] or done == self.dropped)

    def shadow_workers(self) -> list[psutil.Process]:
        """Give the processes that are shadows: no others take only what is left of the processor."""
        return [worker for worker in self.workers() if os.sched_getscheduler(worker.pid) == os.SCHED_IDLE]

    def wait_for_shadow(self, compared: int) -> None:
        """Wait until so many strips have been compared."""
        wait_for(
            lambda: self.shadow("compared") >= compared,
            f"{compared} strips compared (see {self.log_file})",
            IDLE_SECONDS,
        )


@pytest.fixture
def line(request: pytest.FixtureRequest, tmp_path: Path, broker: Broker) -> Iterator[Line]:
    """Run a box whose active model is there; a test with a hung worker asks for a shorter deadline (seconds)."""
    inference = {"deadline_seconds": getattr(request, "param", 30.0)}
    with Line(tmp_path, broker.port, inference=inference) as line:
        line.start()
        wait_for(lambda: line.ask("status")["workers"]["default"]["pid"], "the active model scores")
        yield line
        assert line.stop() == 0
        assert not line.workers()


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    """Listen to everything."""
    with Subscriber(broker.port) as subscriber:
        yield subscriber


@pytest.fixture(scope="module")
def faint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a strip whose defect only a model with more gain sees."""
    path = tmp_path_factory.mktemp("strips") / "faint.tiff"
    write_strip(path, seed=3)
    return path


def test_a_pushed_shadow_is_compared_and_nothing_else_changes(
    line: Line, subscriber: Subscriber, good_strip: Path, bad_part: Path, faint: Path
) -> None:
    """Flips are counted, no result, heatmap or model is touched, and `activate` promotes by the usual trial."""
    sha256 = line.push_shadow(gain=0.3)
    wait_for(lambda: line.ask("shadow")["shadow"]["sha256"] == sha256, "it is the shadow")
    assert line.ask("status")["models"]["default"]["active_sha256"] == line.active
    line.drop(good_strip, bad_part, faint, bad_part)
    published = wait_for_results(subscriber, 4)
    assert [result["model_sha256"] for result in published] == [line.active] * 4
    line.wait_for_shadow(4)
    facts = json.loads(line.cli("models", "shadow", "--json").stdout)
    found = facts["comparison"]
    assert (found["compared"], found["agreed"], found["to_ok"], found["to_anomalous"]) == (4, 2, 2, 0)
    assert [pair["verdict"] for pair in facts["worst"]] == ["anomalous", "anomalous", "ok", "ok"]
    assert all(pair["shadow_score"] < pair["score"] for pair in facts["worst"])
    assert "2 anomalous -> ok" in line.cli("models", "shadow").stdout
    wait_for(lambda: last_state(subscriber)["compared"] == 4, "the state is published")
    state = last_state(subscriber)
    assert (state["state"], state["agreement"], state["flips_to_ok"]) == ("scoring", 0.5, 2)
    [shadow] = line.shadow_workers()
    assert shadow.nice() == 19
    assert Path(f"/proc/{shadow.pid}/oom_score_adj").read_text().strip() == "1000"
    assert len(list(line.heatmaps.rglob("*.json"))) == 4
    check_messages(subscriber)

    assert line.cli("models", "activate", sha256[:12]).returncode == 0
    wait_for(lambda: line.ask("status")["models"]["default"]["active_sha256"] == sha256, "it is active")
    wait_for(lambda: line.ask("shadow")["shadow"]["sha256"] == "", "it is no shadow any more")
    wait_for(lambda: not subscriber.payloads(TOPIC)[-1], "the topic is cleared")
    line.drop(bad_part)
    assert wait_for_results(subscriber, 5)[-1]["verdict"] == "ok"
    assert line.ask("audit")["balanced"]


def last_state(subscriber: Subscriber) -> dict[str, Any]:
    """Give the newest state of the shadow."""
    payloads = subscriber.payloads(TOPIC)
    return json.loads(payloads[-1]) if payloads and payloads[-1] else {"compared": None, "state": None}


def test_an_earlier_model_as_shadow_survives_kills_and_goes_when_it_is_told_to(
    line: Line, subscriber: Subscriber, good_strip: Path, bad_part: Path
) -> None:
    """Its worker is killed, then the service; nothing live is touched, and `off` clears the retained topic."""
    blind = difference_model(line.inbox / "newer.onnx", version=2, gain=0.3)
    wait_for(lambda: line.ask("status")["models"]["default"]["active_sha256"] == blind, "the newer one is active")
    for wrong, why in (("f" * 12, "no model in the store"), (blind[:12], "is active")):
        refused = line.cli("models", "shadow", wrong)
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr
    assert line.cli("models", "shadow", line.active[:12]).returncode == 0
    wait_for(line.shadow_workers, "its worker is there")
    line.drop(bad_part)
    line.wait_for_shadow(1)
    assert (line.shadow("to_anomalous"), line.shadow("agreed")) == (1, 0)

    [killed] = line.shadow_workers()
    killed.send_signal(signal.SIGKILL)
    line.drop(good_strip)
    line.wait_for_shadow(2)
    assert killed.pid not in [worker.pid for worker in line.shadow_workers()]
    assert line.ask("status")["health"]["worker_restarts"] == 0

    line.kill()
    line.start()
    wait_for(line.shadow_workers, "it is the shadow again")
    line.drop(bad_part)
    line.wait_for_shadow(3)
    assert (line.shadow("to_anomalous"), line.shadow("missed")) == (2, 0)
    assert "slot default: shadow difference version 1" in line.cli("models", "shadow").stdout
    wait_for(lambda: last_state(subscriber)["compared"] == 3, "the state is published")

    assert line.cli("models", "shadow", "off").returncode == 0
    wait_for(lambda: not subscriber.payloads(TOPIC)[-1], "the topic is cleared")
    wait_for(lambda: not line.shadow_workers(), "its worker ends")
    assert line.cli("models", "shadow", "off").returncode == 1
    assert len(wait_for_results(subscriber, 3)) == 3
    assert line.ask("audit")["balanced"]
    check_messages(subscriber)


def drop_until_it_is_off(line: Line, subscriber: Subscriber, strip: Path, verdict: str) -> None:
    """Have strips come until the shadow is switched off; each live result comes as if there were none."""
    while not line.ask("shadow")["shadow"]["reason"]:  # where it had no processor to hang on, that is no strike
        line.drop(strip)
        result = wait_for_results(subscriber, line.dropped)[-1]
        assert (result["verdict"], result["model_sha256"]) == (verdict, line.active)
        wait_for(line.is_done_with_all, "the shadow's worker is lost, or the shadow switched off", IDLE_SECONDS)


def check_that_it_cost_only_itself(line: Line, subscriber: Subscriber, reason: Reason) -> None:
    """Assert that alarm, `models shadow` and `state/shadow` say why it was switched off; nothing else was touched."""
    assert line.ask("shadow")["shadow"]["reason"] == reason
    wait_for(lambda: "slot_default_shadow_off" in line.ask("status")["health"]["alarms"], "the alarm")
    health = line.ask("status")["health"]
    assert (health["status"], health["worker_restarts"]) == ("ok", 0)
    assert f"SWITCHED OFF: {reason}: {STRIKES} times" in line.cli("models", "shadow").stdout
    wait_for(lambda: last_state(subscriber)["state"] == "off", "the state says so")
    assert last_state(subscriber)["reason"] == reason
    wait_for(lambda: not line.shadow_workers(), "its worker has ended")
    wait_for_results(subscriber, line.dropped)
    assert line.ask("audit")["balanced"]
    check_messages(subscriber)


@pytest.mark.parametrize("line", [5.0], indirect=True)
def test_a_shadow_that_hangs_is_switched_off_and_costs_only_itself(
    line: Line, subscriber: Subscriber, good_strip: Path
) -> None:
    """After three lost workers there is an alarm with its reason; live results came all the time."""
    (line.switches / "shadow_hang").touch()
    line.push_shadow()
    wait_for(line.shadow_workers, "its worker is there")
    drop_until_it_is_off(line, subscriber, good_strip, "ok")
    assert line.shadow("invalid") == STRIKES
    check_that_it_cost_only_itself(line, subscriber, Reason.WORKER_TIMEOUT)


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a strip that models of `bad_models.py` fail on."""
    path = tmp_path_factory.mktemp("strips") / "bright.tiff"
    pixels = make_pixels()
    pixels[0, 400:416, 60:72] = BRIGHT + 5
    path.write_bytes(encode(pixels))
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(kills_on_bright, Reason.WORKER_CRASHED, id="crash"),
        pytest.param(hungry_on_bright, Reason.MODEL_NEEDS_TOO_MUCH_MEMORY, id="memory"),
    ],
)
def test_a_shadow_whose_model_ends_its_worker_or_takes_too_much_memory_costs_only_itself(
    tmp_path: Path,
    broker: Broker,
    subscriber: Subscriber,
    bright: Path,
    good_strip: Path,
    make: Callable[..., str],
    reason: Reason,
) -> None:
    """It passes its trial, and fails on the line's strips: three times, then it is off, with the reason."""
    with Line(tmp_path, broker.port, models={"trial": {"memory_mib": MEMORY_MIB}}) as line:
        line.start()
        line.push_shadow(make=make)
        wait_for(line.shadow_workers, "its worker is there", IDLE_SECONDS)
        line.drop(good_strip)
        line.wait_for_shadow(1)
        drop_until_it_is_off(line, subscriber, bright, "anomalous")
        check_that_it_cost_only_itself(line, subscriber, reason)
        assert line.shadow("agreed") == 1
        assert line.stop() == 0


def test_a_shadow_whose_model_ends_its_worker_while_it_is_loaded_costs_only_itself(
    line: Line, subscriber: Subscriber, good_strip: Path
) -> None:
    """Another onnxruntime, say, than the one of its trial; strips come meanwhile as ever."""
    line.push_shadow()
    wait_for(line.shadow_workers, "its worker is there", IDLE_SECONDS)
    (line.switches / "shadow_crash_loading").touch()
    for worker in line.shadow_workers():
        worker.kill()
    line.drop(good_strip)
    wait_for(lambda: line.ask("shadow")["shadow"]["reason"], "it is switched off", IDLE_SECONDS)
    check_that_it_cost_only_itself(line, subscriber, Reason.MODEL_CRASHED)


Moments = dict[str, list[int]]


def traced(line: Line, role: str) -> Moments:
    """Give the moments at which workers of this role were running, monotonic nanoseconds, by the strip's name."""
    found: Moments = {}
    file = line.switches / f"{role}.trace"
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
    for entry in whole.splitlines():
        strip, at = entry.split()
        found.setdefault(strip, []).append(int(at))
    return found


def test_a_shadow_stands_still_while_a_live_strip_is_judged(
    line: Line, subscriber: Subscriber, good_strip: Path
) -> None:
    """It goes on afterwards where it was; of both, when they ran is written down, and it is never at the same time."""
    line.push_shadow()
    wait_for(line.shadow_workers, "its worker is there", IDLE_SECONDS)
    (line.switches / "traced").touch()
    overtaken = 0
    while not overtaken:
        line.drop(good_strip)
        wait_for(lambda: f"{line.dropped - 1}.tif" in traced(line, "shadow"), "the shadow is at it", IDLE_SECONDS)
        line.drop(good_strip)
        wait_for_results(subscriber, line.dropped)
        wait_for(line.is_done_with_all, "the shadow has seen both", IDLE_SECONDS)
        live, shadow = traced(line, "live"), traced(line, "shadow")
        for began, ended in ((ran[0], ran[-1]) for ran in live.values()):
            at_the_same_time = [at for ran in shadow.values() for at in ran if began <= at <= ended]
            assert not at_the_same_time
            overtaken += sum(ran[0] < began and ended < ran[-1] for ran in shadow.values())
    assert line.shadow("agreed") == line.dropped


def test_a_shadow_that_stands_still_dies_with_the_supervisor(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, good_strip: Path
) -> None:
    """No stopped process is left behind, whose memory nobody would get back."""
    with Line(tmp_path, broker.port, inference={"deadline_seconds": IDLE_SECONDS}) as line:
        line.start()
        line.push_shadow()
        wait_for(line.shadow_workers, "its worker is there", IDLE_SECONDS)
        (line.switches / "held").touch()
        line.drop(good_strip)
        stopped = psutil.STATUS_STOPPED
        wait_for(lambda: stopped in [worker.status() for worker in line.shadow_workers()], "it stands still")
        line.kill()
        wait_for(lambda: not line.workers(), "all workers are gone")
        (line.switches / "held").unlink()
        line.start()
        assert wait_for_results(subscriber, 1)[0]["verdict"] == "ok"
        line.wait_for_shadow(1)
        assert line.stop() == 0
