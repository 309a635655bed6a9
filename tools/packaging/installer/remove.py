"""Taking the agent off a box again, and saying what is left."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .box import CONFIG, LINK, OPT, PLACES, PUSHERS, UNIT, USER, WEB_UNIT, WEB_USER, Box, call, systemctl
from .change import ask
from .refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

DROP_INS = Path("/etc/systemd/system/strip-agent.service.d")
WEB_DROP_INS = Path("/etc/systemd/system/strip-agent-web.service.d")
SFTP_KEYS, SFTP_SETTINGS = Path("/etc/ssh/strip-agent-push-keys"), Path("/etc/ssh/sshd_config.d/50-strip-agent.conf")
STATE = Path("/var/lib/strip-agent")
INBOX = Path("/srv/models/inbox")


def remove(box: Box, *, purge: bool, tell: Callable[[str], None]) -> None:
    """Stop the service, clear what it left on the broker, remove its files; with `purge` its data and users too."""
    state, elsewhere = _stop(box, tell)
    accounts = [
        path.name for path in box.at(SFTP_KEYS).glob("[!.]*")
    ]  # whoever may only push has nothing to do here now
    for path in (SFTP_SETTINGS, SFTP_KEYS, LINK, *PLACES.values(), OPT):
        _delete(box.at(path))
    if box.runs:
        systemctl("daemon-reload")
        subprocess.run(["systemctl", "reset-failed", UNIT, WEB_UNIT], capture_output=True, check=False)
        if accounts:
            reload = ["systemctl", "try-reload-or-restart", "ssh.service", "sshd.service"]
            subprocess.run(reload, capture_output=True, check=False)
    _remove_users(box, accounts)
    if accounts:
        tell(f"removed: the accounts that could only push: {', '.join(accounts)}")
    data = [
        path
        for path in dict.fromkeys([DROP_INS, WEB_DROP_INS, CONFIG.parent, STATE, state, INBOX])
        if box.at(path).exists()
    ]
    never = ", ".join(["cameras' folders", *elsewhere])
    if not purge:
        left = [*map(str, data), f"user and group {USER}", f"user {WEB_USER}", f"group {PUSHERS}"]
        tell(f"removed. Left, and removed by --uninstall --purge: {', '.join(left)}. Never touched: {never}")
        return
    for path in data:
        _delete(box.at(path))
    if box.at(INBOX.parent).is_dir() and not any(box.at(INBOX.parent).iterdir()):
        box.at(INBOX.parent).rmdir()
    _remove_users(box, [WEB_USER, USER])
    for group in (USER, WEB_USER, PUSHERS):
        if _is_known(box, "group", group):
            call("groupdel", *_where(box), group)
    tell(f"removed, with configuration, data and users. Never touched: {never}")


def _stop(box: Box, tell: Callable[[str], None]) -> tuple[Path, list[str]]:
    """Stop the service and have it say goodbye to the broker; its state folder, and what of it lies elsewhere."""
    current = box.version_of("current")
    if not box.runs:
        return STATE, []
    for unit in (WEB_UNIT, UNIT):
        if box.at(PLACES[unit]).exists():
            systemctl("disable", "--now", unit)
    if not current:
        return STATE, []
    try:
        said = ask(current, "farewell")
    except Refused as error:
        tell(f"what is retained on the broker stays there: {error}")
        return STATE, []
    tell(
        f"cleared on the broker: {said['cleared']} retained messages"
        + (f"; {said['problem']}" if said["problem"] else "")
    )
    return Path(said["state_folder"]), [path for path in said["elsewhere"] if path != str(INBOX)]


def _remove_users(box: Box, users: list[str]) -> None:
    for user in users:
        if _is_known(box, "passwd", user):
            call("userdel", *_where(box), user)


def _where(box: Box) -> list[str]:
    return [] if box.root == Path("/") else ["--root", str(box.root)]


def _is_known(box: Box, table: str, name: str) -> bool:
    path = box.at(Path("/etc", table))
    return path.exists() and any(line.startswith(f"{name}:") for line in path.read_text(encoding="utf-8").splitlines())


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
