"""SIGKILL between any two steps of the strip's journey: nothing is lost, nothing counts twice, nobody is left over."""

from __future__ import annotations

import json
import sqlite3
import sys
from typing import TYPE_CHECKING, Self

import pytest

from tests.e2e import kill_at
from tests.e2e.checks import check_every_strip_once, check_named_files, check_processes
from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STRIPS = 3  # dropped for each kill: one is judged while another waits in the worker


class Mortal:
    """A box whose processes can be told where to die; it goes on from kill to kill with the same ledger."""

    def __init__(self, folder: Path) -> None:
        self.broker = Broker(folder)
        self.box = Box(folder / "box", self.broker.port, heatmaps={"tiff": "all", "min_free_gib": 0})
        self.arm_file = folder / "kill"
        self.box.program = [sys.executable, "-m", "tests.e2e.kill_at", str(self.arm_file)]
        self.subscriber = Subscriber(self.broker.port)
        self.source = folder / "strip.tiff"
        self.files: list[str] = []
        difference_model(self.box.inbox / "model.onnx")
        write_strip(self.source, defect=True)

    def drop(self, number: int = STRIPS) -> None:
        """Put strips into the camera's folder."""
        for _ in range(number):
            self.files.append(f"strip{len(self.files):03}.tif")
            drop_file(self.source, self.box.camera() / self.files[-1])

    def wait_for_the_kill(self) -> None:
        """Wait until the armed step was reached."""
        wait_for(lambda: not self.arm_file.exists(), f"the step is reached (see {self.box.log_file})")

    def wait_for_the_supervisors_end(self) -> None:
        """Wait until the supervisor is gone, and its workers with it."""
        assert self.box.process is not None
        assert self.box.process.wait(180) == -9
        wait_for(lambda: not self.box.workers(), "workers end with their supervisor")

    def check(self) -> None:
        """Check all that must hold once every strip is through."""
        found = check_every_strip_once(self.box, self.subscriber, self.files)
        assert {result["verdict"] for result in found} == {"anomalous"}
        check_named_files(self.box, found)
        check_processes(self.box)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.box.__exit__()
        self.subscriber.close()
        self.broker.kill()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """Run one box for all kills of this file: each test is also the recovery from the one before."""
    with Mortal(tmp_path_factory.mktemp("killed")) as mortal:
        mortal.box.start()
        yield mortal


DISPOSAL = [step for step in kill_at.SUPERVISOR_POINTS if "disposal" in step]
FIRST_SCAN = "before_first_scan_is_recorded"
STEPS = [step for step in kill_at.SUPERVISOR_POINTS if step not in {*DISPOSAL, FIRST_SCAN}]
# What is left by a kill right before a step is what is left by one after the step before it.
BEFORE = [pytest.param(step, marks=pytest.mark.soak) if step.startswith("before") else step for step in STEPS]


@pytest.mark.parametrize("step", BEFORE)
def test_supervisor_killed(mortal: Mortal, step: str) -> None:
    """Whatever step the supervisor is killed at, after a restart every strip has exactly one result."""
    kill_at.arm(mortal.arm_file, step, "supervisor")
    mortal.drop()
    mortal.wait_for_the_kill()
    mortal.wait_for_the_supervisors_end()
    mortal.box.start()
    mortal.check()


@pytest.mark.parametrize("step", kill_at.WORKER_POINTS)
def test_worker_killed(mortal: Mortal, step: str) -> None:
    """Whatever step the worker is killed at, the service goes on with a new one and judges the strip once more."""
    assert mortal.box.process is not None
    supervisor = mortal.box.process.pid
    kill_at.arm(mortal.arm_file, step, "worker")
    mortal.drop()
    mortal.wait_for_the_kill()
    mortal.check()
    assert mortal.box.process.pid == supervisor
    assert mortal.box.process.poll() is None


@pytest.mark.parametrize(
    ("step", "kill"),
    [
        ("after_run", "supervisor"),
        pytest.param("before_heatmaps_are_renamed", "both", marks=pytest.mark.soak),
        ("between_two_renames", "supervisor"),
        pytest.param("before_answering", "both", marks=pytest.mark.soak),
        ("before_commit", "both"),
        ("after_commit", "both"),
    ],
)
def test_supervisor_killed_while_the_worker_works(mortal: Mortal, step: str, kill: str) -> None:
    """A power cut takes both processes at once, wherever each of them is: nothing is lost or left over."""
    kill_at.arm(mortal.arm_file, step, kill)
    mortal.drop()
    mortal.wait_for_the_kill()
    mortal.wait_for_the_supervisors_end()
    mortal.box.start()
    mortal.check()


