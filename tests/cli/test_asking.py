"""Commands whose configuration file was spoilt while the service runs on with what it read at its start."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli import show
from agent.cli.asking import facts_of
from agent.cli.terminal import say
from agent.config import Config
from agent.config.file import ConfigError
from agent.control.commands import handle
from agent.control.context import Context
from agent.control.endpoint import ControlServer
from agent.ledger import open_ledger
from agent.running import announce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = "agent: {{state_folder: {state}}}\ncameras: [{{name: top, folder: /srv/cameras/top}}]\n"
SPOILT = {
    "unknown key": GOOD + "speed: 3\n",
    "no yaml": GOOD + "cameras: [\n",
    "tab": "\tagent:\n" + GOOD,
    "no camera": "agent:\n  state_folder: '{state}'   # there\ncameras: []\n",
    "wrong type": 'agent: {{name: [], state_folder: "{state}"}}\ncameras: 7\n',
    "twice": GOOD + GOOD,
    "no text": GOOD + "\xff\n",
}  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Serve commands from a state folder, as a running service does."""
    folder = tmp_path / "state"
    folder.mkdir()
    config = Config.model_validate(
        {"agent": {"state_folder": str(folder)}, "cameras": [{"name": "top", "folder": "/srv/cameras/top"}]}
    )
    ledger = open_ledger(folder / "ledger.db")
    context = Context(config, ledger, {}, live=dict)
    server = ControlServer(folder / "control.sock", lambda request, user: handle(context, request, user))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.step(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder
    stop.set()
    thread.join()
    server.close()
    ledger.database.close()


@pytest.mark.parametrize("broken", SPOILT)
def test_a_spoilt_file_does_not_hide_the_running_service(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    """`status` shows how the service is, and names file and line of what would keep it from starting again."""
    config = tmp_path / "agent.yaml"
    config.write_text(SPOILT[broken].format(state=state), encoding="latin-1")
    facts = facts_of(config, {"command": "status"})
    assert facts["running"]
    assert facts["config_problems"]
    assert all(problem.startswith(f"{config}: line ") for problem in facts["config_problems"]), facts
    say(facts, as_json=False, text=show.status)
    printed = capsys.readouterr()
    assert f"NOT USABLE: {config}: line " in printed.out
    assert "insp1: running" in printed.out
    assert "runs on" in printed.err
    say(facts, as_json=True, text=show.status)
    assert json.loads(capsys.readouterr().out)["config_problems"] == facts["config_problems"]


def test_a_lost_file_does_not_hide_the_service_that_the_environment_names(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the state folder is set by the environment the file is not needed to find it."""
    monkeypatch.setenv("STRIP_AGENT__AGENT__STATE_FOLDER", str(state))
    facts: dict[str, Any] = facts_of(tmp_path / "gone.yaml", {"command": "status"})
    assert facts["config_problems"] == [f"{tmp_path / 'gone.yaml'}: cannot be read: No such file or directory"]


@pytest.mark.parametrize("text", [GOOD, SPOILT["unknown key"]], ids=["good", "spoilt"])
def test_a_service_whose_state_folder_was_edited_is_found(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """The file names another folder, with a ledger even: the service that runs answers, and that is said."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    config, other = tmp_path / "agent.yaml", tmp_path / "other"
    announce(config, state, os.environ)
    other.mkdir()
    open_ledger(other / "ledger.db").database.close()
    config.write_text(text.format(state=other))
    assert facts_of(config, {"command": "status"})["running"]
    said = capsys.readouterr().err
    assert "runs on" in said or f"has {state} until it is restarted" in said


def test_another_service_is_not_asked(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the installed service says of itself is about its own configuration file only."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    announce(tmp_path / "agent.yaml", state, os.environ)
    other = tmp_path / "try" / "agent.yaml"
    other.parent.mkdir()
    open_ledger(other.parent / "ledger.db").database.close()
    other.write_text(GOOD.format(state=other.parent))
    assert not facts_of(other, {"command": "status"})["running"]


def test_without_a_service_a_spoilt_file_is_the_answer(tmp_path: Path) -> None:
    """Nobody is there to ask: the problems, with their file."""
    config = tmp_path / "agent.yaml"
    config.write_text(SPOILT["unknown key"].format(state=tmp_path / "nowhere"))
    with pytest.raises(ConfigError) as refused:
        facts_of(config, {"command": "status"})
    assert refused.value.file == config


def test_a_good_file_is_not_complained_about(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No word about the configuration where nothing is wrong with it."""
    config = tmp_path / "agent.yaml"
    config.write_text(GOOD.format(state=state))
    assert "config_problems" not in facts_of(config, {"command": "status"})
    assert capsys.readouterr().err == ""
