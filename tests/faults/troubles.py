"""Faults that come to a running box at random: each is a context that makes one, and ends it again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from tests.faults.shift import HEIGHT, WIDTH
from tests.helpers.bad_models import BAD_BYTES
from tests.helpers.bad_strips import BAD_STRIPS
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import put

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.faults.disks import Share
    from tests.faults.judging import Written
    from tests.faults.shift import Cameras
    from tests.helpers.box import Box
    from tests.helpers.broker import Broker, Subscriber
    from tests.helpers.tcp_proxy import TcpProxy

BAD_STRIP_NAMES = (
    "empty", "cut in the middle", "last rows of the target zero", "text", "directories in a circle",
    "corrupt compressed data", "one pixel", "turned", "float16", "JPEG", "bomb by Deflate", "one NaN", "0..1",
    "constant", "target equal to reference 1",
)  # fmt: skip
BAD_MODEL_NAMES = (
    "truncated", "random bytes", "empty", "input name", "fixed batch", "height", "NaN", "outside 0..1",
    "other channels", "golden strip", "unknown domain", "kills",
)  # fmt: skip

JUNK_FILES = 100
SLOW_CAMERA, SLOW_SETTLE_SECONDS = "top", 3.0


@dataclass
class World:
    """Everything that can be broken."""

    box: Box
    broker: Broker
    proxy: TcpProxy
    subscriber: Subscriber
    cameras: Cameras
    chance: random.Random
    folder: Path
    share: Share | None = None
    """Where the heatmaps are."""
    bad: Written = field(default_factory=set)
    """Bad strips that were written."""
    slow: Written = field(default_factory=set)
    """Good strips that were written in pieces."""
    slow_anomalous: Written = field(default_factory=set)
    good_models: dict[str, int] = field(default_factory=dict)
    """sha256 -> version."""
    bad_models: int = 0
    junk: int = 0
    """Floods of the inbox."""
    broker_killed_ms: list[float] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def pause(self, longest_seconds: float) -> None:
        """Let a random time pass: not a wait for anything."""
        time.sleep(self.chance.uniform(0.0, longest_seconds))

    def begin(self, work: Callable[[], None]) -> None:
        """Do something beside the faults."""
        thread = threading.Thread(target=work)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        """Wait until all of it is done."""
        for thread in self._threads:
            thread.join()


def prepare(folder: Path) -> None:
    """Make bad strips and bad models to copy from."""
    folder.mkdir()
    for name in BAD_STRIP_NAMES:
        BAD_STRIPS[name][0](folder / f"{name}.strip")
    for name in BAD_MODEL_NAMES:
        BAD_BYTES[name][1](folder / f"{name}.model")


# -- processes ---------------------------------------------------------------------------------------------------------


def _workers(world: World) -> list[int]:
    assert world.box.process is not None
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(world.box.process.pid).children()]
    return []


def _signal_workers(world: World, number: signal.Signals) -> None:
    for pid in _workers(world):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def supervisor_killed(world: World) -> Iterator[None]:
    """Kill the supervisor, sometimes its workers first; systemd starts it again a little later."""
    if world.chance.random() < 1 / 3:
        _signal_workers(world, signal.SIGKILL)
    world.box.kill()
    wait_for(lambda: not world.box.workers(), "workers end with their supervisor")
    world.pause(1.0)
    world.box.start(wait=False)
    yield


@contextmanager
def worker_killed(world: World) -> Iterator[None]:
    """Kill the worker, and a candidate if there is one."""
    _signal_workers(world, signal.SIGKILL)
    yield


@contextmanager
def worker_stopped(world: World) -> Iterator[None]:
    """Let the worker stand still for good: the supervisor has to see to it."""
    _signal_workers(world, signal.SIGSTOP)
    yield


@contextmanager
def supervisor_stopped(world: World) -> Iterator[None]:
    """Let the supervisor stand still for a while."""
    assert world.box.process is not None
    world.box.process.send_signal(signal.SIGSTOP)
    try:
        yield
        world.pause(3.0)
    finally:
        world.box.process.send_signal(signal.SIGCONT)


# -- broker and link ---------------------------------------------------------------------------------------------------


@contextmanager
def broker_away(world: World) -> Iterator[None]:
    """Kill or stop the broker, and start it again."""
    world.subscriber.expect_reconnect()
    if world.chance.random() < 1 / 2:
        world.broker.kill()
        world.broker_killed_ms.append(time.time() * 1000)
    else:
        world.broker.stop()
    try:
        yield
        world.pause(4.0)
    finally:
        world.broker.start()
        world.subscriber.wait_for_subscription()


@contextmanager
def _proxy_set(world: World, fault: str, longest_seconds: float) -> Iterator[None]:
    """Switch a fault of the proxy on, and off again after a random time."""
    setattr(world.proxy, fault, True)
    try:
        yield
        world.pause(longest_seconds)
    finally:
        setattr(world.proxy, fault, False)


@contextmanager
def link_cut(world: World) -> Iterator[None]:
    """Cut the link once, or several times."""
    for _ in range(world.chance.randrange(1, 4)):
        world.proxy.cut()
        world.pause(0.5)
    yield


@contextmanager
def link_refused(world: World) -> Iterator[None]:
    """Cut the link and refuse another for a while."""
    with _proxy_set(world, "refuse", 4.0):
        world.proxy.cut()
        yield


@contextmanager
def link_half_open(world: World) -> Iterator[None]:
    """Let nothing pass, and close nothing; perhaps longer than the keepalive."""
    with _proxy_set(world, "frozen", 9.0):
        yield
    world.proxy.cut()


@contextmanager
def answers_lost(world: World) -> Iterator[None]:
    """Lose what the broker answers."""
    with _proxy_set(world, "answers_dropped", 3.0):
        yield
    world.proxy.cut()


# -- disk, files, models -----------------------------------------------------------------------------------------------


@contextmanager
def heatmaps_full(world: World) -> Iterator[None]:
    """Let the heatmaps' folder have no room."""
    assert world.share is not None
    world.share.fail(errno.ENOSPC)
    try:
        yield
        world.pause(4.0)
    finally:
        world.share.fail(0)