def test_killed_again_and_again_before_it_gets_anywhere(mortal: Mortal) -> None:
    """Three kills in a row with strips arriving in between add up to nothing lost."""
    for step in ("before_commit", "inside_the_commit", "after_publish"):
        kill_at.arm(mortal.arm_file, step, "supervisor")
        mortal.drop(2)
        mortal.wait_for_the_kill()
        mortal.wait_for_the_supervisors_end()
        mortal.box.start(wait=False)
    wait_for(mortal.box.answers, "the service answers")
    mortal.check()


def test_a_kill_before_the_acknowledgement_is_recorded_sends_the_same_bytes_again(mortal: Mortal) -> None:
    """Delivery is at least once: the repeat has the same msg_id and is byte for byte the same."""
    kill_at.arm(mortal.arm_file, "before_recording_the_acknowledgement", "supervisor")
    mortal.drop(1)
    mortal.wait_for_the_supervisors_end()

    def copies() -> list[bytes]:
        payloads = mortal.subscriber.payloads("/event/strip/")
        return [payload for payload in payloads if json.loads(payload)["file"] == mortal.files[-1]]

    wait_for(lambda: len(copies()) == 1, "the broker had it before the kill")
    mortal.box.start()
    wait_for(lambda: len(copies()) == 2, "it is sent again")
    assert len(set(copies())) == 1
    mortal.check()


def test_attempts_are_not_counted_for_the_supervisors_death(mortal: Mortal) -> None:
    """A strip that was being judged when the power went is not blamed for it."""
    kill_at.arm(mortal.arm_file, "after_run", "both")
    mortal.drop(1)
    mortal.wait_for_the_supervisors_end()
    with sqlite3.connect(f"file:{mortal.box.state}/ledger.db?mode=ro", uri=True) as ledger:
        assert ledger.execute("SELECT attempts FROM strips WHERE state = 'waiting'").fetchall() == [(0,)]
    ledger.close()
    mortal.box.start()
    mortal.check()


def test_killed_during_the_first_scan(tmp_path: Path) -> None:
    """A kill before the first scan is recorded applies the backlog rule again, and skips no strip that it took."""
    with Mortal(tmp_path) as mortal:
        mortal.box.config["cameras"][0]["backlog"] = 2
        mortal.box.write_config()
        mortal.drop(5)
        kill_at.arm(mortal.arm_file, FIRST_SCAN, "supervisor")
        mortal.box.start(wait=False)
        mortal.wait_for_the_supervisors_end()
        mortal.drop(1)
        mortal.box.start()
        mortal.box.wait_until_published(6)
        sums = mortal.box.ask("status")["strips"]
        assert sums["seen"] == sums["acknowledged"] + sums["skipped"] == 6
        assert mortal.box.ask("audit")["balanced"]

        def published() -> set[str]:
            return {result["file"] for result in unique_results(mortal.subscriber).values()}

        wait_for(lambda: set(mortal.files[3:]) <= published(), "the newest are published")


@pytest.mark.parametrize(("when_done", "steps"), [("delete", DISPOSAL[1:3]), ("move", DISPOSAL)])
def test_killed_around_the_disposal(tmp_path: Path, when_done: str, steps: list[str]) -> None:
    """Killed before, in the middle of or after a disposal: the file is gone in the end, with exactly one result."""
    with Mortal(tmp_path) as mortal:
        camera = mortal.box.config["cameras"][0]
        done = tmp_path / "done"
        camera |= {"when_done": when_done, "done_folder": str(done) if when_done == "move" else None}
        mortal.box.write_config()
        mortal.box.start()
        for step in steps:
            kill_at.arm(mortal.arm_file, step, "supervisor")
            mortal.drop(2)
            mortal.wait_for_the_kill()
            mortal.wait_for_the_supervisors_end()
            mortal.box.start(wait=False)
        wait_for(mortal.box.answers, "the service answers")
        wait_for(lambda: not list(mortal.box.camera().iterdir()), "the camera's folder is empty")
        mortal.check()
        moved = sorted(path.name for path in done.iterdir()) if when_done == "move" else mortal.files
        assert moved == mortal.files
