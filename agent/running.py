"""Where the service that runs keeps its state, for whoever asks it after its configuration has been edited.

The unit gives the service a runtime folder; what stands in it goes when the service does.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

FOLDER = Path("/run/strip-agent")  # the unit's RuntimeDirectory=
FILE = "service.json"
_FROM_SYSTEMD = "RUNTIME_DIRECTORY"


def announce(config_path: Path, state_folder: Path, environ: Mapping[str, str]) -> None:
    """Write down where the service with this configuration file keeps its state, where systemd gave it a folder."""
    folder = environ.get(_FROM_SYSTEMD)
    if not folder:
        return
    facts = {"config": os.path.realpath(config_path), "state_folder": str(state_folder)}
    try:
        write_atomically(Path(folder) / FILE, json.dumps(facts).encode() + b"\n")
    except OSError as error:
        log.warning("commands will not find this service once agent.state_folder is edited: %s", error)


def announced(config_path: Path, environ: Mapping[str, str]) -> Path | None:
    """Return where the service that was started with this file keeps its state; None where none has said so."""
    try:
        facts = json.loads((Path(environ.get(_FROM_SYSTEMD) or FOLDER) / FILE).read_bytes())
        is_it = facts["config"] == os.path.realpath(config_path)
        return Path(facts["state_folder"]) if is_it else None
    except (OSError, ValueError, KeyError, TypeError):  # no service, one of before this, or not for this user's eyes
        return None
