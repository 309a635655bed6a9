"""The configuration's file while the service runs: what it says now, against what runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from agent.config.check import check_environment
from agent.config.difference import Difference, difference
from agent.config.file import ConfigError, load_config
from agent.patience import LOOK_SECONDS, answer_within

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.config import Config


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What the file says. `config` is None where the service could not run with it, and `problems` say why."""

    config: Config | None
    difference: Difference = field(default_factory=Difference)
    problems: tuple[str, ...] = ()

    @property
    def state(self) -> Literal["same", "differs", "invalid"]:
        """Compared with what runs."""
        if self.config is None:
            return "invalid"
        return "differs" if self.difference.changes else "same"


class ConfigFile:
    """The file that the service was started with, and the environment that lies over it. Used by one thread."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self._environ = environ
        self._seen: object = None  # what the last reading found at the path

    def has_changed(self) -> bool:
        """Say whether it may say something else than at the last reading."""
        return self._look() != self._seen

    def read(self, running: Config) -> OnDisk:
        """Read it as a start would, with the folders and files of this machine; nothing is raised."""
        self._seen = self._look()
        try:
            config = answer_within(
                LOOK_SECONDS, partial(load_config, self.path, self._environ), about=("read", self.path)
            )
        except ConfigError as error:
            return OnDisk(None, problems=tuple(map(str, error.problems)))
        except TimeoutError as error:
            return OnDisk(None, problems=(f"{self.path} {error.strerror}",))
        found = difference(running, config)
        bad = [problem for problem in check_environment(config) if not problem.warning] if found.changes else []
        return OnDisk(None if bad else config, found, tuple(map(str, bad)))

    def _look(self) -> object:
        try:
            found = answer_within(LOOK_SECONDS, partial(os.stat, self.path), about=("stat", self.path))
        except OSError as error:  # a share that hangs is one, too
            return error.errno
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
