"""A bundle as `make bundle` makes it, but with the agent's wheel alone: laid down in a second, it cannot run."""

from __future__ import annotations

import platform
import re
import sys
import zipfile
from typing import TYPE_CHECKING

from tests.helpers.repository import ROOT
from tools.packaging.bundle import finish

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = ".".join(map(str, sys.version_info[:2]))
PACKAGES = ("agent/cli", "agent/contract")  # enough to see that it is unpacked and compiled


def small_bundle(folder: Path, version: str) -> Path:
    """Make a bundle of this source under another version."""
    name = f"strip_agent-{version}-py3-none-any.whl"
    (folder / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(folder / "wheels" / name, "w") as wheel:
        text = (ROOT / "agent/__init__.py").read_text(encoding="utf-8")
        wheel.writestr("agent/__init__.py", re.sub(r'(?<=__version__ = )".*"', f'"{version}"', text))
        for package in PACKAGES:
            for path in sorted((ROOT / package).glob("*.py")):
                wheel.write(path, path.relative_to(ROOT))
        info = f"strip_agent-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: strip-agent\nVersion: {version}\n")
        wheel.writestr(f"strip_agent-{version}.data/scripts/never-unpacked", "")
    finish(folder, ROOT, version, platform.machine(), {PYTHON: [name]})
    return folder


def contents(root: Path) -> dict[str, str]:
    """Give all below the root of a box: modes, owners, links, contents; of compiled files only that they are there."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        facts = [oct(status.st_mode), str(status.st_uid), str(status.st_gid)]
        if path.is_symlink():
            facts.append(str(path.readlink()))
        elif path.is_file() and path.suffix != ".pyc":
            facts.append(path.read_bytes().decode(errors="backslashreplace"))
        found[str(path.relative_to(root))] = " ".join(facts)
    return found
