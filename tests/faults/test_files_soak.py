"""Many files at once, many old files, and shares that hang or go away again and again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import psutil
import pytest
from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD

from tests.faults.camera_line import camera_line
from tests.faults.disks import bind_mount, mounts_at, needs_fuse, needs_root, small_disk, unmount
from tests.faults.reliability import Row, tell
from tests.faults.test_mounts import arrive, hanging_line
from tests.helpers.broker import wait_for
from tests.helpers.soak import SHARE, share_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.camera_line import CameraLine

QUEUE_LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
MIB = 1 << 20
SMALLEST = (64, 64)
FILES_OF_AN_INODE = 1000  # file systems allow some ten thousand names of one


@contextmanager
def tiny_event_queues(limit: int) -> Iterator[None]:
    """Let every event queue that is made meanwhile hold no more than this.

    The setting is the whole machine's: other programs that begin to listen in this moment get a small queue as well. It
    is put back afterwards; only a killed test leaves it, until the next boot or `sysctl fs.inotify.max_queued_events`.
    """
    before = QUEUE_LIMIT.read_text()
    try:
        QUEUE_LIMIT.write_text(str(limit))
    except OSError as error:
        pytest.skip(f"the limit of the kernel's event queue cannot be changed here: {error.strerror}")
    try:
        yield
    finally:
        QUEUE_LIMIT.write_text(before)


def write_names(line: CameraLine, names: list[str]) -> None:
    """Make many strips at once: each name is a file of its own to the agent, whichever inodes are behind it."""
    stock = line.box.folder / "stock"
    stock.mkdir()
    for number, name in enumerate(names):
        kind = line.next_strip(name)
        inode = stock / f"{kind.name}-{number // FILES_OF_AN_INODE}"
        if not inode.exists():
            shutil.copyfile(kind, inode)
        path = line.box.camera() / name
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        path.hardlink_to(inode)


def wait_and_measure(line: CameraLine, strips: int, seconds: float) -> float:
    """Wait until so many strips are published; return the supervisor's largest memory meanwhile, in MiB."""
    assert line.box.process is not None
    supervisor = psutil.Process(line.box.process.pid)
    largest, looked_at = 0.0, 0.0

    def published() -> bool:
        nonlocal largest, looked_at
        if time.monotonic() < looked_at + 0.5:
            return False
        looked_at = time.monotonic()
        largest = max(largest, supervisor.memory_info().rss / MIB)
        sums = line.box.ask("status")["strips"]
        return bool(sums["seen"] >= strips and sums["pending"] == 0)

    wait_for(published, f"{strips} strips are published", seconds)
    return largest


@pytest.mark.soak
@needs_root
def test_ten_thousand_files_at_once_with_a_tiny_event_queue(tmp_path: Path) -> None:
    """The kernel drops nearly all events; that it did is noticed, and a scan finds every file, each once."""
    number, limit = share_of(10_000, at_least=500), 64
    with camera_line(tmp_path, camera={"rescan_seconds": 3600}, size=SMALLEST) as line:
        with tiny_event_queues(limit):
            line.box.start()
            line.wait_for_state("events")
            mine = InotifyFD()  # its thread is not started: what comes is read here
        try:
            folder = os.fsencode(line.box.camera())
            mine.add_callback(folder, InotifyConstants.IN_CREATE, Mock(), CallbackId(0))
            line.wait_for_results(line.write(3))
            mine.read_events()
            assert line.box.process is not None
            line.box.process.send_signal(signal.SIGSTOP)  # what a starved box is like
            write_names(line, [f"{count:06d}-{'x' * 40}.tif" for count in range(number)])
            line.box.process.send_signal(signal.SIGCONT)
            began = time.monotonic()
            told = mine.read_events()
        finally:
            mine.close()
        assert len(told) <= limit + 1
        assert told[-1].is_queue_overflow, "the queue did not overflow"
        memory = wait_and_measure(line, number + 3, 600)
        took = time.monotonic() - began
        verdict = line.judge()
        assert verdict.repeated == 0
        assert line.box.stop() == 0
    tell(
        Row(
            "Files",
            "more files at once than the kernel's event queue holds",
            "the overflow is noticed and a scan finds every file; each is judged once; bounded memory",
            f"fs.inotify.max_queued_events {limit} while the service starts; stopped (SIGSTOP) while the files come; "
            "no rescan for an hour; a second listener beside it saw the overflow",
            f"{verdict}; {took:.0f} s, {number / took:.0f} a second; supervisor {memory:.0f} MiB at most",
            "soak",
            share=SHARE,
        )
    )


