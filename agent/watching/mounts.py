"""Which folder stands at a path, on which file system, and whether that tells about files that other machines write."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

NETWORK = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "coda", "davfs", "lustre", "nfs", "nfs4", "smb2", "smb3", "smbfs"}
)
CLUSTER = frozenset({"gfs", "gfs2", "glusterfs", "gpfs", "ocfs2", "orangefs"})
FROM_A_HOST = frozenset({"9p", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"})
WITHOUT_EVENTS = NETWORK | CLUSTER | FROM_A_HOST | {"autofs", "fuse", "fuseblk"}

FolderIdentity = tuple[str, int, int]
"""Where a folder really is, its device and its inode."""


def identify(folder: Path | str) -> FolderIdentity:
    """Look at a folder, through links to it; raises OSError."""
    root = os.path.realpath(folder)
    found = os.stat(root)  # noqa: PTH116 - no path is made of it: each camera looks each second
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", root)
    return root, found.st_dev, found.st_ino


def is_still(folder: Path | str, known: FolderIdentity) -> bool:
    """Say whether a folder, and the place where it really was, lead to what they led to, for a fifth of `identify`."""
    try:
        return all((found.st_dev, found.st_ino) == known[1:] for found in map(os.stat, (folder, known[0])))
    except OSError:  # `identify` tells what it is
        return False


def gives_events(file_system: str) -> bool:
    """Whether inotify sees every change; on network and FUSE file systems it sees only this machine's, if any."""
    return file_system.partition(".")[0] not in WITHOUT_EVENTS


def mount_of(path: str, mountinfo: bytes | None = None) -> tuple[str, str]:
    """Return mount point and type of the file system that holds `path` (absolute, without links); "" if not known.

    Format: proc_pid_mountinfo(5). The longest mount point that holds the path counts, the last one of equals.
    """
    if mountinfo is None:
        try:
            mountinfo = MOUNTINFO.read_bytes()
        except OSError:
            return "", ""
    wanted = os.fsencode(path).rstrip(b"/") + b"/"
    longest, mount = b"", ("", "")
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(b" - ")
        fields = before.split(b" ")
        if not separator or len(fields) < 6:  # noqa: PLR2004 (six fields stand before the optional ones)
            continue
        mount_point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), fields[4])
        prefix = mount_point.rstrip(b"/") + b"/"
        if wanted.startswith(prefix) and len(prefix) >= len(longest):
            longest, mount = prefix, (os.fsdecode(mount_point), after.split(b" ")[0].decode(errors="replace"))
    return mount
