"""The drop-in that opens the unit's walls as far as the configuration needs, and no further."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.doctor.walls import ask_unit, openings
from agent.errors import ExitCode, Fatal
from agent.files import make_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import Config

DROP_IN = Path("/etc/systemd/system/strip-agent.service.d/50-setup.conf")
HEAD = """# Made by `strip-agent setup` from the configuration, and made anew each time it runs. What you add belongs
# into another file: systemctl edit strip-agent
[Service]
"""


def drop_in(config: Config, config_path: Path, unit: Mapping[str, str]) -> str:
    """Write what opens the walls of a unit, as its settings are without this drop-in; "" where nothing is needed."""
    lines = openings(config, config_path, unit)
    return HEAD + "".join(f"{line}\n" for line in lines) if lines else ""


def open_walls(config: Config, config_path: Path) -> str:
    """Bring the drop-in in line with the configuration; say what it opens, "" where the unit's own walls fit."""
    before = DROP_IN.read_text(encoding="utf-8") if DROP_IN.exists() else ""
    if before:  # the unit is to be asked as it is without it
        DROP_IN.unlink()
        _systemctl("daemon-reload")
    unit = ask_unit()
    if not unit:
        raise Fatal(ExitCode.FAILED, "there is no strip-agent.service here: run install.sh first")
    text = drop_in(config, config_path, unit)
    if text:
        make_folder(DROP_IN.parent)
        write_atomically(DROP_IN, text.encode())
        _systemctl("daemon-reload")
    if text == before:
        return ""
    opened = ", ".join(text.removeprefix(HEAD).split("\n")[:-1])
    return f"{DROP_IN} opens what the configuration needs: {opened}" if text else f"{DROP_IN} is not needed any more"


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Fatal(ExitCode.FAILED, f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
