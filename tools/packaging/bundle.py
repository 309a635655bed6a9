#!/usr/bin/env python
"""Make what a technician carries to a box: one file with everything in it, for boxes without internet.

bundle.py build            dist/strip-agent-<version>-linux-<arch>.run
bundle.py build --deb      dist/strip-agent_<version>_<arch>.deb instead
bundle.py lock             tools/packaging/wheels.lock, after constraints.txt has changed

The agent's own wheel and files come from this source; the others are fetched by the hashes of wheels.lock. The same
source gives the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.packaging import papers, wheels
from tools.packaging.deb import build_deb

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache/strip-agent/wheels"
LONG_AGO = 315532800  # 1980, the first year that a zip file knows
COPIED = {
    "systemd": "systemd",
    "config": "config",
    "docs": "docs",
    "README.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
}


def build_folder(folder: Path, source: Path, arch: str, pythons: tuple[str, ...], cache: Path) -> None:
    """Lay out a bundle: `install.sh`, its parts, wheels, units, papers, and the checksums of all that."""
    (folder / "wheels").mkdir(parents=True)
    kept = cache / arch
    kept.mkdir(parents=True, exist_ok=True)
    own = wheels.build_own(source, folder / "wheels", _epoch(source))
    try:
        chosen = _choose(own, kept, arch, pythons)
    except wheels.BuildError:  # some are not here yet
        wheels.fetch(arch, pythons, kept)
        chosen = _choose(own, kept, arch, pythons)
    for name in {name for names in chosen.values() for name in names} - {own.name}:
        shutil.copy(kept / name, folder / "wheels")
    finish(folder, source, own.name.split("-")[1], arch, chosen)


def finish(folder: Path, source: Path, version: str, arch: str, chosen: dict[str, list[str]]) -> None:
    """Put everything else beside the wheels of a bundle, the checksums last; `chosen` are those for each Python."""
    for name, target in COPIED.items():
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, folder / target)
    packaging = source / "tools/packaging"
    shutil.copy(packaging / "install.sh", folder)
    (folder / "install.sh").chmod(0o755)
    shutil.copytree(packaging / "installer", folder / "installer", ignore=shutil.ignore_patterns("__pycache__"))
    facts = {"version": version, "arch": arch, "glibc": f"2.{wheels.GLIBC_MINOR}", "wheels": chosen}
    (folder / "bundle.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    components = [papers.component(path) for path in sorted((folder / "wheels").iterdir())]
    (folder / "sbom.cdx.json").write_text(papers.bill_of_materials(components, version), encoding="utf-8")
    (folder / "LICENCES.txt").write_text(papers.licence_list(components), encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = "".join(f"{wheels.sha256(path)}  {path.relative_to(folder)}\n" for path in files)
    (folder / "SHA256SUMS").write_text(lines, encoding="utf-8")


def _choose(own: Path, kept: Path, arch: str, pythons: tuple[str, ...]) -> dict[str, list[str]]:
    """Name the wheels for each Python, found without any network, as a box has to."""
    with tempfile.TemporaryDirectory() as scratch:
        for wheel in (own, *wheels.locked(kept)):
            Path(scratch, wheel.name).symlink_to(wheel)
        return {python: wheels.resolve(arch, python, Path(scratch)) for python in pythons}


def pack(folder: Path, out: Path, epoch: int) -> Path:
    """Make the one file of a bundle's folder: a script that checks what comes behind it, unpacks and installs it."""
    facts = json.loads((folder / "bundle.json").read_bytes())
    name = f"strip-agent-{facts['version']}-linux-{facts['arch']}"
    out.mkdir(parents=True, exist_ok=True)
    payload, target = out / f".{name}.tar", out / f"{name}.run"
    with tarfile.open(payload, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in (folder, *sorted(folder.rglob("*"))):
            inside = Path(name, path.relative_to(folder))
            archive.add(path, str(inside), recursive=False, filter=lambda member: _plain(member, epoch))
    text = (HERE / "run_header.sh").read_text(encoding="utf-8")
    words = {"LINES": str(len(text.splitlines()) + 1), "SHA256": wheels.sha256(payload), "NAME": name}
    words |= {"VERSION": facts["version"], "ARCH": facts["arch"]}
    text = re.sub(rf"\b({'|'.join(words)})\b", lambda found: words[found[1]], text)
    with target.open("wb") as file, payload.open("rb") as packed:
        file.write(text.encode())
        shutil.copyfileobj(packed, file, 1 << 20)
    target.chmod(0o755)
    payload.unlink()
    return target


def _plain(member: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo:
    """Say of a file nothing but its name, content and whether it is a program."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = epoch
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def _epoch(source: Path) -> int:
    """Give the time of the source's last commit; the same long ago for a source without history."""
    command = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return LONG_AGO


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Make bundles for boxes without internet."""


@cli.command()
@click.option("--arch", type=click.Choice(wheels.ARCHES), default="x86_64", show_default=True)
@click.option("--python", "pythons", type=click.Choice(wheels.PYTHONS), multiple=True, help="Only for this one.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"), show_default=True)
@click.option("--source", type=click.Path(path_type=Path, file_okay=False), default=wheels.ROOT, help="The repository.")
@click.option("--deb", is_flag=True, help="Make a Debian package.")
def build(arch: str, pythons: tuple[str, ...], out: Path, source: Path, *, deb: bool) -> None:
    """Make one file that installs the agent on a box."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "bundle")
        build_folder(folder, source, arch, pythons or wheels.PYTHONS, CACHE)
        target = (build_deb if deb else pack)(folder, out, _epoch(source))
    digest = wheels.sha256(target)
    target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n", encoding="utf-8")
    print(f"{target}  {target.stat().st_size / 1e6:.0f} MB")


@cli.command()
def lock() -> None:
    """Write down the hash of every wheel that a bundle may contain."""
    wheels.write_lock()


if __name__ == "__main__":
    try:
        cli(standalone_mode=False)
    except (wheels.BuildError, click.ClickException) as error:
        sys.exit(f"bundle.py: {error}")
