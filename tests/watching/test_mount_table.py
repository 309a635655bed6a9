"""Which file system holds a folder, and whether it has events."""

from __future__ import annotations

import pytest

from agent.watching.mounts import gives_events, mount_of

MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/cameras rw - nfs4 nas:/c rw
31 30 8:2 / /srv/cameras/local rw master:2 propagate_from:3 - xfs /dev/sdb rw
32 22 0:41 / /mnt/with\040space\134and\011tab rw - cifs //nas/x rw
33 22 0:42 / /srv/twice rw - ext4 /dev/sdc rw
34 33 0:43 / /srv/twice rw - fuse.sshfs nas: rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "file_system", "has_events"),
    [
        ("/", "ext4", True),
        ("/srv/camerasX", "ext4", True),
        ("/srv/cameras", "nfs4", False),
        ("/srv/cameras/top", "nfs4", False),
        ("/srv/cameras/local/a", "xfs", True),
        ("/mnt/with space\\and\ttab/a", "cifs", False),
        ("/srv/twice/a", "fuse.sshfs", False),
    ],
)
def test_the_file_system_is_found_by_the_longest_mount_point(path: str, file_system: str, has_events: bool) -> None:
    """With the kernel's octal escapes, by whole names, and the last of mounts on top of each other."""
    assert mount_of(path, MOUNTINFO)[1] == file_system
    assert gives_events(file_system) == has_events


def test_the_real_mount_table_can_be_read() -> None:
    """This machine's root has a file system."""
    assert mount_of("/proc/self") == ("/proc", "proc")
