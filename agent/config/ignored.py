"""The files that say which pixels of a camera are ignored: found, read without surprises, kept, examined.

The service copies them into its state folder when it starts and workers read only the copies, so that a file that is
edited changes nothing before the next start, as with the rest of the configuration. Whether the pixels make sense is
examined by the code that the workers use (`worker/ignored.py`), in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config.file import ConfigError, Problem
from agent.files import make_folder, write_atomically
from agent.patience import LOOK_SECONDS, answer_within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import Config

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 4 << 20
EXAMINED_SECONDS = 30.0
ENDED_SECONDS = 2.0
KEYS = ("ignore_pixels", "ignore_mask")
AWAY, MISFIT = "away", "misfit"  # it cannot be read now; it does not fit the strips of the active model


@dataclass(frozen=True, slots=True)
class IgnoreFiles:
    """The two files of one camera; "" where there is none."""

    ignore_pixels: str = ""
    ignore_mask: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with the files of the camera with that number; `key` "" is both."""

    number: int
    key: str
    message: str
    kind: str  # AWAY, MISFIT, or "": the content is no good

    def problem(self) -> Problem:
        """Say it of the configuration's key."""
        where = f"cameras[{self.number}]" + (f".{self.key}" if self.key else "")
        return Problem(None, where, self.message, may_pass=self.kind == AWAY)


class AwayError(ValueError):
    """A file cannot be read now."""


def configured(config: Config) -> dict[str, IgnoreFiles]:
    """Return the files of each camera that has any, as the configuration names them."""
    files = {
        camera.name: IgnoreFiles(str(camera.ignore_pixels or ""), str(camera.ignore_mask or ""))
        for camera in config.cameras
    }
    return {name: named for name, named in files.items() if named != IgnoreFiles()}


def copies(config: Config) -> dict[str, IgnoreFiles]:
    """Return where the service keeps them: the file that a camera's strips are judged with."""
    folder = config.agent.state_folder / "ignored"
    return {
        name: IgnoreFiles(*(str(folder / f"{name}.{key}") if getattr(files, key) else "" for key in KEYS))
        for name, files in configured(config).items()
    }


