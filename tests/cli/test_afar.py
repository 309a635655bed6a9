"""`strip-agent logs` and `strip-agent support`: the journal as people read it, and one archive without secrets."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from agent.cli.__main__ import cli
from agent.cli.afar import readable

if TYPE_CHECKING:
    from pathlib import Path

JUDGED = '{"ts": "2026-11-29T06:49:26.132Z", "level": "info", "message": "top/6.tif ok score 0.0060", "strip_id": "32", "verdict": "ok"}'  # noqa: E501 - as it is
INVALID = '{"ts": "2026-11-29T06:49:27.132Z", "level": "warning", "message": "left/7.tif invalid empty_file", "strip_id": "33", "verdict": "invalid"}'  # noqa: E501
ABOUT = '{"ts": "2026-11-29T06:49:28.132Z", "level": "error", "message": "camera top: the folder is away"}'
SYSTEMD = "Started strip-agent.service \x1b[31m"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a journalctl on PATH that says these lines, and writes down what it was asked for."""
    program = tmp_path / "bin/journalctl"
    program.parent.mkdir()
    (tmp_path / "journal").write_text(f"{JUDGED}\n{INVALID}\n{ABOUT}\n{SYSTEMD}\n")
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat {tmp_path}/journal\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["top/6.tif ok", "warning: left/7.tif", "error: camera top", "Started"]),
        (["--camera", "top"], ["top/6.tif ok", "error: camera top"]),
        (["--invalid"], ["warning: left/7.tif"]),
        (["--invalid", "--camera", "top"], []),
    ],
)
@pytest.mark.usefixtures("journal")
def test_the_journal_is_readable_and_can_be_chosen_from(options: list[str], shown: list[str]) -> None:
    """One line each, without braces, control characters or what was not asked for."""
    done = CliRunner().invoke(cli, ["logs", *options])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert len(lines) == len(shown)
    assert all(word in line for word, line in zip(shown, lines, strict=True))
    assert "{" not in done.output
    assert "\x1b" not in done.output


def test_since_takes_an_age(journal: Path) -> None:
    """As in the other commands; journalctl gets a time."""
    CliRunner().invoke(cli, ["logs", "--since", "8h"])
    assert "--since=@" in (journal / "asked").read_text()


def test_a_line_that_is_no_entry_is_systemds_own() -> None:
    """JSON of another shape is shown as it stands."""
    assert readable('{"a": 1}', None, only_invalid=False) == '{"a": 1}'
    assert readable("[]", "top", only_invalid=False) is None


def test_the_archive_says_what_helps_and_no_secret(journal: Path, tmp_path: Path) -> None:
    """Also of a box whose service never started and whose configuration is broken."""
    secret = tmp_path / "mqtt-password"
    secret.write_text("hunter2\n")
    config = tmp_path / "agent.yaml"
    config.write_text(
        f"agent: {{state_folder: {tmp_path}/state}}\nspeed: 3\nmqtt: {{username: u, password_file: {secret}}}\n"
    )
    done = CliRunner().invoke(cli, ["support", "--config", str(config), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (archive,) = tmp_path.glob("strip-agent-support-*.tar.gz")
    assert archive.stat().st_mode & 0o077 == 0
    with tarfile.open(archive) as opened:
        found = {name.split("/", 1)[1]: opened.extractfile(name).read() for name in opened.getnames()}  # type: ignore[union-attr]
    assert {
        "agent.yaml",
        "versions.txt",
        "status.json",
        "audit.json",
        "doctor.json",
        "journal.txt",
        "disks.txt",
    } <= set(found)
    assert b"there is no such key" in found["check-config.json"]
    assert b"numpy " in found["versions.txt"]
    assert b"left/7.tif" in found["journal.txt"]
    assert b"hunter2" not in b"".join(found.values())
    assert journal.exists()
