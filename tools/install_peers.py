"""Installs the peers into build/peers/: programs of others that the tests drive, at the versions of the lock files.

Every folder of tests/peers/ with a package-lock.json becomes one of npm's, every `requirements-NAME.txt` a virtual
environment of its own: some of them want versions that the agent cannot live with. What is installed already is left.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "tests" / "peers"
INSTALLED = ROOT / "build" / "peers"
OLDEST_NODE = 20
NPM = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]


def main() -> int:
    """Install those that are named, or all of them; 1 when one cannot be had."""
    named = sys.argv[1:]
    INSTALLED.mkdir(parents=True, exist_ok=True)
    lacks = _lacks()
    if lacks:
        print(f"{lacks}: peers written for Node.js are left out, and their tests skipped")
    peers = {lock.parent.name: lock for lock in sorted(PEERS.glob("*/package-lock.json")) if not lacks}
    peers |= {file.stem.removeprefix("requirements-"): file for file in sorted(PEERS.glob("requirements-*.txt"))}
    done = [_install(name, lock) for name, lock in peers.items() if not named or name in named]
    return 0 if all(done) else 1


def _lacks() -> str:
    """Say why nothing written for Node.js can be had here, "" where it can."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "npm is not installed"
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    too_old = int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE
    return f"Node.js {version} is older than {OLDEST_NODE}" if too_old else ""


def _install(name: str, lock: Path) -> bool:
    target, stamp = INSTALLED / name, INSTALLED / f"{name}.sha256"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return True
    print(f"installing {name} into {target}", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    try:
        if lock.suffix == ".json":
            target.mkdir()
            shutil.copy(lock, target)
            shutil.copy(lock.with_name("package.json"), target)
            subprocess.run(NPM, cwd=target, check=True)
        else:
            venv.create(target, with_pip=True)
            pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--no-deps", "--requirement", str(lock)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name} cannot be installed: {error}", file=sys.stderr)
        return False
    stamp.write_text(digest)  # last, so that an interrupted installation is done again
    return True


if __name__ == "__main__":
    sys.exit(main())
