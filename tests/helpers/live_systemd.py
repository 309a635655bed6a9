"""A systemd of our own: PID 1 of new namespaces, with the unit of this repository and nothing else of the machine's.

Needs root, namespaces and control groups that may be written; `booted` skips the test with the reason where they are
missing; where CI=true that is a failure. It gets control groups of its own, below those of the tests, and sees no
others: what it leaves in them is removed, and nothing else. The service sees `/srv`, `/run` and `/var/lib` that
are folders of the test, and runs as the user and behind the walls that the unit names. Its programs may lie where only
root can read, so it may read everything.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.helpers.broker import wait_for
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMD = Path("/lib/systemd/systemd")
GROUP = "strip-agent-tests"
NAMESPACES = "unshare --pid --mount --uts --ipc --cgroup --fork --mount-proc --kill-child"
USER_ID = 64123
BOOT_SECONDS = 90.0
FOLDERS = ("srv", "run", "var/lib")
REPOSITORY = Path("/srv/repository")
DROP_IN = """[Service]
ExecStart=
ExecStart=/srv/strip-agent run --config /srv/agent.yaml
StandardOutput=append:/srv/service.log
StandardError=append:/srv/service.log
ProtectHome=read-only
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
AmbientCapabilities=CAP_DAC_READ_SEARCH
"""


class LiveSystemd:
    """A systemd that runs, and its tools."""

    def __init__(self, folder: Path, init: psutil.Process) -> None:
        self.srv = folder / "srv"
        self.state = folder / "var/lib/strip-agent"
        self._units = folder / "run/units"
        self._init = init

    @property
    def init(self) -> int:
        """Its process id, as this side sees it."""
        return self._init.pid

    def run(self, *command: str, where: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command where this systemd is PID 1, or where another of its processes is."""
        enter = ["nsenter", "--target", str(where or self._init.pid), "--mount", "--pid"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=120, check=False)

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run systemctl there."""
        return self.run("systemctl", *arguments)

    def show(self, key: str) -> str:
        """Give a property of the service."""
        return self.systemctl("show", "--value", "--property", key, "strip-agent").stdout.strip()

    def change(self, **service: str) -> None:
        """Change settings of the unit, as a drop-in does."""
        lines = "".join(f"{key}={value}\n" for key, value in service.items())
        (self._units / "strip-agent.service.d" / "changed.conf").write_text(f"[Service]\n{lines}")
        done = self.systemctl("daemon-reload")
        assert done.returncode == 0, done.stderr

    def processes(self) -> list[psutil.Process]:
        """Give the service's processes as this side sees them, the supervisor first."""
        found = []
        for process in self._init.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.uids().real == USER_ID:
                    found.append(process)
        return found

    @property
    def log(self) -> str:
        """What the service wrote."""
        path = self.srv / "service.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[LiveSystemd]:
    """Boot a systemd in `folder`; it and everything it started are gone afterwards, also when the tests are killed."""
    missing = [name for name in ("unshare", "nsenter", "setpriv", "systemctl") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing or not SYSTEMD.exists():
        pytest.skip(f"needs root and systemd; missing: {', '.join(missing) or 'root or systemd itself'}")
    binds = _prepare(folder)
    with _own_groups() as (groups, mounts), (folder / "systemd.log").open("wb") as log:
        script = f"{mounts}\n{binds}"
        enter = f'for group; do echo $$ > "$group/cgroup.procs"; done; exec {NAMESPACES} sh -euc {shlex.quote(script)}'
        command = ["setpriv", "--pdeathsig", "KILL", "sh", "-euc", enter, "sh", *map(str, groups)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield LiveSystemd(folder, _wait_for_init(process, folder))
        finally:
            process.kill()  # --kill-child: PID 1 of the namespace goes with it, and everything in it
            process.wait()


@contextlib.contextmanager
def _own_groups() -> Iterator[tuple[list[Path], str]]:
    """Make a control group in each hierarchy; give them, and the commands that show nothing but them."""
    ours = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    groups, commands = [], []
    try:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, kind, options, *_ = line.split()
            words = set(options.split(","))
            if kind not in {"cgroup", "cgroup2"} or "cpuset" in words:  # systemd has no use for version 1's cpuset
                continue
            known = (path for names, path in ours.items() if set(names.split(",")) <= words)
            path = ours.get("", "/") if kind == "cgroup2" else next(known, "/")
            group = Path(place + path) / f"{GROUP}-{os.getpid()}"
            with contextlib.suppress(OSError):  # it may not be written: systemd says what it lacks
                group.mkdir()
                groups.append(group)
                commands.append(shlex.join(["mount", "--bind", str(group), place]))
        yield groups, "\n".join(commands)
    finally:
        wait_for(lambda: all(list(map(_is_removed, groups))), "nobody is left in its control groups")


def _is_removed(group: Path) -> bool:
    """Remove a control group and what is below it, the innermost first; whether nobody was left in one of them."""
    for path in sorted((group, *group.rglob("*/")), key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):  # not empty yet, or gone
            path.rmdir()
    return not group.exists()


def _prepare(folder: Path) -> str:
    """Lay out what the service will see; return the script that mounts it and becomes systemd."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    # Somewhere else the unit may hide the repository: it gives the service a /tmp and a /var/tmp of its own.
    repository = folder / "srv" / REPOSITORY.name
    repository.mkdir()
    python = Path(sys.executable)
    python = REPOSITORY / python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    program = folder / "srv/strip-agent"
    program.write_text(f'#!/bin/sh\ncd {REPOSITORY}\nexec {shlex.quote(str(python))} -m agent.cli "$@"\n')
    program.chmod(0o755)
    users, groups = (f"{Path('/etc', name).read_text()}strip-agent:x:{USER_ID}:" for name in ("passwd", "group"))
    (folder / "passwd").write_text(f"{users}{USER_ID}::/:/usr/sbin/nologin\n")
    (folder / "group").write_text(f"{groups}\n")
    units = folder / "run/units"
    (units / "strip-agent.service.d").mkdir(parents=True)
    shutil.copy(ROOT / "systemd/strip-agent.service", units)
    (units / "strip-agent.service.d" / "a-box-for-tests.conf").write_text(DROP_IN)
    for target in ("sysinit", "basic", "shutdown"):  # empty: nothing of this machine is started or swept
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    binds = [(ROOT, str(repository)), *((folder / name, f"/{name}") for name in FOLDERS)]
    binds += [(folder / name, f"/etc/{name}") for name in ("passwd", "group")]
    mounts = "\n".join(f"mount --rbind {shlex.quote(str(source))} {shlex.quote(target)}" for source, target in binds)
    return f"""
        {mounts}
        export container=test SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/nonexistent
        exec {SYSTEMD} --system --unit=basic.target --log-target=console
    """


def _wait_for_init(process: subprocess.Popen[bytes], folder: Path) -> psutil.Process:
    def init() -> psutil.Process | None:
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        return next((child for child in children if "systemd" in child.name()), None)

    def decided() -> bool:
        found = init()
        if process.poll() is not None:
            return True
        answer = LiveSystemd(folder, found).systemctl("is-system-running").stdout if found is not None else ""
        return answer != "" and (folder / "run/systemd/private").exists()

    with contextlib.suppress(AssertionError):
        wait_for(decided, "systemd answers or has ended", BOOT_SECONDS)
    found = init()
    if found is None or not (folder / "run/systemd/private").exists():
        said = (folder / "systemd.log").read_text(errors="replace").strip().splitlines()
        why = f"systemd cannot be PID 1 of namespaces here: {' / '.join(said[-3:]) or 'no word'}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found
