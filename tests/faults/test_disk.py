"""Disks that are full, read-only or broken for a while: scoring goes on as far as possible, and resumes by itself."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.faults.disks import forgetful_disk, needs_fuse, needs_root, small_disk
from tests.faults.judging import Verdict, Written, health, judge, strip_of
from tests.faults.reliability import Row, tell
from tests.helpers.box import Box, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

HEIGHT, WIDTH = 128, 128


class Line:
    """A broker, a subscriber, a box with a model, and a camera whose strips are known to be good or bad."""

    def __init__(self, stack: ExitStack, folder: Path, *, state: Path | None = None, **heatmaps: Any) -> None:
        broker = stack.enter_context(Broker(folder))
        self.subscriber = stack.enter_context(Subscriber(broker.port))
        maps = folder / "maps" if state is None else state.parent / "maps"
        sections: dict[str, Any] = {"heatmaps": {"min_free_gib": 0, "tiff": "all", "folder": str(maps), **heatmaps}}
        if state is not None:
            sections["agent"] = {"name": "box1", "state_folder": str(state)}
        self.box = Box(folder, broker.port, **sections)
        self.box.state = state or self.box.state
        stack.enter_context(self.box)
        difference_model(self.box.inbox / "model.onnx", height=HEIGHT, width=WIDTH)
        self.written: Written = set()
        self.bad: Written = set()
        self._good = folder / "good.tif"
        self._bad = folder / "bad.tif"
        for path, defect in ((self._good, False), (self._bad, True)):
            write_strip(path, defect=defect, height=HEIGHT, width=WIDTH, dtype="uint8", channels=3)

    def write(self, number: int) -> list[tuple[str, str]]:
        """Let the camera write strips, every third one with a defect; return whose they are."""
        new = [("top", f"{len(self.written) + count:06d}.tif") for count in range(number)]
        for count, (camera, name) in enumerate(new):
            bad = count % 3 == 0
            part = self.box.camera(camera) / f"{name}.part"
            shutil.copyfile(self._bad if bad else self._good, part)
            part.rename(part.with_suffix(""))
            self.bad |= {(camera, name)} if bad else set()
        self.written |= set(new)
        return new

    def judge(self, seconds: float = 180) -> Verdict:
        """Let both judges speak; besides, no bad strip is ok and no good one anomalous."""
        verdict = judge(self.box, self.subscriber, self.written, seconds=seconds)
        for result in verdict.results:
            assert result["verdict"] == ("anomalous" if strip_of(result) in self.bad else "ok"), result
        return verdict

    @property
    def ended(self) -> bool:
        """Say whether the service has ended; 78 would mean that nobody starts it again."""
        assert self.box.process is not None
        code = self.box.process.poll()
        assert code not in {0, 78}, self.box.log
        return code is not None

    def answers(self) -> bool:
        """Say whether the service answers; one that has ended does not."""
        with contextlib.suppress(AssertionError):
            return self.box.answers()
        return False

    def keep_running(self) -> None:
        """Start the service again where it ended, as systemd does, until it answers."""

        def answers() -> bool:
            if self.ended:
                self.box.start(wait=False)
            return self.answers()

        wait_for(answers, f"the service answers (see {self.box.log_file})")

    def states(self) -> set[str]:
        """Return what became of the heatmaps so far."""
        return {result["heatmap_state"] for result in unique_results(self.subscriber).values()}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close everything in the right order."""
    with ExitStack() as opened:
        yield opened


@needs_root
def test_a_full_heatmap_disk_costs_heatmaps_and_nothing_else(tmp_path: Path, stack: ExitStack) -> None:
    """Scores go on with heatmap_state no_space; once there is room heatmaps are saved again, by itself."""
    disk = stack.enter_context(small_disk(tmp_path / "maps", 4))
    line = Line(stack, tmp_path)
    line.box.start()
    line.write(6)
    wait_for_results(line.subscriber, 6)
    assert line.states() == {"saved"}
    disk.fill()
    unsaved = set(line.write(30))
    results = wait_for_results(line.subscriber, 36)
    states = {result["heatmap_state"] for result in results if strip_of(result) in unsaved}
    assert states == {"no_space"}
    assert not list(disk.place.rglob("*.tmp")), "half written files are left"
    disk.free()
    saved = set(line.write(6))
    verdict = line.judge()
    assert {result["heatmap_state"] for result in verdict.results if strip_of(result) in saved} == {"saved"}
    tell(
        Row(
            "Disk",
            "heatmap folder full, then freed",
            "scores and messages go on with heatmap_state no_space; saved again by itself once there is room",
            "tmpfs of 4 MiB filled to the last byte",
            f"{verdict}; 30 of them without a heatmap",
        )
    )


def knows_that_it_is_full(line: Line) -> bool:
    """Say whether the status is failing with the reason, and every strip that has no result counts as pending."""
    status = line.box.ask("status")["health"]
    waiting = len(line.written) - status["acknowledged"] - status["outbox_depth"]
    return (
        status["status"] == "failing" and "ledger_no_space" in status["alarms"] and status["strips_pending"] >= waiting
    )


