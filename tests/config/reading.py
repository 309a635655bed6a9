"""Configurations out of a text, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.config.file import ConfigError, Problem, load_config
from agent.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import Config

CAMERA = "cameras: [{name: top, folder: /srv/cameras/top}]\n"


def load(tmp_path: Path, text: str | bytes, **environ: str) -> Config:
    """Load a configuration of this text and this environment."""
    path = tmp_path / "agent.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, environ)


def problems_of(tmp_path: Path, text: str | bytes, **environ: str) -> list[Problem]:
    """Return the problems of a configuration that has some."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    assert caught.value.exit_code is ExitCode.CONFIG
    return caught.value.problems


def the_problem_of(tmp_path: Path, text: str | bytes, **environ: str) -> Problem:
    """Return the only problem of a configuration that has exactly one."""
    problems = problems_of(tmp_path, text, **environ)
    assert len(problems) == 1, problems
    return problems[0]
