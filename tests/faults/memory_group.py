"""A memory cgroup of version 1 or 2 below our own, for tests that let memory run out; and the start of a program in it.

python -m tests.faults.memory_group PROCS_FILE PROGRAM ARGUMENTS...
"""

from __future__ import annotations

import functools
import os
import re
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNLIMITED_V1, UNLIMITED_V2 = "-1", "max"


class MemoryGroup:
    """An own group of processes whose memory can be limited."""

    def __init__(self, folder: Path, *, unified: bool) -> None:
        self.folder = folder
        self._unified = unified

    def launch(self, program: list[str]) -> list[str]:
        """Return the command that starts a program as one of its processes."""
        return [sys.executable, "-m", "tests.faults.memory_group", str(self.folder / "cgroup.procs"), *program]

    def limit(self, limit_bytes: int | None) -> None:
        """Limit what all its processes together may use."""
        name = "memory.max" if self._unified else "memory.limit_in_bytes"
        unlimited = UNLIMITED_V2 if self._unified else UNLIMITED_V1
        (self.folder / name).write_text(unlimited if limit_bytes is None else str(limit_bytes), encoding="ascii")

    def used_bytes(self) -> int:
        """Return what they use, without the files that the kernel can drop."""
        usage = "memory.current" if self._unified else "memory.usage_in_bytes"
        stat = (self.folder / "memory.stat").read_text(encoding="ascii")
        found = re.findall(r"^(?:in)?active_file (\d+)$", stat, re.MULTILINE)
        return int((self.folder / usage).read_text(encoding="ascii")) - sum(map(int, found))

    def kills(self) -> int:
        """Return how many of them the kernel has killed."""
        name = "memory.events" if self._unified else "memory.oom_control"
        found = re.search(r"^oom_kill (\d+)$", (self.folder / name).read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) if found else 0


def _parent() -> tuple[Path, bool] | None:
    """Return our own memory group's folder, and whether it is of version 2."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/memory{path}"), False
        if not controllers and "memory" in _controllers(Path(f"/sys/fs/cgroup{path}")):
            return Path(f"/sys/fs/cgroup{path}"), True
    return None


def _controllers(folder: Path) -> list[str]:
    try:
        return (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
    except OSError:
        return []


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Make one for a while."""
    parent = _parent()
    assert parent is not None
    folder = parent[0] / f"strip-agent-test-{uuid.uuid4()}"
    folder.mkdir()
    try:
        yield MemoryGroup(folder, unified=parent[1])
    finally:
        wait_for(lambda: not (folder / "cgroup.procs").read_text(encoding="ascii"), "the group is empty")
        folder.rmdir()


@functools.cache
def _can_be_made() -> bool:
    try:
        with memory_group() as group:
            group.limit(1 << 30)
    except (OSError, AssertionError):
        return False
    return True


def needs_memory_group(test: Callable[..., Any]) -> Any:
    """Skip the test, with the reason, where no memory cgroup can be made."""
    can = os.geteuid() == 0 and _can_be_made()
    return pytest.mark.root(pytest.mark.skipif(not can, reason="no memory cgroup can be made here: needs root")(test))


def main() -> None:
    """Join the group, then be the program."""
    Path(sys.argv[1]).write_text(str(os.getpid()), encoding="ascii")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - that is what a launcher does


if __name__ == "__main__":
    main()
