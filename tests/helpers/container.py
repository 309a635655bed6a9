"""A box for tests: a minimal Debian with systemd as process 1, in namespaces of its own, and no network but itself.

The tree is made once by debootstrap, and kept; a box is a layer over it. Needs root, debootstrap and systemd-nspawn.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from typing import Self

TREES = Path("/var/cache/strip-agent-tests")
PACKAGES = "systemd,systemd-sysv,dbus,python3,iproute2,mosquitto,mosquitto-clients,openssh-server,passwd"
UBUNTU = "http://archive.ubuntu.com/ubuntu"
UBUNTU_KEYRING = f"{UBUNTU}/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
UBUNTU_KEYRING_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
DEBOOTSTRAP_SECONDS = 1200.0
BOOT_SECONDS = 120.0
SHUT_DOWN_SECONDS = 240.0
REBOOTS = 133  # systemd-nspawn's exit code for "start it again"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def tree(suite: str) -> Path:
    """Give the folder of a minimal system, made the first time; skips the test with the reason where it cannot be."""
    missing = [name for name in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root, debootstrap and systemd-container; missing: {', '.join(missing) or 'root'}")
    TREES.mkdir(parents=True, exist_ok=True)
    with (TREES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target, new = TREES / suite, TREES / f".{suite}.new"
        if not target.exists():
            shutil.rmtree(new, ignore_errors=True)
            options = ["--variant=minbase", f"--include={PACKAGES}"]
            where = [suite, str(new)]
            if suite == "noble":
                options += ["--components=main,universe", f"--keyring={_ubuntu_keys()}"]
                where += [UBUNTU, "/usr/share/debootstrap/scripts/gutsy"]  # the one of all Ubuntus
            command = ["debootstrap", *options, *where]
            done = subprocess.run(command, capture_output=True, text=True, timeout=DEBOOTSTRAP_SECONDS, check=False)
            if done.returncode != 0:
                pytest.skip(f"debootstrap cannot make {suite} here: {(done.stderr or done.stdout).strip()[-300:]}")
            (new / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
            new.rename(target)
    return target


def _ubuntu_keys() -> Path:
    """Give the file of keys that Ubuntu signs with, known by its hash; skips the test where it cannot be had."""
    folder = TREES / "ubuntu-keyring"
    package, keys = folder / "package.deb", folder / "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    folder.mkdir(exist_ok=True)
    try:
        with urllib.request.urlopen(UBUNTU_KEYRING, timeout=60) as answer:  # noqa: S310 - it is http
            package.write_bytes(answer.read())
    except OSError as error:
        pytest.skip(f"no Ubuntu to be had here: {error}")
    assert hashlib.sha256(package.read_bytes()).hexdigest() == UBUNTU_KEYRING_SHA256
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)
    return keys


def enter(pid: int, script: str) -> list[str]:
    """Give the command that runs a shell script as root where this process is, with nothing of this machine."""
    spaces = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
    clean = ["--root", "--wd", "env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"]
    return [*spaces, *clean, "sh", "-euc", script]


class Container:
    """A box that can be booted, used, and cut off from power."""

    def __init__(self, folder: Path, suite: str, binds: dict[Path, str]) -> None:
        """Prepare a layer over the tree; `binds` are folders of this machine and where the box sees them."""
        self._lower, self._folder = tree(suite), folder
        self.root = folder / "root"
        self._binds = [f"--bind={source}:{target}" for source, target in binds.items()]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)

    def __enter__(self) -> Self:
        """Mount the layer and boot."""
        layers = f"lowerdir={self._lower},upperdir={self._folder}/upper,workdir={self._folder}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True)
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End everything in it, and leave nothing mounted."""
        self.cut_power()
        subprocess.run(["umount", "--lazy", str(self.root)], check=False)

    def boot(self) -> None:
        """Start systemd and wait until it has started what it has to."""
        command = ["systemd-nspawn", "--quiet", "--keep-unit", "--register=no", f"--directory={self.root}", "--boot"]
        command += ["--private-network", "--console=pipe", *self._binds]
        with (self._folder / "console.log").open("ab") as log:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._is_up, "the box has booted", BOOT_SECONDS)

    def _is_up(self) -> bool:
        if self._nspawn is None or self._nspawn.poll() is not None:
            said = (self._folder / "console.log").read_text(errors="replace").strip()[-300:]
            pytest.skip(f"systemd-nspawn cannot boot here: {said}")
        init = self._init()
        if init is None:
            return False
        state = subprocess.run(
            enter(init.pid, "systemctl is-system-running"), capture_output=True, text=True, check=False
        )
        return state.stdout.strip() in {"running", "degraded"}

    def _init(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._nspawn.pid).children() if self._nspawn is not None else []
            return next((child for child in children if child.name() == "systemd"), None)
        return None

    def cut_power(self) -> None:
        """End it as a power cut does: everything at once, nothing is told."""
        init = self._init()
        if init is not None:
            init.send_signal(signal.SIGKILL)
        if self._nspawn is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(30)
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None
        for process in self._started:
            process.wait(30)
        self._started.clear()

    def reboot(self) -> None:
        """Shut it down in good order, as `reboot` does, and boot it again."""
        assert self._nspawn is not None, "the box is not running"
        self.run("systemctl --no-block reboot")
        wait_for(self._is_down, "the box has shut down", SHUT_DOWN_SECONDS)
        assert self._nspawn.returncode == REBOOTS, f"systemd-nspawn ended with {self._nspawn.returncode}"
        self.cut_power()  # nothing runs any more; it forgets what it had started
        self.boot()

    def _is_down(self) -> bool:
        for process in self._started:  # nsenter stops with what it runs, and that is stopped before it is ended
            process.send_signal(signal.SIGCONT)
        return self._nspawn is None or self._nspawn.poll() is not None

    def start(self, script: str) -> None:
        """Run a shell script in the box for as long as it takes, or until the power is cut."""
        quiet = subprocess.DEVNULL
        self._started.append(subprocess.Popen(self.command(script), stdin=quiet, stdout=quiet, stderr=quiet))

    def command(self, script: str) -> list[str]:
        """Give the command that runs a shell script in the box."""
        init = self._init()
        assert init is not None, "the box is not running"
        return enter(init.pid, script)

    def run(self, script: str, *, check: bool = True, timeout: float = 300.0, typed: str = "") -> str:
        """Run a shell script in the box and give all that it says; it reads what is `typed`."""
        done = subprocess.run(
            self.command(script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False, input=typed,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{shlex.quote(script)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def wait_until(self, script: str, what: str, seconds: float = 120.0) -> None:
        """Wait until a script succeeds in the box."""
        until = time.monotonic() + seconds
        while subprocess.run(
            self.command(script), capture_output=True, check=False, stdin=subprocess.DEVNULL
        ).returncode:
            assert time.monotonic() < until, (
                f"not within {seconds:g} s: {what}\n{self.run('journalctl -n 40', check=False)}"
            )
            time.sleep(0.2)