@needs_root
def test_a_full_state_disk_stops_nothing_for_good(tmp_path: Path, stack: ExitStack) -> None:
    """The service stays up, calls nothing ok unjudged, and goes on by itself where it stopped; restarts too."""
    disk = stack.enter_context(small_disk(tmp_path / "state", 16))
    line = Line(stack, tmp_path)
    line.box.start()
    line.write(6)
    wait_for_results(line.subscriber, 6)
    disk.fill()

    def is_full() -> bool:
        return "full" in line.box.log

    deadline = time.monotonic() + 150
    while not is_full():  # what SQLite has reserved already is used up first
        assert time.monotonic() < deadline
        line.write(10)
        wait_for(lambda: is_full() or len(unique_results(line.subscriber)) == len(line.written), "it is full or judges")
    line.write(10)
    assert line.box.process is not None
    assert line.box.process.poll() is None, line.box.log
    wait_for(lambda: knows_that_it_is_full(line), "the status says so, and counts what waits")
    disk.free()
    verdict = line.judge()
    wait_for(lambda: "ledger_no_space" not in health(line.subscriber)["alarms"], "the alarm ends")
    disk.fill()
    line.box.kill()
    line.write(10)
    logged = len(line.box.log)
    line.box.start(wait=False)
    wait_for(
        lambda: line.ended or any(sign in line.box.log[logged:] for sign in ("full", "No space")),
        "it notices that the disk is full at its start",
    )
    wait_for(lambda: line.ended or line.answers(), "it ends, or works on the full disk")
    ended = line.ended
    disk.free()
    line.keep_running()
    line.write(3)
    verdict = line.judge()
    tell(
        Row(
            "Disk",
            "state folder full, then freed, while running and at a start",
            "the service stays up (or is started again), nothing is called ok unjudged, it goes on by itself",
            "tmpfs of 16 MiB filled to the last byte; then kill -9 and a start while it is full",
            f"{verdict}; started on the full disk it {'ended and was started again' if ended else 'stayed up'}",
        )
    )


@needs_root
@pytest.mark.soak
def test_a_model_that_finds_no_room_waits_and_the_active_one_goes_on(tmp_path: Path, stack: ExitStack) -> None:
    """A full store refuses nothing for good: the model is taken once there is room."""
    disk = stack.enter_context(small_disk(tmp_path / "state" / "store", 2))
    line = Line(stack, tmp_path)
    line.box.start()
    line.write(3)
    wait_for_results(line.subscriber, 3)
    disk.fill()
    newer = difference_model(tmp_path / "newer", version=2, height=HEIGHT, width=WIDTH)
    (tmp_path / "newer").rename(line.box.inbox / "newer.onnx")
    wait_for(lambda: "No space left" in line.box.log, "the model finds no room")
    line.write(6)
    results = wait_for_results(line.subscriber, 9)
    assert {result["model_version"] for result in results} == {1}
    disk.free()
    wait_for(lambda: line.box.ask("status")["models"]["default"]["active_sha256"] == newer, "the newer model is active")
    line.write(3)
    verdict = line.judge()
    assert {result["model_version"] for result in verdict.results} == {1, 2}
    refused = [e for e in map(json.loads, line.subscriber.payloads("/event/model/")) if e["event"] == "rejected"]
    assert refused == []
    tell(
        Row(
            "Disk",
            "model store full, then freed",
            "the active model goes on; the pushed one is refused for nothing and taken once there is room",
            "tmpfs of 2 MiB filled to the last byte, then a newer model pushed",
            f"{verdict}; newer model active after the room came back",
            "soak",
        )
    )


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (errno.EROFS, "remounted read-only"),
        pytest.param(errno.EIO, "failing with I/O errors", marks=pytest.mark.soak),
    ],
)
@needs_fuse
def test_a_state_disk_that_refuses_every_change_for_a_while(
    tmp_path: Path, stack: ExitStack, number: int, name: str
) -> None:
    """The service stays up or is started again; everything is judged once the disk takes changes again."""
    disk = stack.enter_context(forgetful_disk(tmp_path / "disk"))
    line = Line(stack, tmp_path, state=disk.place / "state")
    line.box.start()
    line.write(6)
    wait_for_results(line.subscriber, 6)
    disk.do(f"fail {number}")
    refused = set(line.write(20))
    wait_for(lambda: "ledger" in line.box.log.lower(), "it notices")
    time.sleep(2.0)  # long enough for anything hasty to be published
    assert not refused & {strip_of(result) for result in unique_results(line.subscriber).values()}
    ended = line.ended
    disk.do("fail 0")
    line.keep_running()
    line.write(6)
    verdict = line.judge()
    assert line.states() == {"saved"}
    tell(
        Row(
            "Disk",
            f"state and heatmaps {name}, then well again",
            "nothing is published that is not on the disk; goes on by itself",
            "a FUSE file system that refuses every change and every flush",
            f"{verdict}; the service {'ended and was started again' if ended else 'stayed up'}",
            "soak" if number == errno.EIO else "test",
        )
    )


def test_health_says_that_there_is_no_room(tmp_path: Path, stack: ExitStack) -> None:
    """Below min_free_gib the heatmaps are given up, and health tells so."""
    line = Line(stack, tmp_path, min_free_gib=10**7)
    line.box.start()
    line.write(3)
    wait_for_results(line.subscriber, 3)
    assert line.states() == {"no_space"}
    wait_for(lambda: "heatmaps" in health(line.subscriber).get("alarms", ""), "an alarm")
    line.judge()
