"""One version takes another's place: tried first, switched at one stroke, and switched back by itself where it fails.

At any moment, also after a power cut, `current` leads to a version that can start with the ledger that is there: going
forward the new version brings the ledger along when it starts; going back the older one makes a ledger of its own out
of the newer one *before* the switch. What each version has to say is asked of its own `agent.cli.changeover`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import backing_up
from .box import CONFIG, OPT, UNIT, USER, WEB_UNIT, Box, systemctl, unit_is, write
from .refusal import Code, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = OPT / "change.json"
SETTLE_SECONDS = 60.0  # for the active model to be loaded, once the service is ready


def ask(version: str, what: str) -> dict[str, Any]:
    """Put a question to a version, as the user that the service is. Raises Refused where it cannot answer."""
    command = [str(OPT / version / "bin/python"), "-m", "agent.cli.changeover", what, "--config", str(CONFIG)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/",
        user=USER, group=USER, extra_groups=[], env={"PATH": os.defpath, "LANG": "C.UTF-8"},
    )  # fmt: skip
    if done.returncode != 0:
        raise Refused(Code.NEW_VERSION_FAILED, f"{version} cannot {what}: {done.stderr.strip()[-600:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def look(version: str) -> Path:
    """Let a version try configuration and models of this box; its state folder. Raises Refused."""
    said = ask(version, "look")
    if said["problems"]:
        raise Refused(Code.CONFIG_UNUSABLE, f"{version} would not start with {CONFIG}: {'; '.join(said['problems'])}")
    if said["models"]:
        raise Refused(Code.MODEL_REFUSED, f"{version} cannot load what is active: {'; '.join(said['models'])}")
    return Path(said["state_folder"])


def change(box: Box, old: str, new: str, tell: Callable[[str], None]) -> None:
    """Put `new` in the place of `old`. Raises Refused; then `old` is what it was, and runs if it did."""
    tell(f"{new} tries configuration and models of this box; {old} goes on meanwhile")
    state = look(new)
    ran = unit_is("active")
    was_failing = ran and ask(old, "ready")["health"] == "failing"
    mark = {"old": old, "new": new, "before": box.version_of("previous"), "ran": ran}
    write(box.at(MARK), json.dumps(mark).encode(), 0o644)
    systemctl("stop", UNIT)
    try:
        tell(f"{old} is stopped; its ledger and models are kept in {back_up(state, old)}")
        box.point(OPT / "previous", old)
        _switch(box, new, tell)
        if ran:
            _start(new, tell, may_fail=was_failing)
    except Exception as error:
        tell(f"{new} fails: {error}; going back to {old}")
        _back(box, mark, tell)
        raise Refused(Code.NEW_VERSION_FAILED, f"{old} is back, because of: {error}") from error
    box.at(MARK).unlink()


def finish_interrupted(box: Box, tell: Callable[[str], None]) -> None:
    """Bring to an end what an installer that was killed had begun: whichever version is current runs, if one did."""
    try:
        mark = json.loads(box.at(MARK).read_bytes())
    except FileNotFoundError:
        return
    current = box.version_of("current")
    tell(f"an earlier change from {mark['old']} to {mark['new']} was interrupted; {current} is current")
    if box.runs and current == mark["new"]:
        try:
            box.put_units(current)
            systemctl("daemon-reload")
            if mark["ran"]:
                _start(current, tell)
            box.at(MARK).unlink()
        except Exception as error:
            tell(f"{current} fails: {error}; going back to {mark['old']}")
            _back(box, mark, tell)
            raise Refused(Code.NEW_VERSION_FAILED, f"{mark['old']} is back, because of: {error}") from error
    elif box.runs:
        _back(box, mark, tell)


def _back(box: Box, mark: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Make everything as it was before a change, and forget the change."""
    systemctl("stop", UNIT)
    _switch(box, mark["old"], tell)
    if mark["before"]:
        box.point(OPT / "previous", mark["before"])
    else:
        box.at(OPT / "previous").unlink(missing_ok=True)
    if mark["ran"]:
        _start(mark["old"], tell)
    box.at(MARK).unlink()


def _switch(box: Box, version: str, tell: Callable[[str], None]) -> None:
    if aside := ask(version, "take-ledger")["set_aside"]:
        tell(
            f"the ledger is of a newer version: {version} goes on with a ledger of its own that has its strips and "
            f"results, and numbers new results from 1 in a new stream; the newer one is kept as {aside}"
        )
    box.point(OPT / "current", version)
    box.put_units(version)
    systemctl("daemon-reload")
    # The page, where it runs, goes on as this version; the service does not wait for it.
    subprocess.run(["systemctl", "try-restart", "--no-block", WEB_UNIT], capture_output=True, check=False)


def _start(version: str, tell: Callable[[str], None], *, may_fail: bool = True) -> None:
    """Start the service and wait until it is ready, every model is loaded, and it does not say that it fails.

    Raises Refused.
    """
    systemctl("reset-failed", UNIT)
    systemctl("start", UNIT)
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        said = ask(version, "ready")
        if not said["waiting"] and (may_fail or said["health"] != "failing"):
            tell(f"{version} is ready: {said['health']}")
            return
        if time.monotonic() > until:
            why = (
                f"no worker for slot {', '.join(said['waiting'])}" if said["waiting"] else f"failing ({said['alarms']})"
            )
            raise Refused(Code.NEW_VERSION_FAILED, f"{why}; see journalctl -u {UNIT}")
        time.sleep(1.0)


def back_up(state: Path, version: str) -> Path:
    """Keep a copy of the ledger and of what is remembered of the slots; returns where. Raises Refused.

    It is made as the user that the state folder belongs to. That user decides what lies there: root would follow its
    links, give it files of others to read, and remove what is none of its own.
    """
    target = state / "backups" / f"{version}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    owner = state.stat()
    done = subprocess.run(
        [sys.executable, "-I", "-", str(state), str(target)], input=Path(backing_up.__file__).read_bytes(),
        capture_output=True, check=False, cwd="/",
        user=owner.st_uid, group=owner.st_gid, extra_groups=[], env={"PATH": os.defpath, "LANG": "C.UTF-8"},
    )  # fmt: skip
    if done.returncode != 0:
        raise Refused(Code.TOOL_FAILED, f"{state} cannot be copied: {done.stderr.decode(errors='replace')[-600:]}")
    return target
