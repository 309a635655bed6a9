"""Accounts that push models over SFTP and can do nothing else: no shell, no password, no other folder."""

from __future__ import annotations

import grp
import pwd
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.setup.place import PUSHERS
from agent.errors import ExitCode, Fatal
from agent.files import make_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEYS = Path("/etc/ssh/strip-agent-push-keys")
SETTINGS = Path("/etc/ssh/sshd_config.d/50-strip-agent.conf")
HEAD = "# Made by `strip-agent setup --sftp-pusher`: accounts that may put models into the inbox, and nothing else.\n"
FOR_ONE = """Match User {user}
    AuthenticationMethods publickey
    AuthorizedKeysFile {keys}/%u
    ChrootDirectory {chroot}
    ForceCommand internal-sftp -u 0022 -d /{inbox}
    AllowTcpForwarding no
    AllowStreamLocalForwarding no
    AllowAgentForwarding no
    GatewayPorts no
    PermitTTY no
    PermitTunnel no
    PermitUserRC no
    X11Forwarding no
"""


def settings(users: Iterable[str], inbox: Path) -> str:
    """Write sshd's settings for these accounts."""
    parts = [FOR_ONE.format(user=user, keys=KEYS, chroot=inbox.parent, inbox=inbox.name) for user in sorted(users)]
    return HEAD + "".join(parts) + "Match all\n"


def allow(accounts: dict[str, Path], inbox: Path) -> Iterator[str]:
    """Make accounts with a public key each, and have sshd hold them to the inbox; say so. Raises Fatal."""
    _check_chroot(inbox.parent)
    for user, key_file in accounts.items():
        key = key_file.read_text(encoding="utf-8").strip()
        _call(f"{key_file} holds no public key", "ssh-keygen", "-l", "-f", str(key_file))
        if user not in {one.pw_name for one in pwd.getpwall()}:
            options = ["--system", "--no-create-home", "--home-dir=/", "--shell=/usr/sbin/nologin", f"--gid={PUSHERS}"]
            _call(f"user {user} cannot be made", "useradd", *options, "--password=*", user)
        elif pwd.getpwnam(user).pw_gid != grp.getgrnam(PUSHERS).gr_gid:
            raise Fatal(
                ExitCode.FAILED,
                f"{user} is a user with other duties: an account that only pushes needs a name of its own",
            )
        make_folder(KEYS)
        write_atomically(KEYS / user, f"{key}\n".encode())
        (KEYS / user).chmod(0o644)
        yield f"{user} pushes over SFTP, with its key, to /{inbox.name}, and can do nothing else"
    before = SETTINGS.read_bytes() if SETTINGS.exists() else None
    write_atomically(
        SETTINGS, settings((path.name for path in KEYS.iterdir() if not path.name.startswith(".")), inbox).encode()
    )
    try:
        _check_sshd(accounts, inbox.parent)
    except Fatal:
        SETTINGS.unlink() if before is None else write_atomically(SETTINGS, before)
        raise
    subprocess.run(
        ["systemctl", "try-reload-or-restart", "ssh.service", "sshd.service"], capture_output=True, check=False
    )


def _check_sshd(users: Iterable[str], chroot: Path) -> None:
    """Ask sshd what it makes of its settings. Raises Fatal where an account is not held to its folder."""
    _call("sshd does not take its settings", "/usr/sbin/sshd", "-t")
    for user in users:
        who = f"user={user},host=h,addr=127.0.0.1"
        if f"chrootdirectory {chroot}\n" not in _call("sshd tells no settings", "/usr/sbin/sshd", "-T", "-C", who):
            raise Fatal(ExitCode.FAILED, f"sshd does not read {SETTINGS}: /etc/ssh/sshd_config lacks its Include line")


def _check_chroot(folder: Path) -> None:
    """Hold the folder and those above it to what sshd asks of a root folder: root's, and writable for nobody else."""
    for one in (folder, *folder.parents):
        status = one.stat()
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            detail = f"{one} must belong to root and be writable for nobody else, or sshd refuses it as a root folder"
            raise Fatal(ExitCode.FAILED, detail)


def _call(failed: str, *command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Fatal(ExitCode.FAILED, f"{failed}: {error} (package openssh-server?)") from error
    if done.returncode != 0:
        raise Fatal(ExitCode.FAILED, f"{failed}: {done.stderr.strip()}")
    return done.stdout
