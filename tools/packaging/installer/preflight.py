"""Whether this box can carry the agent: what it has, and what of that is too little."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .refusal import Code, Refused

OLDEST_CLOCK = 1_767_225_600  # 2026-01-01, Unix seconds: before this software was made
OLDEST_SYSTEMD = 247  # the first that knows LoadCredential=
LEAST_MEMORY_MIB, USUAL_MEMORY_MIB = 900, 1900
SPARE_BYTES = 512 << 20  # for ledger and heatmaps of the first days
V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}  # x86-64-v2, what numpy is built for
FAST = {"x86_64": "avx2", "aarch64": "asimddp"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a box has."""

    machine: str
    python: str  # 3.11
    glibc: tuple[int, ...]  # () where it is another C library
    cpu: frozenset[str]  # the processor's abilities as /proc/cpuinfo names them
    memory_mib: int
    free_bytes: int  # where the program goes
    clock: float  # Unix seconds
    systemd: int  # its version, 0 without it
    has_cgroup2: bool


@dataclass(frozen=True, slots=True)
class Needs:
    """What a bundle asks for."""

    machine: str
    pythons: tuple[str, ...]
    glibc: tuple[int, ...]
    installed_bytes: int


def look(root: Path) -> Facts:
    """Look at this box; `root` is where it is installed to."""
    opt = next(path for path in (root / "opt/strip-agent", root / "opt", root) if path.exists())
    library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    return Facts(
        machine=platform.machine(),
        python=".".join(map(str, sys.version_info[:2])),
        glibc=tuple(map(int, version.split(".")[:2])) if library == "glibc" else (),
        cpu=_abilities(),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        free_bytes=shutil.disk_usage(opt).free,
        clock=time.time(),
        systemd=_systemd_version(),
        has_cgroup2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
    )


def _abilities() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def _systemd_version() -> int:
    try:
        done = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[1])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return 0


def check(facts: Facts, needs: Needs) -> list[str]:
    """Return what is not as it should be and can be lived with. Raises Refused for what cannot."""
    if facts.machine != needs.machine:
        raise Refused(Code.WRONG_PROCESSOR, f"this file is for {needs.machine}, the box is {facts.machine}")
    if facts.glibc < needs.glibc:
        has = f"glibc {_dotted(facts.glibc)}" if facts.glibc else "no glibc (Alpine and other musl systems have none)"
        raise Refused(Code.OLD_GLIBC, f"needs glibc {_dotted(needs.glibc)} or newer; the box has {has}")
    if facts.python not in needs.pythons:
        raise Refused(Code.PYTHON_UNSUPPORTED, f"made for Python {', '.join(needs.pythons)}; this is {facts.python}")
    if facts.machine == "x86_64" and (lacking := V2 - facts.cpu):
        raise Refused(
            Code.OLD_PROCESSOR, f"the processor lacks {', '.join(sorted(lacking))} (x86-64-v2, made since 2009)"
        )
    if facts.systemd < OLDEST_SYSTEMD:
        has = f"systemd {facts.systemd}" if facts.systemd else "no systemd"
        raise Refused(Code.NO_SYSTEMD, f"needs systemd {OLDEST_SYSTEMD} or newer; the box has {has}")
    if facts.memory_mib < LEAST_MEMORY_MIB:
        raise Refused(Code.LITTLE_MEMORY, f"needs 1 GiB of memory; the box has {facts.memory_mib} MiB")
    if facts.free_bytes < (needed := needs.installed_bytes + SPARE_BYTES):
        detail = f"needs {needed >> 20} MiB free below /opt/strip-agent; there are {facts.free_bytes >> 20} MiB"
        raise Refused(Code.NO_SPACE, detail)
    if facts.clock < OLDEST_CLOCK:
        shown = time.strftime("%Y-%m-%d", time.gmtime(facts.clock))
        detail = f"the clock says {shown}; set it: timedatectl set-time '2026-12-31 12:00:00', or have it kept by NTP"
        raise Refused(Code.CLOCK_WRONG, detail)
    return list(_bearable(facts))


def _bearable(facts: Facts) -> list[str]:
    found = []
    if facts.memory_mib < USUAL_MEMORY_MIB:
        found.append(f"{facts.memory_mib} MiB of memory: set models.switch to stop_first, and a small trial.memory_mib")
    if FAST.get(facts.machine, "") not in facts.cpu:
        found.append(f"the processor lacks {FAST[facts.machine]}: a strip takes several times as long")
    if not facts.has_cgroup2:
        found.append("no cgroup v2: the unit's MemoryMax= and IPAddressDeny= may have no effect")
    return found


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
