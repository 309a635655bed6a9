"""pause, resume, threshold and rescan on the command line, with and without a service."""

from __future__ import annotations

import json
import os
import pwd
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner

from agent.cli import __main__ as cli
from agent.ledger import open_ledger

if TYPE_CHECKING:
    from pathlib import Path

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the configuration of a box that has run once."""
    values = {
        "agent": {"state_folder": str(tmp_path / "state")},
        "cameras": [{"name": "top", "folder": str(tmp_path / "top")}],
    }
    (tmp_path / "state").mkdir()
    open_ledger(tmp_path / "state" / "ledger.db").database.close()
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def run(config: Path, *arguments: str, exit_code: int = 0) -> str:
    """Run a command and return what it printed."""
    done = CliRunner().invoke(cli.cli, [*arguments, "--config", str(config)])
    assert done.exit_code == exit_code, done.output
    return done.output


def test_pausing_without_a_service_is_kept_and_told(config: Path, tmp_path: Path) -> None:
    """It holds from the next start on; the event waits for the broker."""
    assert "paused" in run(config, "pause", "top")
    assert "is paused since 20" in run(config, "pause", "top")
    assert f"PAUSED by {ME}" in run(config, "status")
    assert "resumed" in run(config, "resume", "top")
    assert "was not paused" in run(config, "resume", "top")
    assert "PAUSED" not in run(config, "status")
    ledger = open_ledger(tmp_path / "state" / "ledger.db")
    told = [json.loads(message.payload) for message in ledger.outbox.next_outbox_messages(0, 10)]
    ledger.database.close()
    assert [(event["command"], event["by"], event["way"]) for event in told] == [
        (command, ME, "command_line") for command in ("pause", "pause", "resume", "resume")
    ]


def test_a_threshold_is_shown_set_and_taken_back(config: Path) -> None:
    """With whose it is; numbers that no score can reach are refused with what is allowed."""
    assert "camera top: the model's, else 0.5" in run(config, "threshold", "top")
    assert "camera top: 0.25\n0.25 was set by" in run(config, "threshold", "top", "0.25")
    assert f"threshold 0.25, set by {ME}" in run(config, "status")
    assert json.loads(run(config, "threshold", "top", "--json"))["source"] == "operator"
    assert "from 0 to 1" in run(config, "threshold", "top", "1.5", exit_code=1)
    assert "value: input should be a finite number" in run(config, "threshold", "top", "nan", exit_code=1)
    assert "camera top: the model's, else 0.5" in run(config, "threshold", "top", "clear")


@pytest.mark.parametrize("command", [["pause"], ["resume"], ["threshold"], ["threshold", "0.5"], ["rescan"]])
def test_a_camera_that_is_not_configured_is_named(config: Path, command: list[str]) -> None:
    """With those that are."""
    said = run(config, command[0], "bottom", *command[1:], exit_code=1)
    assert "there is no camera 'bottom'; configured are top" in said


def test_a_rescan_needs_the_service(config: Path) -> None:
    """Without one there is nothing that reads folders; at its start it does."""
    assert "the service is not running" in run(config, "rescan", exit_code=1)


def test_what_operators_set_for_a_camera_that_is_gone_can_be_taken_back(config: Path) -> None:
    """Else it would wait for the camera's return for ever."""
    run(config, "pause", "top")
    run(config, "threshold", "top", "0.5")
    values = yaml.safe_load(config.read_text())
    values["cameras"][0]["name"] = "side"
    config.write_text(yaml.safe_dump(values))
    assert "0.5 was set by" in run(config, "threshold", "top")
    assert "resumed" in run(config, "resume", "top")
    run(config, "threshold", "top", "clear")
    assert "PAUSED" not in run(config, "status")
    assert "threshold" not in run(config, "status")


def test_a_threshold_of_another_unit_is_shown_as_not_used(config: Path) -> None:
    """After `scoring.method: area` a probability says nothing."""
    run(config, "threshold", "top", "0.5")
    values = yaml.safe_load(config.read_text())
    values["scoring"] = {"method": "area", "threshold": 100}
    config.write_text(yaml.safe_dump(values))
    said = run(config, "threshold", "top")
    assert "camera top: 100 (scoring.threshold)" in said
    assert "NOT USED" in said
