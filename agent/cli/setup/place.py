"""Folders that the configuration names, made with the rights that their users need, and users put into groups."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from typing import TYPE_CHECKING

from agent.errors import ExitCode, Fatal
from agent.files import make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.cli.setup.answers import Answers
    from agent.config import Camera, Config

SERVICE, PUSHERS = "strip-agent", "strip-agent-push"


def place(config: Config, answers: Answers) -> Iterator[str]:
    """Make what is missing; say what was done. What exists keeps its owner and rights. Raises Fatal."""
    users = {one.folder: one.user for one in answers.cameras}
    for camera in config.cameras:
        if not camera.folder.exists():
            yield _make_camera_folder(camera, users.get(camera.folder, ""))
        elif camera.when_done != "keep" and (found := _let_the_service_write(camera.folder)):
            yield found
        if camera.done_folder is not None and not camera.done_folder.exists():
            _make(camera.done_folder, SERVICE, SERVICE, 0o750)
            yield f"{camera.done_folder} is made; the service owns it"
    if not config.heatmap_folder.is_relative_to(config.agent.state_folder) and not config.heatmap_folder.exists():
        _make(config.heatmap_folder, SERVICE, SERVICE, 0o750)
        yield f"{config.heatmap_folder} is made; the service owns it, group {SERVICE} reads it"
    if not config.models.inbox.exists():
        _make(config.models.inbox, "root", PUSHERS, 0o2775)
        yield f"{config.models.inbox} is made; group {PUSHERS} writes to it"
    for group, members in ((PUSHERS, answers.pushers), (SERVICE, answers.readers)):
        for user in members:
            yield from _join(user, group)


def _make_camera_folder(camera: Camera, user: str) -> str:
    """Let the camera's user write and the service read, and write too where it is to move or remove files."""
    writes = camera.when_done != "keep"
    _make(camera.folder, user or "root", SERVICE, 0o2770 if writes else 0o2750)
    rights = "reads and removes" if writes else "reads"
    hint = (
        "" if user else f"; until it is given to the camera's user (chown USER {camera.folder}) only root writes to it"
    )
    return f"{camera.folder} is made; {user or 'root'} writes, the service {rights}{hint}"


def _let_the_service_write(folder: Path) -> str:
    """Let the service's group write to a folder that is the group's already, as setup has made it."""
    status = folder.stat()
    if status.st_gid != grp.getgrnam(SERVICE).gr_gid or status.st_mode & 0o020:
        return ""
    folder.chmod(status.st_mode | 0o020)
    return f"{folder} lets the service remove files now"


def _make(folder: Path, user: str, group: str, mode: int) -> None:
    try:
        make_folder(folder)
        os.chown(folder, pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
        folder.chmod(mode)
    except (OSError, KeyError) as error:
        raise Fatal(ExitCode.FAILED, f"cannot make {folder} for user {user} and group {group}: {error}") from error


def _join(user: str, group: str) -> Iterator[str]:
    try:
        if user in grp.getgrnam(group).gr_mem:
            return
    except KeyError as error:
        raise Fatal(ExitCode.FAILED, f"there is no group {group}: run install.sh first") from error
    done = subprocess.run(["usermod", "--append", "--groups", group, user], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Fatal(ExitCode.FAILED, f"cannot put {user} into group {group}: {done.stderr.strip()}")
    yield f"{user} is in group {group}, from the next login on"