@pytest.mark.soak
@needs_root
def test_a_hundred_thousand_old_files_at_the_start(tmp_path: Path) -> None:
    """A live strip does not wait for them, the memory does not grow with them, and all are judged, each once."""
    number = share_of(100_000, at_least=2000)
    with camera_line(tmp_path, camera={"rescan_seconds": 3600}, size=SMALLEST) as line:
        write_names(line, [f"2026/11/{count % 30 + 1:02d}/{count % 4}/{count:06d}.tif" for count in range(number)])
        began = time.monotonic()
        line.box.start()
        (live,) = line.write(1)
        written = time.monotonic()
        beside = f'"file":"{live}"'.encode()
        wait_for(
            lambda: any(beside in payload.replace(b" ", b"") for payload in line.subscriber.payloads("/event/strip/")),
            "the live strip is published", 60,
        )  # fmt: skip
        first_live = time.monotonic() - written
        before_it = len(line.subscriber.payloads("/event/strip/"))
        memory = wait_and_measure(line, number + 1, 3000)
        took = time.monotonic() - began
        verdict = line.judge(seconds=120)
        assert verdict.repeated == 0
        assert line.box.stop() == 0
    tell(
        Row(
            "Files",
            "a folder full of old files at the start",
            "live strips go first; all are judged, each once; bounded memory",
            f"{number} names in 120 dated folders, then the service started and one strip written",
            f"{verdict}; first live result {first_live:.1f} s after its file ({before_it} results were there by then); "
            f"all after {took:.0f} s, {number / took:.0f} a second; supervisor {memory:.0f} MiB at most",
            "soak",
            share=SHARE,
        )
    )


@pytest.mark.soak
@needs_fuse
def test_the_service_stops_while_a_share_hangs(tmp_path: Path) -> None:
    """Within its time limit, with exit code 0; what waited is judged by the next start."""
    with hanging_line(tmp_path) as (line, share):
        line.wait_for_state("unreachable")
        began = time.monotonic()
        assert line.box.stop() == 0
        stopped = time.monotonic() - began
        share.come_back()
        line.box.start()
        line.wait_for_results(arrive(line, share))
        verdict = line.judge()
        assert line.box.stop() == 0
    assert stopped < 30
    how = "SIGTERM while worker and watcher wait for the share; the share comes back; started"
    promise = (
        "ends within inference.deadline_seconds and 10 s, with exit code 0; what waited is judged by the next start"
    )
    figures = f"{verdict}; stopped within {stopped:.1f} s"
    tell(Row("Files", "service stopped while a share hangs", promise, how, figures, "soak"))


@pytest.mark.soak
@needs_root
def test_a_share_that_comes_and_goes_under_load(tmp_path: Path) -> None:
    """Whatever the worker is at when the share goes, no strip is called vanished, and none is judged twice."""
    turns, rng = share_of(40, at_least=5), random.Random(5)  # noqa: S311 - to be repeated, not to be secret
    with (
        small_disk(tmp_path / "store", 256) as store,
        camera_line(tmp_path, size=SMALLEST) as line,
        mounts_at(line.box.camera()),
    ):
        camera = line.box.camera()
        bind_mount(store.place, camera)
        line.box.start()
        line.wait_for_state("events")
        for turn in range(turns):
            names = [f"{turn:03d}-{count:03d}.tif" for count in range(200)]
            for name in names:
                part = store.place / f"{name}.part"
                shutil.copyfile(line.next_strip(name), part)
                part.rename(store.place / name)
            time.sleep(rng.uniform(0.2, 1.0))  # the fault comes at any moment
            unmount(camera)
            if turn % 2:
                line.wait_for_state("missing")
            else:
                time.sleep(rng.uniform(0, 1.0))  # too short to be noticed, perhaps
            bind_mount(store.place, camera)
        verdict = line.judge()
        assert verdict.repeated == 0
        assert line.box.stop() == 0
    tell(
        Row(
            "Files",
            "share that comes and goes under load",
            "no strip is called vanished, all are judged, none twice",
            "a bind mount of a tmpfs taken away at random moments while strips are judged, and mounted again",
            f"{turns} times; {verdict}",
            "soak",
            share=SHARE,
        )
    )
