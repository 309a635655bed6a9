"""Wheels for a box: which ones, held to their hashes, and the agent's own.

`wheels.lock` beside this file has the hash of every wheel that a bundle may contain. It is made by `make wheels-lock`
from pyproject.toml and constraints.txt, and pip takes nothing that is not in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("wheels.lock")
PYTHONS = ("3.11", "3.12", "3.13")
ARCHES = ("x86_64", "aarch64")
EXTRAS = ("metrics", "web")  # small, and a box without internet cannot get them later
GLIBC_MINOR = 28  # glibc 2.28: what Debian 10, Ubuntu 20.04 and RHEL 8 have
OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
SETUPTOOLS = "setuptools==84.2.1"  # the agent's wheel then is the same, byte for byte, wherever it is built


class BuildError(Exception):
    """It cannot be built; the message is shown to the person."""


def platforms(arch: str) -> list[str]:
    """Name the platforms of wheels that run on glibc 2.28, as pip knows them; the newest first."""
    names = []
    for minor in range(GLIBC_MINOR, 4, -1):
        names.append(f"manylinux_2_{minor}_{arch}")
        if minor in OLD_NAMES:
            names.append(f"{OLD_NAMES[minor]}_{arch}")
    return names


def pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run this interpreter's pip; raises BuildError with its words."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | (environment or {}))
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[2:5])} failed:\n{done.stderr.strip()[-2000:]}")


def foreign(arch: str, python: str) -> list[str]:
    """Give pip's options for wheels of another machine's Python."""
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    return options + [f"--platform={name}" for name in platforms(arch)]


def sha256(path: Path) -> str:
    """Give the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_lock() -> None:
    """Resolve pyproject.toml under constraints.txt for every Python and processor, and write down the hashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    hashes: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for arch in ARCHES:
            for python in PYTHONS:
                folder = Path(scratch, arch, python)
                options = [f"--constraint={ROOT / 'constraints.txt'}", f"--dest={folder}", *foreign(arch, python)]
                pip("download", *options, *wanted)
                for wheel in folder.iterdir():
                    name, version, _ = wheel.name.split("-", 2)
                    pinned = f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"
                    hashes.setdefault(pinned, set()).add(sha256(wheel))
    lines = [
        "# Made by `make wheels-lock`: every wheel that a bundle may contain. constraints.txt decides on the versions."
    ]
    for pinned, found in sorted(hashes.items()):
        lines += [" \\\n    ".join([pinned, *(f"--hash=sha256:{one}" for one in sorted(found))])]
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")


def fetch(arch: str, pythons: tuple[str, ...], folder: Path) -> None:
    """Put the wheels of wheels.lock into `folder`, those that are there already by their hash included.

    Each appears there whole: another bundle may be built from the same folder at the same time.
    """
    for python in pythons:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            options = [
                "--no-deps",
                "--require-hashes",
                f"--requirement={LOCK}",
                f"--dest={scratch}",
                f"--find-links={folder}",
            ]
            pip("download", *options, *foreign(arch, python))
            for wheel in Path(scratch).iterdir():
                wheel.replace(folder / wheel.name)


def locked(folder: Path) -> list[Path]:
    """Give the wheels of a folder that are in wheels.lock; an older lock may have left others."""
    hashes = set(re.findall(r"sha256:([0-9a-f]{64})", LOCK.read_text(encoding="utf-8")))
    return [path for path in sorted(folder.glob("*.whl")) if sha256(path) in hashes]


def resolve(arch: str, python: str, folder: Path) -> list[str]:
    """Name the wheels of `folder` that the agent needs on this Python, found without any network."""
    with tempfile.TemporaryDirectory() as scratch:
        options = ["--isolated", "--no-index", f"--find-links={folder}", f"--dest={scratch}", *foreign(arch, python)]
        pip("download", *options, f"strip-agent[{','.join(EXTRAS)}]")
        return sorted(path.name for path in Path(scratch).iterdir())


def build_own(source: Path, folder: Path, epoch: int) -> Path:
    """Build the agent's wheel from a copy, so that nothing of an earlier build gets in; the same bytes every time."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "source")
        shutil.copytree(source / "agent", copy / "agent", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(source / name, copy)
        tools = Path(scratch, "build.txt")
        tools.write_text(f"{SETUPTOOLS}\n", encoding="utf-8")
        environment = {
            "SOURCE_DATE_EPOCH": str(epoch),
            "PIP_CONSTRAINT": str(tools),
            "PIP_BUILD_CONSTRAINT": str(tools),
        }
        pip("wheel", "--no-deps", f"--wheel-dir={scratch}/out", str(copy), environment=environment)
        (built,) = Path(scratch, "out").iterdir()
        return Path(shutil.copy(built, folder))
