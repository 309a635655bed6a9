"""Goes through everything that there is to examine, in an order that helps: what is wrong first explains the rest."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.doctor.box import examine_box, examine_memory
from agent.cli.doctor.broker import try_broker
from agent.cli.doctor.cameras import look_at_cameras
from agent.cli.doctor.finding import Finding
from agent.cli.doctor.ledger import newer_ledger
from agent.cli.doctor.speed import measure_models
from agent.cli.doctor.walls import UNIT, ask_unit, forbidden, is_about, with_credentials, with_environment
from agent.config.check import check_environment
from agent.config.file import ConfigError, Problem, load_config
from agent.config.ignored import check_ignored
from agent.control.endpoint import NotRunningError, ask
from agent.files import free_bytes
from agent.models.store import Store
from agent.patience import LOOK_SECONDS, within
from agent.running import announced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config import Config


def examine(config_path: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything; nothing is changed."""
    findings = [*examine_box()]
    unit = _unit_of(config_path)
    try:
        config = load_config(config_path, with_environment(environ, unit))
    except ConfigError as error:
        return findings + [Finding("bad", "configuration", f"{config_path}: {problem}") for problem in error.problems]
    findings.append(Finding("good", "configuration", f"{config_path} is readable"))
    config = with_credentials(config, unit)
    problems = _on_this_machine(config, config_path, unit)
    findings += [Finding("note" if p.warning else "bad", "configuration", str(p)) for p in problems]
    findings += _unit_findings(unit)
    findings += _not_applied(announced(config_path, environ) or config.agent.state_folder)
    findings += examine_memory(config)
    findings += _disks(config)
    findings += measure_models(config)
    findings.append(try_broker(config))
    return findings


def load_as_the_service(config_path: Path, environ: Mapping[str, str]) -> Config:
    """Read a configuration with what the installed unit sets of it. Raises ConfigError."""
    return load_config(config_path, with_environment(environ, _unit_of(config_path)))


def problems_of(config: Config, config_path: Path) -> list[Problem]:
    """Return what is wrong with a configuration on this machine and with this broker; nothing is changed.

    That nobody answers at the broker's address is no problem of the configuration: the service waits for it.
    """
    unit = _unit_of(config_path)
    config = with_credentials(config, unit)
    broker = try_broker(config)
    refused = [Problem(None, "mqtt", broker.detail, warning=True)] if broker.level == "bad" else []
    return [*_on_this_machine(config, config_path, unit), *refused]


def _unit_of(config_path: Path) -> dict[str, str]:
    """Return the settings of the unit that runs with this file; empty where there is none."""
    unit = ask_unit()
    return unit if is_about(unit, config_path) else {}


def _on_this_machine(config: Config, config_path: Path, unit: dict[str, str]) -> list[Problem]:
    return [
        *check_environment(config),
        *check_ignored(config, Store(config.agent.state_folder / "store").active_sizes(config.slots)),
        *(forbidden(config, config_path, unit) if unit else []),
        *newer_ledger(config.agent.state_folder),
        *look_at_cameras(config),
    ]


def _unit_findings(unit: dict[str, str]) -> Iterator[Finding]:
    """Say how far what was found holds for the service."""
    if not unit:
        yield Finding("note", "unit", f"no {UNIT} with this configuration: what its walls would forbid is not known")
        return
    yield Finding("good", "unit", f"{UNIT} was asked what its walls forbid")
    user = unit.get("User") or "root"
    if os.geteuid() == 0 and user != "root":
        detail = f"this user may read and write everything; the service is {user}: `sudo -u {user} strip-agent doctor`"
        yield Finding("note", "user", detail)


def _not_applied(state_folder: Path) -> Iterator[Finding]:
    """Ask the service, where one runs and this user may ask, whether the file says what it runs with."""
    try:
        found = ask(state_folder / "control.sock", {"command": "status"}).get("configuration", {})
    except (NotRunningError, OSError, ValueError):
        return
    if changes := found.get("changes"):
        restart = found["needs_restart"]
        what = f"needs a restart ({'; '.join(restart)})" if restart else "`systemctl reload strip-agent` applies it"
        yield Finding("note", "configuration", f"not what the service runs with: {'; '.join(changes)}; {what}")


def _disks(config: Config) -> Iterator[Finding]:
    for what, folder in (("state folder", config.agent.state_folder), ("heatmap folder", config.heatmap_folder)):
        free_gib = within(LOOK_SECONDS, partial(_free_gib, folder), about=("free", folder))
        if free_gib is None:
            yield Finding("bad", what, f"{folder} does not answer (a share that hangs?)")
        else:
            enough = free_gib >= config.heatmaps.min_free_gib
            yield Finding("good" if enough else "bad", what, f"{folder}: {free_gib:.1f} GiB free")


def _free_gib(folder: Path) -> float:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    return free_bytes(existing) / 2**30
