"""Goes through the setup of a box, step by step; every step can be done again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.setup.answers import Answers, ask, with_defaults
from agent.cli.setup.fill_in import fill_in, is_shipped
from agent.cli.setup.place import SERVICE, place
from agent.cli.setup.sftp import allow
from agent.cli.setup.walls import open_walls
from agent.config.file import ConfigError, load_config
from agent.errors import ExitCode, Fatal
from agent.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT = "strip-agent.service"


def set_up(config_path: Path, given: Answers, tell: Callable[[str], None], *, guided: bool, starts: bool) -> int:
    """Set the box up and return the exit code of doctor. Raises Fatal where it cannot go on."""
    if os.geteuid() != 0:
        raise Fatal(ExitCode.FAILED, "setup makes folders and gives rights: run it as root (sudo, su or a root shell)")
    answers = configure(config_path, given, tell, guided=guided)
    config = load_config(config_path, os.environ)
    for done in place(config, answers):
        tell(done)
    if answers.sftp_pushers:
        for done in allow(answers.sftp_pushers, config.models.inbox):
            tell(done)
    opened = open_walls(config, config_path)
    if opened:
        tell(opened)
    if starts:
        _start(tell, same_walls=not opened)
    tell("doctor, as the service's user:")
    command = [sys.executable, "-m", "agent.cli", "doctor", "--config", str(config_path)]
    return subprocess.run(command, check=False, cwd="/", user=SERVICE, group=SERVICE, extra_groups=[]).returncode


def configure(config_path: Path, given: Answers, tell: Callable[[str], None], *, guided: bool) -> Answers:
    """Write the answers into a configuration that nobody has edited yet; one that somebody has is left as it is."""
    try:
        text = config_path.read_text(encoding="utf-8")
    except OSError as error:
        raise Fatal(ExitCode.FAILED, f"{config_path}: {error.strerror}: run install.sh first") from error
    if not is_shipped(text):
        if given.about_configuration:
            detail = f"{config_path} has been edited: name, cameras and broker are changed there; then run setup again"
            raise Fatal(ExitCode.FAILED, detail)
        tell(f"{config_path} has been edited and stays as it is")
        return given
    answers = ask(given) if guided else with_defaults(given)
    password_file = config_path.with_name("mqtt-password")
    text = fill_in(text, answers, password_file)
    _check(text)
    if answers.username:
        _give(password_file, f"{answers.password}\n".encode())
        tell(f"{password_file} holds the password; root and the service read it")
    _give(config_path, text.encode())
    tell(f"{config_path} names the box {answers.name}, {len(answers.cameras)} cameras and the broker {answers.broker}")
    return answers


def _check(text: str) -> None:
    """Hold the text to the rules before it becomes the configuration. Raises ConfigError about the answers."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            load_config(Path(file.name), {})
        except ConfigError as error:
            raise ConfigError([*error.problems], None) from error


def _give(path: Path, content: bytes) -> None:
    """Write a file that root changes and the service reads, and nobody else sees at any moment."""
    before = os.umask(0o077)
    try:
        write_atomically(path, content)
    finally:
        os.umask(before)
    shutil.chown(path, "root", SERVICE)
    path.chmod(0o640)


def _start(tell: Callable[[str], None], *, same_walls: bool) -> None:
    """Have the service run with all that is new; without a restart, where it runs and a reload is enough."""
    reload = ["systemctl", "reload", UNIT]
    goes_on = same_walls and subprocess.run(reload, capture_output=True, check=False).returncode == 0
    for command in (["enable", UNIT], *([] if goes_on else [["restart", UNIT]])):
        done = subprocess.run(["systemctl", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            detail = f"systemctl {' '.join(command)}: {done.stderr.strip()}; see journalctl -u strip-agent"
            raise Fatal(ExitCode.FAILED, detail)
    goes_on_with = " on with this configuration, without a restart" if goes_on else ""
    tell(f"the service runs{goes_on_with}, and starts with the box")