@contextmanager
def heatmaps_hang(world: World) -> Iterator[None]:
    """Let the share of the heatmaps answer nothing for a while."""
    assert world.share is not None
    world.share.hang()
    try:
        yield
        world.pause(8.0)
    finally:
        world.share.come_back()


@contextmanager
def strips_touched(world: World) -> Iterator[None]:
    """Give every file of the cameras another time, as a restore or a clock's change does: the same strips."""
    for camera in world.box.config["cameras"]:
        for file in world.box.camera(camera["name"]).glob("*.tif"):
            with suppress(FileNotFoundError):  # removed or moved by the box meanwhile
                if not file.is_symlink():  # which has no content to be known by
                    os.utime(file, follow_symlinks=False)
    yield


@contextmanager
def links_planted(world: World) -> Iterator[None]:
    """Put links to another camera's folder, and to a file of it, among the strips: nothing behind them is judged."""
    name = f"link {len(world.bad):04d}.tif"
    target = world.box.camera("top")
    (world.box.camera("side") / name).symlink_to(target / "000000.tif")
    world.bad.add(("side", name))  # invalid: `symlink`
    folder = world.box.camera("side") / f"linked {len(world.bad):04d}"
    folder.symlink_to(target)
    try:
        yield
        world.pause(3.0)
    finally:
        folder.unlink()


@contextmanager
def inbox_modes(world: World) -> Iterator[None]:
    """Change the modes of the inbox and of all that is in it, there and back."""
    before = {path: path.stat().st_mode for path in (world.box.inbox, *world.box.inbox.iterdir())}
    for path, mode in before.items():
        path.chmod(mode & ~0o022)
    try:
        yield
    finally:
        for path, mode in before.items():
            with suppress(FileNotFoundError):
                path.chmod(mode)


