"""The box that is installed to: files put atomically and only where they differ, links, users, systemd."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .refusal import Code, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

OPT = Path("/opt/strip-agent")
CONFIG = Path("/etc/strip-agent/agent.yaml")
LINK = Path("/usr/local/bin/strip-agent")
UNIT, WEB_UNIT = "strip-agent.service", "strip-agent-web.service"
WEB_USER = "strip-agent-web"
USER, PUSHERS = "strip-agent", "strip-agent-push"
PLACES = {
    "strip-agent.service": Path("/etc/systemd/system/strip-agent.service"),
    WEB_UNIT: Path("/etc/systemd/system/strip-agent-web.service"),
    "strip-agent.sysusers.conf": Path("/etc/sysusers.d/strip-agent.conf"),
    "strip-agent.tmpfiles.conf": Path("/etc/tmpfiles.d/strip-agent.conf"),
    "strip-agent.sysctl.conf": Path("/etc/sysctl.d/60-strip-agent.conf"),
}
START_SECONDS = 600.0  # a large ledger is looked through first, and says so to systemd


@dataclass(frozen=True, slots=True)
class Box:
    """A box, or the folder of a box that does not run."""

    root: Path

    @property
    def runs(self) -> bool:
        """Whether it is this machine, under systemd: only then is anything started or stopped."""
        return self.root == Path("/") and Path("/run/systemd/system").is_dir()

    def at(self, path: Path) -> Path:
        """Give the place of a path of the box."""
        return self.root / path.relative_to("/")

    def version_of(self, link: str) -> str:
        """Name the version that `current` or `previous` leads to, "" where there is none."""
        path = self.at(OPT / link)
        return str(path.readlink()) if path.is_symlink() and (path / "bin/strip-agent").exists() else ""

    def point(self, link: Path, target: str) -> bool:
        """Make a link lead to `target`, at one stroke; whether anything had to be changed."""
        path = self.at(link)
        if path.is_symlink() and str(path.readlink()) == target:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(path)
        sync_folder(path.parent)
        return True

    def put(self, path: Path, content: bytes, mode: int = 0o644) -> bool:
        """Write a file whole or not at all; whether it was not there like that already."""
        target = self.at(path)
        if target.is_file() and target.read_bytes() == content:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, content, mode)
        return True

    def put_units(self, version: str) -> list[str]:
        """Put a version's unit, users, folders and settings where the system reads them, and have it do so."""
        folder = self.at(OPT / version / "systemd")
        there = {name: place for name, place in PLACES.items() if name != WEB_UNIT or (folder / name).exists()}
        if WEB_UNIT not in there and self.at(PLACES[WEB_UNIT]).exists():  # an older version, which has no page
            if self.runs:  # else the newer version's page would run on, out of a folder that goes one day
                systemctl("disable", "--now", WEB_UNIT)
                subprocess.run(["systemctl", "reset-failed", WEB_UNIT], capture_output=True, check=False)
            self.at(PLACES[WEB_UNIT]).unlink()
        changed = [str(place) for name, place in there.items() if self.put(place, (folder / name).read_bytes())]
        where = [] if self.root == Path("/") else [f"--root={self.root}"]
        call("systemd-sysusers", *where, str(self.at(PLACES["strip-agent.sysusers.conf"])))
        if not self.at(CONFIG).exists():
            self.at(CONFIG.parent).mkdir(parents=True, exist_ok=True)
            write(self.at(CONFIG), (folder.parent / "config/agent.yaml").read_bytes(), 0o640)
            shutil.chown(self.at(CONFIG), group=self.group_id())
            changed.append(str(CONFIG))
        call("systemd-tmpfiles", *where, "--create", str(self.at(PLACES["strip-agent.tmpfiles.conf"])))
        if self.runs:
            with contextlib.suppress(Refused):  # a container may not set them; `doctor` tells where they are too small
                call("/lib/systemd/systemd-sysctl", str(PLACES["strip-agent.sysctl.conf"]))
            if changed:
                systemctl("daemon-reload")
        return changed

    def group_id(self) -> int:
        """Give the number of the service's group, in the box's own list."""
        for line in self.at(Path("/etc/group")).read_text(encoding="utf-8").splitlines():
            name, _, number, *_ = line.split(":")
            if name == USER:
                return int(number)
        raise Refused(Code.TOOL_FAILED, f"systemd-sysusers made no group {USER}")


@contextlib.contextmanager
def alone(box: Box) -> Iterator[None]:
    """Keep a second installer out."""
    folder = box.at(Path("/run"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "strip-agent-install.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(Code.ANOTHER_INSTALLER, "another install.sh is at work on this box; wait for it") from error
        yield


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it holds the old or the new content at any moment, after a power cut too."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def call(*command: str) -> str:
    """Run a tool of the system and give what it says; raises Refused with its words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(Code.TOOL_FAILED, f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise Refused(Code.TOOL_FAILED, f"{' '.join(command)} ended with {done.returncode}: {said}")
    return done.stdout


def systemctl(*arguments: str) -> str:
    """Have systemd do something; raises Refused."""
    return call("systemctl", *arguments)


def unit_is(state: str) -> bool:
    """Whether the service is `active` or `enabled`."""
    done = subprocess.run(["systemctl", f"is-{state}", UNIT], capture_output=True, text=True, check=False)
    return done.stdout.strip() in {state, "activating", "reloading"}
