"""The bundle that this installer came in: its checksums, and one version of it laid down on the box."""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .preflight import Needs
from .refusal import Code, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = (
    "systemd",
    "config",
    "docs",
    "installer",
    "install.sh",
    "README.md",
    "CHANGELOG.md",
    "LICENCES.txt",
    "sbom.cdx.json",
)
COMPILED_RATIO = 1.2  # what Python's compiled files add


@dataclass(frozen=True, slots=True)
class Bundle:
    """An unpacked bundle; `wheels` are those for this Python."""

    folder: Path
    version: str
    digest: str  # of its checksums, so of everything in it
    facts: dict[str, Any]

    @property
    def wheels(self) -> list[Path]:
        """What this interpreter needs."""
        return [self.folder / "wheels" / name for name in self.facts["wheels"].get(_python(), ())]

    def needs(self) -> Needs:
        """Say what it asks of a box."""
        sizes = [entry.file_size for wheel in self.wheels for entry in zipfile.ZipFile(wheel).infolist()]
        glibc = tuple(map(int, self.facts["glibc"].split(".")))
        return Needs(self.facts["arch"], tuple(self.facts["wheels"]), glibc, round(sum(sizes) * COMPILED_RATIO))


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and hold every file to its checksum. Raises Refused."""
    try:
        sums = (folder / "SHA256SUMS").read_bytes()
        for line in sums.decode().splitlines():
            digest, _, name = line.partition("  ")
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise Refused(Code.DAMAGED_BUNDLE, f"{folder / name} is damaged; copy the bundle again")
        facts = json.loads((folder / "bundle.json").read_bytes())
    except OSError as error:
        detail = (
            f"{error.filename}: {error.strerror}; copy the bundle again, or is this an installed version's install.sh?"
        )
        raise Refused(Code.DAMAGED_BUNDLE, detail) from error
    return Bundle(folder, facts["version"], hashlib.sha256(sums).hexdigest(), facts)


def is_laid_down(folder: Path, bundle: Bundle) -> bool:
    """Whether a version's folder is what this bundle and this Python make; it gets its name when it is complete."""
    try:
        made_of = json.loads((folder / "installed.json").read_bytes())
    except (OSError, ValueError):
        return False
    python = (folder / "bin/python").exists()  # the system's, which an upgrade of the system may have taken away
    return python and made_of == _made_of(bundle)


def lay_down(bundle: Bundle, folder: Path, seen_as: Path) -> None:
    """Make a version's folder, complete under its name or not there; `seen_as` is its path on the box itself."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    site = new / f"lib/python{_python()}/site-packages"
    site.mkdir(parents=True)
    for wheel in bundle.wheels:
        _unpack(wheel, site)
    (new / "bin").mkdir()
    python = Path(sys.executable).resolve()
    (new / "bin/python").symlink_to(python)
    version = ".".join(map(str, sys.version_info[:3]))
    settings = f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    (new / "pyvenv.cfg").write_text(settings, encoding="utf-8")
    program = new / "bin/strip-agent"
    # The version's own path, not `current`: what is running goes on starting its own workers after a switch.
    start = f"#!{seen_as}/bin/python\nimport sys\nfrom agent.cli.__main__ import main\nsys.exit(main())\n"
    program.write_text(start, encoding="utf-8")
    program.chmod(0o755)
    for name in KEPT:
        copy = shutil.copytree if (bundle.folder / name).is_dir() else shutil.copy
        copy(bundle.folder / name, new / name)
    # In this process: others would go on writing where this one is killed, into what the next run makes anew.
    compileall.compile_dir(site, quiet=2, stripdir=str(new), prependdir=str(seen_as))
    for path in new.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    new.chmod(0o755)
    (new / "installed.json").write_text(json.dumps(_made_of(bundle)), encoding="utf-8")
    os.sync()  # thousands of files: all of them are on the disk before the folder gets its name
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _unpack(wheel: Path, site: Path) -> None:
    """Unpack what is imported; a wheel's scripts and headers have no use on a box."""
    with zipfile.ZipFile(wheel) as archive:
        for entry, target in _members(archive):
            if target.is_absolute() or ".." in target.parts:
                raise Refused(Code.DAMAGED_BUNDLE, f"{wheel.name} has a file outside of it: {entry.filename}")
            path = site / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    for entry in archive.infolist():
        target = PurePosixPath(entry.filename)
        if entry.is_dir():
            continue
        if target.parts[0].endswith(".data"):
            if target.parts[1] not in {"purelib", "platlib"}:
                continue
            target = PurePosixPath(*target.parts[2:])
        yield entry, target


def _made_of(bundle: Bundle) -> dict[str, str]:
    return {"version": bundle.version, "bundle": bundle.digest, "python": _python()}


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))