@contextmanager
def inbox_junk(world: World) -> Iterator[None]:
    """Flood the inbox with files that are no models."""
    world.junk += 1
    junk = [world.box.inbox / f"junk {world.junk} {number}.onnx" for number in range(JUNK_FILES)]
    for number, path in enumerate(junk):
        path.write_bytes(b"junk %d %d" % (world.junk, number) if number % 2 else b"")
    try:
        yield
        world.pause(3.0)
    finally:
        for path in junk:
            path.unlink(missing_ok=True)


@contextmanager
def bad_strips(world: World) -> Iterator[None]:
    """Drop a few bad strips."""
    for _ in range(world.chance.randrange(1, 5)):
        kind = world.chance.choice(BAD_STRIP_NAMES)
        camera = world.chance.choice(sorted(world.box.config["cameras"], key=str))["name"]
        name = f"bad {len(world.bad):04d} {kind}.tif"
        part = world.box.camera(camera) / f"{name}.part"
        shutil.copyfile(world.folder / f"{kind}.strip", part)
        part.rename(part.with_suffix(""))
        world.bad.add((camera, name))
    yield


@contextmanager
def half_written(world: World) -> Iterator[None]:
    """Let a camera write a good strip in two pieces, under its final name, with a pause that does not settle it."""
    number = len(world.slow)
    strip = (SLOW_CAMERA, f"slow {number:04d}.tif")
    world.slow.add(strip)
    if number % 3 == 0:
        world.slow_anomalous.add(strip)
    content = world.cameras.template(number).read_bytes()
    cut, rest_after = world.chance.randrange(1, len(content)), world.chance.uniform(0.1, SLOW_SETTLE_SECONDS / 3)
    file = world.box.camera(SLOW_CAMERA) / strip[1]
    file.write_bytes(content[:cut])

    def finish() -> None:
        time.sleep(rest_after)
        with file.open("ab") as grown:
            grown.write(content[cut:])

    world.begin(finish)
    yield


@contextmanager
def good_model(world: World) -> Iterator[None]:
    """Push a newer model that judges the same way."""
    version = 1 + len(world.good_models)
    path = world.box.inbox / f"good{version}.onnx"

    def write(hidden: Path) -> None:
        world.good_models[difference_model(hidden, version=version, height=HEIGHT, width=WIDTH)] = version

    put(path, write)
    _forget_old_pushes(world)
    yield


@contextmanager
def bad_model(world: World) -> Iterator[None]:
    """Push a bad one."""
    kind = world.chance.choice(BAD_MODEL_NAMES)
    world.bad_models += 1
    path = world.box.inbox / f"bad{world.bad_models}.onnx"
    content = (world.folder / f"{kind}.model").read_bytes()
    another_text = b"\x32\x04" + world.bad_models.to_bytes(4, "big")  # the model's doc_string: another digest each time
    put(path, lambda hidden: hidden.write_bytes(content + another_text))
    _forget_old_pushes(world)
    yield


def _forget_old_pushes(world: World) -> None:
    """Remove the oldest, as whoever pushes does in the end."""
    pushed = sorted(world.box.inbox.glob("[gb]*.onnx"), key=lambda path: path.stat().st_mtime_ns)
    for path in pushed[:-6]:
        path.unlink()


Troubles = list["Callable[[World], AbstractContextManager[None]]"]
KILLS_THE_SUPERVISOR: Troubles = [supervisor_killed]
SPARES_THE_SUPERVISOR: Troubles = [
    worker_killed, worker_stopped, supervisor_stopped, broker_away, link_cut, link_refused, link_half_open,
    answers_lost, bad_strips, half_written, good_model, bad_model,
    strips_touched, links_planted, inbox_modes, inbox_junk,
]  # fmt: skip
ON_A_SHARE: Troubles = [heatmaps_full, heatmaps_hang]
CONTEND = (
    {heatmaps_full, heatmaps_hang}, {supervisor_killed, heatmaps_hang},
    {supervisor_killed, supervisor_stopped}, {broker_away, link_refused, link_half_open, answers_lost},
)  # fmt: skip
"""Faults of which one at a time can be made."""
