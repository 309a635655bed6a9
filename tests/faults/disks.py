"""Disks that go wrong: one that forgets, refuses or breaks, and small ones that are full."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.broker import MOSQUITTO
from tests.helpers.programs import needs
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Test = Callable[..., Any]


def needs_root(test: Test) -> Test:
    """Skip the test, with the reason, where nothing can be mounted; and where there is no broker to speak of."""
    marks = [
        pytest.mark.root,
        pytest.mark.mosquitto,
        pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: needs root"),
        pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto"),
        needs("mount", "umount"),
    ]
    for mark in marks:
        test = mark(test)
    return test


def needs_fuse(test: Test) -> Test:
    """Skip the same way where there is no FUSE for the file system that forgets."""
    no_fuse = not os.access("/dev/fuse", os.R_OK | os.W_OK)
    return needs_root(pytest.mark.skipif(no_fuse, reason="needs /dev/fuse")(test))


@contextmanager
def _ended_on_error(server: subprocess.Popen[str], place: Path) -> Iterator[None]:
    """Leave neither a server nor its mount behind when it does not do what it should."""
    try:
        yield
    except BaseException:  # a test's time limit as well
        server.kill()
        server.communicate()
        subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)  # it may not be mounted
        raise


class ForgetfulDisk:
    """A mounted `forgetful.py`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forgetful", str(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        with _ended_on_error(self._server, place):
            self._answer()

    def do(self, command: str) -> dict[str, int]:
        """Give a command (`cut SEED`, `fail ERRNO`) and return the answer."""
        assert self._server.stdin is not None
        self._server.stdin.write(command + "\n")
        self._server.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Unmount."""
        with _ended_on_error(self._server, self.place):
            self._server.communicate("end\n", timeout=300)

    def _answer(self) -> dict[str, int]:
        assert self._server.stdout is not None
        answer: dict[str, int] = json.loads(self._server.stdout.readline())
        return answer


@contextmanager
def forgetful_disk(place: Path) -> Iterator[ForgetfulDisk]:
    """Mount it for a while."""
    disk = ForgetfulDisk(place)
    try:
        yield disk
    finally:
        disk.close()


class SmallDisk:
    """A mounted tmpfs that a test fills and frees again."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast of somebody else"

    def fill(self, leave_bytes: int = 0) -> None:
        """Leave no more than this."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while self._free() > leave_bytes:
                        file.write(bytes(min(size, max(4096, self._free() - leave_bytes))))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    def _free(self) -> int:
        stats = os.statvfs(self.place)
        return stats.f_bavail * stats.f_frsize


@contextmanager
def small_disk(place: Path, mib: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs of that size for a while."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)], check=True)
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Share:
    """A mounted `share.py`: the files are another machine's, and it may stop to answer."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.share", str(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        with _ended_on_error(self._server, place):
            self._answer()

    def put(self, source: Path, *names: str) -> None:
        """Let the other machine copy a file there, under these names."""
        self._do(put=str(source), names=names)

    def remove(self, name: str) -> None:
        """Let it remove one."""
        self._do(remove=name)

    def lose(self, name: str, *, at_byte: int) -> None:
        """Let it remove one while it is read."""
        self._do(lose=name, at_byte=at_byte)

    def slow_down(self, bytes_per_second: int) -> None:
        """Read and write no faster than that from now on, whoever asks."""
        self._do(slow=bytes_per_second)

    def fail(self, number: int) -> None:
        """Refuse every change with this errno; 0: none."""
        self._do(fail=number)

    def hang(self) -> None:
        """Answer nothing more: whoever asks waits for ever (so do not touch it)."""
        self._server.send_signal(signal.SIGSTOP)

    def come_back(self) -> None:
        """Answer again."""
        self._server.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Unmount, hanging or not; whoever still waits gets an error."""
        self._server.kill()
        self._server.communicate()
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)

    def _do(self, **command: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "{}\n"


@contextmanager
def remote_share(place: Path) -> Iterator[Share]:
    """Mount it for a while."""
    share = Share(place)
    try:
        yield share
    finally:
        share.close()


def make_read_only(place: Path, *, on: bool) -> None:
    """Let a mounted file system refuse every change, as the kernel does after an error of the disk."""
    subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(place)], check=True)


def unmount(place: Path) -> None:
    """Take away what is mounted there, although it is in use, as a broken network does."""
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def mounts_at(place: Path) -> Iterator[None]:
    """Mount and unmount there as you like: nothing is left mounted afterwards, whatever happened meanwhile."""
    try:
        yield
    finally:
        while os.path.ismount(place):
            unmount(place)


def bind_mount(source: Path, place: Path) -> None:
    """Show a folder at another place; its files survive the unmounting."""
    subprocess.run(["mount", "--bind", str(source), str(place)], check=True)
