"""The wall clock jumps, or begins in 1970: nothing waits for it, nothing is old because of it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.judging import Written, judge
from tests.faults.reliability import Row, tell
from tests.helpers.box import Box, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler to move a clock (apt-get install gcc libc6-dev)"),
]


class Line:
    """A box whose clock the test sets, while the clock of everybody else goes on."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        broker = stack.enter_context(Broker(folder))
        self.subscriber = stack.enter_context(Subscriber(broker.port))
        self.box = stack.enter_context(Box(folder, broker.port, heatmaps={"min_free_gib": 0, "keep_days": 1}))
        difference_model(self.box.inbox / "model.onnx", height=128, width=128)
        self.written: Written = set()
        self._clock = folder / "clock"
        self._library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-o", self._library, source], check=True)
        self.set_clock(0)
        self._template = folder / "template.tif"
        write_strip(self._template, height=128, width=128, dtype="uint8", channels=3)

    def set_clock(self, offset_seconds: float) -> None:
        """Let the box's clock jump to this far from the true time."""
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(struct.pack("=q", int(offset_seconds)))

    def start(self) -> None:
        """Start the box with that clock; its monotonic clock and the times of files stay true."""
        self.box.start(env={"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._clock)})

    def write(self, number: int, *, mtime: float | None = None) -> float:
        """Write strips and wait until they are published; return the seconds that took."""
        began = time.monotonic()
        for _ in range(number):
            name = f"{len(self.written):04d}.tif"
            target = self.box.camera() / name
            shutil.copyfile(self._template, target.with_suffix(".part"))
            if mtime is not None:
                os.utime(target.with_suffix(".part"), (mtime, mtime))
            target.with_suffix(".part").rename(target)
            self.written.add(("top", name))
        if self.box.process is not None:
            wait_for_results(self.subscriber, len(self.written))
        return time.monotonic() - began

    def heatmaps_are_there(self) -> bool:
        """Say whether no heatmap of a published result is gone."""
        results = unique_results(self.subscriber).values()
        return all((self.box.heatmaps / result["preview_path"]).is_file() for result in results)


def test_steps_of_the_clock_delay_nothing(tmp_path: Path) -> None:
    """An hour forwards, two backwards: strips are published as fast as before, in order, none twice."""
    with ExitStack() as stack:
        line = Line(stack, tmp_path)
        line.start()
        line.write(5)
        took = []
        for offset in (3600, -3600, 0):
            line.set_clock(offset)
            took.append(line.write(5))
            newest = max(unique_results(line.subscriber).values(), key=lambda result: int(result["seq"]))
            assert abs(newest["ts_ms"] / 1000 - time.time() - offset) < 60, "the clock did not jump"
        assert line.heatmaps_are_there()
        verdict = judge(line.box, line.subscriber, line.written)
        assert verdict.repeated == 0
        assert line.box.stop() == 0
    tell(
        Row(
            "Clock",
            "stepped an hour forwards, two back, one forwards",
            "nothing waits, nothing is published twice or removed",
            "a library under the service and its worker, switched while they run; the monotonic clock stays true",
            f"{verdict}; 5 strips after each step within {max(took):.1f} s",
        )
    )


def test_a_boot_in_1970_with_files_from_the_future(tmp_path: Path) -> None:
    """Files of today and of 2036 are scored, nothing is removed, and the time that comes later is taken over."""
    with ExitStack() as stack:
        line = Line(stack, tmp_path)
        line.write(3)
        line.write(3, mtime=datetime(2036, 1, 1, tzinfo=UTC).timestamp())
        line.set_clock(10 - time.time())
        line.start()
        wait_for_results(line.subscriber, 6)
        line.write(3)
        assert max(result["ts_ms"] for result in unique_results(line.subscriber).values()) < 3_600_000
        assert line.heatmaps_are_there()
        line.set_clock(0)
        line.write(3)
        newest = max(unique_results(line.subscriber).values(), key=lambda result: int(result["seq"]))
        assert newest["ts_ms"] > 1_700_000_000_000
        line.box.kill()
        line.start()
        line.write(3)
        verdict = judge(line.box, line.subscriber, line.written)
        assert line.box.stop() == 0
    tell(
        Row(
            "Clock",
            "boot in 1970, files with times of today and of 2036, the true time comes later",
            "everything is scored; nothing is old while the clock is before the build date",
            "a library under the service and its worker",
            str(verdict),
        )
    )
