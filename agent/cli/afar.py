"""Looking from afar: the journal as people read it, and one archive for whoever is asked for help."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent import __version__
from agent.cli import show
from agent.cli.options import config_option
from agent.cli.terminal import fail
from agent.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = "strip-agent.service"
ASK_SECONDS = 120.0
JOURNAL_LINES = 5000
LARGEST_CONFIG_BYTES = 1 << 20
ASKED = {"status": ["status"], "audit": ["audit"], "models": ["models", "list"], "doctor": ["doctor"],
         "check-config": ["check-config"], "invalid": ["strips", "list", "--state", "invalid"]}  # fmt: skip
SYSTEM = {
    "unit": ["systemctl", "show", UNIT],
    "unit-files": ["systemctl", "cat", UNIT],
    "disks": ["df", "-hT"],
    "memory": ["cat", "/proc/meminfo"],
    "processor": ["cat", "/proc/cpuinfo"],
    "system": ["cat", "/etc/os-release"],
    "clock": ["timedatectl"],
    "versions-installed": ["ls", "-l", "/opt/strip-agent"],
}


@click.command("logs")
@click.option("--camera", help="Only what is about this camera.")
@click.option("--invalid", is_flag=True, help="Only strips that could not be judged.")
@click.option("--since", metavar="TIME", help="2026-11-22T08:00, or an age such as 8h or 3d.")
@click.option(
    "--lines", type=click.IntRange(1), default=200, show_default=True, help="The newest so many, before any choice."
)
@click.option("--follow", is_flag=True, help="Go on showing what comes, until Ctrl-C.")
def logs_command(camera: str | None, since: str | None, lines: int, *, invalid: bool, follow: bool) -> None:
    """Show the service's journal, readable; it takes root or the group systemd-journal."""
    command = ["journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager"]
    command += [f"--since=@{show.parse_since(since, time.time()) // 1000}"] if since else [f"--lines={lines}"]
    command += ["--follow"] if follow else []
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="backslashreplace") as journal:
            assert journal.stdout is not None  # noqa: S101 - it is a pipe
            for line in journal.stdout:
                if (text := readable(line.rstrip("\n"), camera, only_invalid=invalid)) is not None:
                    print(text, flush=follow)
    except OSError as error:
        fail(f"the journal cannot be read: {error}")
    sys.exit(journal.returncode)


def readable(line: str, camera: str | None, *, only_invalid: bool) -> str | None:
    """Write a line of the journal for people: local time, level, sentence, reason; None where it was not asked for."""
    try:
        entry = json.loads(line)
        when = datetime.fromisoformat(entry["ts"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        level, message = str(entry["level"]), str(entry["message"])
    except (ValueError, KeyError, TypeError):  # systemd's own words
        return None if camera or only_invalid else printable(line)
    if only_invalid and entry.get("verdict") != "invalid":
        return None
    if camera and not (
        message.startswith(f"{camera}/") or f"camera {camera}" in message or entry.get("camera") == camera
    ):
        return None
    ids = f"  [{entry['strip_id']}]" if "strip_id" in entry else ""
    return printable(f"{when}  {'' if level == 'info' else level + ': '}{message}{ids}")


@click.command("support")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder to write it to.")
@config_option
def support_command(out: Path, config_path: Path) -> None:
    """Write one archive for whoever helps from afar: what the box says of itself, without secrets."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"strip-agent-support-{stamp}"
    target = out / f"{name}.tar.gz"
    before = os.umask(0o077)
    try:
        with tarfile.open(target, "x:gz") as archive:
            for file, content in contents(config_path):
                member = tarfile.TarInfo(f"{name}/{file}")
                member.size, member.mtime, member.mode = len(content), int(time.time()), 0o644
                archive.addfile(member, io.BytesIO(content))
    except OSError as error:
        fail(f"{target} cannot be written: {error}")
    finally:
        os.umask(before)
    print(f"{target}: look through it before you give it away; passwords and keys are not in it")


def contents(config_path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of all that helps; what cannot be had says why."""
    try:
        with config_path.open("rb") as file:
            yield "agent.yaml", file.read(LARGEST_CONFIG_BYTES)
    except OSError as error:
        yield "agent.yaml", f"{error}\n".encode()
    yield "versions.txt", "".join(f"{line}\n" for line in _versions()).encode()
    for name, command in ASKED.items():
        whole = [sys.executable, "-m", "agent.cli", *command, "--config", str(config_path), "--json"]
        yield f"{name}.json", _output(whole)
    for name, command in SYSTEM.items():
        yield f"{name}.txt", _output(command)
    yield "journal.txt", _output(["journalctl", f"--unit={UNIT}", "--no-pager", f"--lines={JOURNAL_LINES}"])


def _versions() -> Iterator[str]:
    yield f"strip-agent {__version__}, Python {sys.version}, {platform.platform()}"
    yield from sorted({f"{one.name} {one.version}" for one in metadata.distributions()}, key=str.lower)


def _output(command: list[str]) -> bytes:
    """Give what a program says, and how it ended where that was not well."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)}: {error}\n".encode()
    said = re.sub(rb"(?m)^(\s*SetCredential\w*=).*$", rb"\1(left out)", done.stdout + done.stderr)
    ended = b"" if done.returncode == 0 else b"\n(ended with %d)\n" % done.returncode
    return said + ended


COMMANDS: tuple[Any, ...] = (logs_command, support_command)