def keep_copies(config: Config, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Examine them, copy into the state folder those that have changed, and remove copies that are of no use now.

    A file that is away costs nothing where a copy of it is left, and what does not fit the model's size is left to the
    workers. Raises ConfigError with everything else that is wrong.
    """
    named, kept = configured(config), copies(config)
    sources, findings = _find_usable(config, sizes, named, kept)
    problems = []
    for finding in findings:
        camera = config.cameras[finding.number].name
        keys = [finding.key] if finding.key else KEYS
        old = any(getattr(sources[camera], key) != getattr(named[camera], key) for key in keys)  # a copy, and no good
        if finding.kind == MISFIT:
            log.warning("%s; strips of camera %s are refused", finding.problem(), camera)
        else:
            problems.append(replace(finding.problem(), may_pass=old or finding.kind == AWAY))
    if problems:
        raise ConfigError(problems)
    _remove_others(config.agent.state_folder / "ignored", kept)
    for number, name in enumerate(camera.name for camera in config.cameras):
        for key in KEYS if name in named else ():
            source, target = getattr(sources[name], key), Path(getattr(kept[name], key))
            if source and source != str(target) and (problem := _copy(source, target, f"cameras[{number}].{key}")):
                problems.append(problem)
    if problems:
        raise ConfigError(problems)


def _find_usable(
    config: Config,
    sizes: Mapping[str, tuple[int, int]],
    named: Mapping[str, IgnoreFiles],
    kept: Mapping[str, IgnoreFiles],
) -> tuple[dict[str, IgnoreFiles], list[Finding]]:
    """Return the files to be used, copies in place of those that are away, and what is wrong with them."""
    sources = dict(named)
    while True:
        findings = _examine(config, sizes, sources)
        replaced = False
        for finding in findings:
            camera = config.cameras[finding.number].name
            for key in ([finding.key] if finding.key else KEYS) if finding.kind == AWAY else ():
                source, copy = getattr(sources[camera], key), getattr(kept[camera], key)
                if source and source != copy and os.path.isfile(copy):  # noqa: PTH113 - "" is none
                    sources[camera] = replace(sources[camera], **{key: copy})
                    replaced = True
                    log.warning("%s; the copy of an earlier start is used", finding.problem())
        if not replaced:
            return sources, findings


def _remove_others(folder: Path, kept: Mapping[str, IgnoreFiles]) -> None:
    wanted = {path for files in kept.values() for path in (files.ignore_pixels, files.ignore_mask)}
    for path in folder.glob("*"):
        if str(path) not in wanted:
            try:
                path.unlink()
            except OSError as error:
                log.warning("%s cannot be removed: %s", path, error.strerror)


def _copy(source: str, target: Path, where: str) -> Problem | None:
    """Copy a file that differs from its copy; where that fails an old copy serves, else the problem is returned."""
    try:
        data = answer_within(LOOK_SECONDS, lambda: read_plain(source), about=("read", source))
        if _content(target) == data:
            return None
        make_folder(target.parent)
        write_atomically(target, data)
    except (OSError, ValueError) as error:
        may_pass = isinstance(error, OSError | AwayError)
        what = f"cannot be copied: {error.strerror}" if isinstance(error, OSError) else str(error)
        problem = Problem(None, where, f"{source} {what}", may_pass=may_pass)
        if not may_pass or not target.is_file():
            return problem
        log.warning("%s; the copy of an earlier start is used", problem)
    return None


def _content(path: Path) -> bytes | None:
    try:
        return read_plain(str(path))
    except ValueError:
        return None


def read_plain(path: str) -> bytes:
    """Return a file's bytes, at most MAX_FILE_BYTES; it is never followed. Raises ValueError, AwayError for now."""
    try:
        _refuse_special(os.lstat(path))  # before it is opened: to open a device can already do something
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _refuse_special(os.fstat(descriptor))
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise AwayError(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES >> 20} MiB, which no such file needs")
    return data


def _refuse_special(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise ValueError("is a symbolic link, which may change where it leads; name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is no regular file")


def check_ignored(config: Config, sizes: Mapping[str, tuple[int, int]]) -> list[Problem]:
    """Examine the files as the workers will read them; nothing is changed.

    `sizes` has (height, width) of the active model of each slot that has one: the others' pixels cannot be compared.
    """
    return [finding.problem() for finding in _examine(config, sizes, configured(config))]


def _examine(config: Config, sizes: Mapping[str, tuple[int, int]], sources: Mapping[str, IgnoreFiles]) -> list[Finding]:
    asked: list[dict[str, Any]] = []
    for number, camera in enumerate(config.cameras):
        height, width = sizes.get(camera.slot, (0, 0))
        files = sources.get(camera.name)
        if files is not None:
            named = {key: getattr(files, key) for key in KEYS}
            asked.append({"number": number, "height": height, "width": width, **named})
    if not asked:
        return []
    command = [sys.executable, "-m", "agent.worker.ignored", json.dumps(asked)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        answer, errors = process.communicate(timeout=EXAMINED_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # on a dead share it does not end
            process.communicate(timeout=ENDED_SECONDS)
        message = f"its files could not be read within {EXAMINED_SECONDS:g} s (a share that hangs?)"
        return [Finding(one["number"], "", message, AWAY) for one in asked]
    if process.returncode != 0:
        last = (errors.decode(errors="replace").strip().splitlines() or [""])[-1]
        message = f"ignore_pixels and ignore_mask could not be examined: {last[:200]}"
        kind = AWAY if process.returncode == -signal.SIGKILL else ""  # for lack of memory, which passes
        return [Finding(one["number"], "", message, kind) for one in asked]
    return [Finding(*one) for one in json.loads(answer)]
