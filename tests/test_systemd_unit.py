"""The systemd unit, judged by systemd's own tools and against the code it starts."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.config import Config
from agent.control.for_pages import WEB_USER
from agent.errors import ExitCode
from tests.helpers.repository import ROOT

FOLDER = ROOT / "systemd"
UNIT, WEB_UNIT = FOLDER / "strip-agent.service", FOLDER / "strip-agent-web.service"
both = pytest.mark.parametrize("unit", [UNIT, WEB_UNIT], ids=lambda unit: unit.name)
EXPOSURE_LIMIT_TENTHS = 12  # of 100; an unprotected service has 92

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def service(unit: Path = UNIT) -> configparser.SectionProxy:
    """Return the unit's [Service] section; of keys that repeat, the last value."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read(unit)
    return parser["Service"]


@needs_systemd_analyze
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` is silent; the program is replaced by one that exists here."""
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"/opt/strip-agent/current/bin/(strip-agent|python)", sys.executable, UNIT.read_text()))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd_analyze
@both
def test_the_unit_is_well_protected(unit: Path) -> None:
    """The measure of exposure that systemd has stays at or below 1.2 of 10."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT_TENTHS}", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@both
def test_the_unit_restarts_after_everything_but_an_unusable_configuration(unit: Path) -> None:
    """A configuration that is wrong stays wrong; everything else is started again for ever."""
    text = unit.read_text()
    assert service(unit)["Restart"] == "always"
    assert service(unit)["RestartPreventExitStatus"] == str(ExitCode.CONFIG.value)
    assert "StartLimitIntervalSec=0" in text.split("\n[Service]\n")[0]


def test_stopping_takes_longer_than_a_strip() -> None:
    """With the defaults a strip that is under way is finished before systemd loses patience."""
    config = Config.model_validate({"cameras": [{"name": "top", "folder": "/srv/cameras/top"}]})
    assert int(service()["TimeoutStopSec"]) >= config.inference.deadline_seconds + 10
    assert int(service()["WatchdogSec"]) >= 3 * config.inference.deadline_seconds


def test_the_unit_leaves_memory_to_the_rest_of_the_box() -> None:
    """A share of what the box has, so that one rule fits every box; the kernel ends workers first, not the service."""
    assert service()["MemoryMax"] == "80%"
    assert service()["OOMPolicy"] == "continue"


def test_a_broker_on_the_box_outlives_the_agent() -> None:
    """At a reboot what was judged last is still published; ordering alone, for the broker may be elsewhere."""
    unit = UNIT.read_text().split("\n[Service]\n")[0]
    (after,) = (line for line in unit.splitlines() if line.startswith("After="))
    assert "mosquitto.service" in after.split()
    assert not any(line.startswith(("Wants=", "Requires=", "BindsTo=")) for line in unit.splitlines())


def test_the_page_runs_as_a_user_that_may_only_ask() -> None:
    """The service knows that user by its name, and grants it the page's questions; the page needs none of the rest."""
    page = service(WEB_UNIT)
    assert page["User"] == WEB_USER != service()["User"]
    assert f"m {WEB_USER} {service()['Group']}\n" in (FOLDER / "strip-agent.sysusers.conf").read_text()
    assert "ReadWritePaths" not in page
    assert "strip-agent-web" not in UNIT.read_text(), "the service needs no page"
    for path in ("ledger.db", "store"):
        assert f"-/var/lib/strip-agent/{path}" in WEB_UNIT.read_text()


def test_the_unit_owns_the_default_state_folder() -> None:
    """StateDirectory is what the configuration's default names."""
    config = Config.model_validate({"cameras": [{"name": "top", "folder": "/srv/cameras/top"}]})
    assert config.agent.state_folder == Path("/var/lib") / service()["StateDirectory"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give folders away")
@pytest.mark.parametrize(
    ("program", "name"),
    [("systemd-sysusers", "strip-agent.sysusers.conf"), ("systemd-tmpfiles", "strip-agent.tmpfiles.conf")],
)
def test_users_and_folders_are_created_as_written(tmp_path: Path, program: str, name: str) -> None:
    """The tools take the files: the user and groups first, then the folders that belong to them."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    (tmp_path / "etc").mkdir()
    if program == "systemd-tmpfiles":  # users and groups must be there already
        (tmp_path / "etc" / "group").write_text("root:x:0:\nstrip-agent:x:990:\nstrip-agent-push:x:991:\n")
        users = "root:x:0:0::/root:/bin/sh\nstrip-agent:x:990:990::/var/lib/strip-agent:/usr/sbin/nologin\n"
        (tmp_path / "etc" / "passwd").write_text(users)
    arguments = ["--create"] if program == "systemd-tmpfiles" else []
    command = [program, *arguments, f"--root={tmp_path}", str(FOLDER / name)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if program == "systemd-tmpfiles":
        assert (tmp_path / "srv/models/inbox").stat().st_mode & 0o7777 == 0o2775
    else:
        assert "strip-agent-push:" in (tmp_path / "etc/group").read_text()
