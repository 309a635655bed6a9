"""The installer's command line: install or upgrade, go back, uninstall."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from . import preflight
from .box import LINK, OPT, Box, alone, unit_is
from .bundle import Bundle, is_laid_down, lay_down, open_bundle
from .change import change, finish_interrupted
from .refusal import Code, Refused
from .remove import remove

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Do what was asked; 1 with a code and a sentence where it is refused."""
    parser = argparse.ArgumentParser(prog="install.sh", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only look whether this box can carry it")
    parser.add_argument("--rollback", action="store_true", help="go back to the version before")
    parser.add_argument(
        "--uninstall", action="store_true", help="take the agent off the box; configuration and data stay"
    )
    parser.add_argument("--purge", action="store_true", help="with --uninstall: configuration and data, too")
    parser.add_argument(
        "--root", type=Path, default=Path("/"), help="a box that does not run, such as an image's folder"
    )
    parser.add_argument(
        "--program-only", action="store_true", help="for a container's image: no units, users or files in /etc"
    )
    arguments = parser.parse_args()
    if arguments.purge and not arguments.uninstall:
        parser.error("--purge goes with --uninstall")
    os.umask(0o022)
    try:
        do(arguments)
    except Refused as refused:
        sys.exit(f"strip-agent: {refused}")


def do(arguments: argparse.Namespace) -> None:
    """Do what was asked. Raises Refused."""
    if os.geteuid() != 0:
        raise Refused(Code.NOT_ROOT, "has to be run as root: sudo, su or a root shell")
    box = Box(arguments.root.resolve())
    with alone(box):
        if arguments.check:
            _check(box, open_bundle(HERE))
            _tell("this box can carry it")
        elif arguments.uninstall:
            remove(box, purge=arguments.purge, tell=_tell)
        elif arguments.rollback:
            finish_interrupted(box, _tell)
            roll_back(box)
        elif arguments.program_only:
            install_program(box, open_bundle(HERE))
        else:
            finish_interrupted(box, _tell)
            install(box, open_bundle(HERE))


def install(box: Box, bundle: Bundle) -> None:
    """Bring the bundle's version onto the box; every step is done again without harm, or found done."""
    _check(box, bundle)
    folder = OPT / bundle.version
    current = box.version_of("current")
    changed: list[str] = []
    if not is_laid_down(box.at(folder), bundle):
        if current == bundle.version and box.runs and unit_is("active"):
            detail = (
                f"another build of {bundle.version} runs; two versions need two numbers (or stop the service first)"
            )
            raise Refused(Code.NEW_VERSION_FAILED, detail)
        _tell(f"unpacking {bundle.version} to {folder}")
        box.at(OPT).mkdir(parents=True, exist_ok=True)
        lay_down(bundle, box.at(folder), folder)
        changed.append(str(folder))
    if current not in {"", bundle.version} and box.runs:
        box.put_units(current)  # users and folders for the new version's look
        change(box, current, bundle.version, _tell)
        changed.append(f"{current} -> {bundle.version}")
    else:
        changed += box.put_units(bundle.version)
        if current not in {"", bundle.version}:
            box.point(OPT / "previous", current)  # before the switch: killed after it, nobody would know
        if box.point(OPT / "current", bundle.version):
            changed.append(str(OPT / "current"))
    if box.point(LINK, str(OPT / "current/bin/strip-agent")):
        changed.append(str(LINK))
    _prune(box)
    _tell(
        f"{bundle.version} is installed" if changed else f"{bundle.version} was installed already; nothing is changed"
    )
    if not current:
        _tell("next: strip-agent setup")


def install_program(box: Box, bundle: Bundle) -> None:
    """Lay down the program alone; who starts it is somebody else's business, so systemd is not asked for."""
    facts = replace(preflight.look(box.root), systemd=preflight.OLDEST_SYSTEMD, has_cgroup2=True)
    for warning in preflight.check(facts, bundle.needs()):
        _tell(f"note: {warning}")
    folder = OPT / bundle.version
    box.at(OPT).mkdir(parents=True, exist_ok=True)
    if not is_laid_down(box.at(folder), bundle):
        lay_down(bundle, box.at(folder), folder)
    box.point(OPT / "current", bundle.version)
    box.point(LINK, str(OPT / "current/bin/strip-agent"))
    _tell(f"the program of {bundle.version} is laid down")


def roll_back(box: Box) -> None:
    """Go back to the version before."""
    current, previous = box.version_of("current"), box.version_of("previous")
    if not current:
        raise Refused(Code.NOT_INSTALLED, f"there is no {OPT}/current on this box")
    if previous in {"", current}:
        raise Refused(Code.NOTHING_TO_GO_BACK_TO, f"there is no version before {current} on this box")
    if box.runs:
        change(box, current, previous, _tell)
    else:
        box.put_units(previous)
        box.point(OPT / "previous", current)
        box.point(OPT / "current", previous)
    _tell(f"{previous} is installed again; {current} stays beside it")


def _check(box: Box, bundle: Bundle) -> None:
    needs = bundle.needs()
    if is_laid_down(box.at(OPT / bundle.version), bundle):
        needs = replace(needs, installed_bytes=0)
    for warning in preflight.check(preflight.look(box.root), needs):
        _tell(f"note: {warning}")


def _prune(box: Box) -> None:
    """Remove versions that are neither current nor previous, and what killed installers left."""
    kept = {box.version_of("current"), box.version_of("previous")}
    for path in box.at(OPT).iterdir():
        if path.is_dir() and not path.is_symlink() and path.name not in kept:
            shutil.rmtree(path)


def _tell(sentence: str) -> None:
    print(f"strip-agent: {sentence}", flush=True)
