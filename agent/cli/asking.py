"""Facts for a command: from the running service, or, without one, from its files."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.terminal import complain, fail, in_file
from agent.config.file import ConfigError, load_config, variable
from agent.config.sections import AgentSection
from agent.control.endpoint import NotRunningError, ask, user_name
from agent.running import announced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import Config

_STATE_FOLDER = re.compile(r"""\bstate_folder\s*:\s*["']?([^"'\s,}#][^"',}\n#]*)""")
_LARGEST_FILE_BYTES = 1 << 20


def facts_of(config_path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the running service; without one take the lock and answer here. Exits with a sentence where that fails.

    A configuration that was spoilt while the service runs does not matter to the service, which has read it at its
    start; so it is asked all the same, and what is wrong is said beside its answer, as `config_problems` too.
    Raises ConfigError where there is no service to ask either.
    """
    try:
        config = load_config(config_path, os.environ)
    except ConfigError as error:
        answer = _from_a_service_with_an_older_configuration(config_path, request)
        if answer is None:
            raise
        problems = [in_file(config_path, problem) for problem in error.problems]
        for problem in problems:
            complain(problem)
        complain("the service runs on with what it read before; it would not start again with this one")
        return _told(answer) | {"config_problems": problems}
    answer = _from_the_service(config.agent.state_folder, request)
    if answer is None:
        answer = _from_a_service_elsewhere(config_path, config, request)
    return _told(_answer_here(config, request) if answer is None else answer)


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer.pop("ok"):
        fail(answer["error"])
    return answer


def _from_the_service(state_folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the running service's answer; None where there is no service."""
    try:
        return ask(state_folder / "control.sock", request)
    except NotRunningError:
        return None
    except PermissionError:
        fail(f"this user may not talk to the service ({state_folder}/control.sock): use its user or sudo")
    except OSError as error:
        fail(f"the service does not answer: {error}")


def _from_a_service_elsewhere(config_path: Path, config: Config, request: dict[str, Any]) -> dict[str, Any] | None:
    """Ask the service that was started before the file named another state folder; None where there is none."""
    folder = announced(config_path, os.environ)
    if folder is None or folder == config.agent.state_folder:
        return None
    answer = _from_the_service(folder, request)
    if answer is not None:
        edited = f"agent.state_folder is {config.agent.state_folder} in {config_path} now"
        complain(f"{edited}; the service, which answers here, has {folder} until it is restarted")
    return answer


def _from_a_service_with_an_older_configuration(config_path: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    told = announced(config_path, os.environ)
    for folder in dict.fromkeys([*([told] if told else []), *_possible_state_folders(config_path)]):
        with contextlib.suppress(NotRunningError, OSError):  # what is told then is what is wrong with the file
            return ask(folder / "control.sock", request)
    return None


def _possible_state_folders(config_path: Path) -> Iterator[Path]:
    """Where the state folder may be: by the environment, by the text of a broken file, by default."""
    by_environment = os.environ.get(variable(("agent", "state_folder")), "")
    try:
        with config_path.open("rb") as file:
            text = file.read(_LARGEST_FILE_BYTES).decode(errors="replace")
    except OSError:
        text = ""
    by_file = [found.strip() for found in _STATE_FOLDER.findall(text)]
    default = str(AgentSection().state_folder)
    folders = dict.fromkeys(filter(None, [by_environment, *by_file, default]))
    return (Path(folder) for folder in folders if Path(folder).is_absolute() and "\0" not in folder)


def _answer_here(config: Config, request: dict[str, Any]) -> dict[str, Any]:
    from agent.control.commands import handle  # noqa: PLC0415 - a running service has them already
    from agent.control.context import Context  # noqa: PLC0415
    from agent.ledger import open_ledger  # noqa: PLC0415
    from agent.ownership import take_lock  # noqa: PLC0415

    if not (config.agent.state_folder / "ledger.db").exists():
        fail(f"there is no ledger in {config.agent.state_folder} yet: start the service once")
    by = user_name(os.getuid())
    become_the_owner(config.agent.state_folder)
    lock = take_lock(config.agent.state_folder)
    ledger = open_ledger(config.agent.state_folder / "ledger.db")
    try:
        return handle(Context(config, ledger, {}), request, by)
    finally:
        ledger.database.close()
        lock.close()


def become_the_owner(folder: Path) -> None:
    """As root act as the service's user, or the service could not use the files that are made here."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
