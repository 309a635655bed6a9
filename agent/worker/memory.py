"""When memory runs out: who is to blame, the model that reached its limit, or the box that has none left."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from agent.errors import Blame, Reason, Reject, Retry

SIGNS = (
    "bad_alloc",
    "Failed to allocate memory",
    "out of memory",
    "pthread_create",
    "Resource temporarily unavailable",
)


def set_limit(memory_mib: int) -> None:
    """Limit what this process may allocate, in MiB. Files that are mapped do not count."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mib << 20, memory_mib << 20))


def memory_ran_out(error: Exception) -> bool:
    """Say whether that is what an error of onnxruntime or numpy is about."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)


def blame_for_memory(doing: str, error: Exception) -> Reject | Retry:
    """Return the error for memory that ran out, from what this process has and may have and from what the box has."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    box_kib = _kib("/proc/meminfo", "MemAvailable")
    if limit == resource.RLIM_INFINITY:
        return Retry(Reason.NO_MEMORY, f"no memory to {doing}: the box has {box_kib >> 10} MiB left", Blame.BOX)
    used_kib = _kib("/proc/self/status", "VmData")
    return decide_blame(doing, limit_kib=limit >> 10, used_kib=used_kib, box_kib=box_kib, said=str(error))


def decide_blame(doing: str, *, limit_kib: int, used_kib: int, box_kib: int, said: str) -> Reject | Retry:
    """Blame the limit where the box could have given all that it still allows; else the box."""
    if box_kib >= limit_kib - used_kib:
        needs = f"needs more than {limit_kib >> 10} MiB to {doing} (models.trial.memory_mib)"
        return Reject(Reason.MODEL_NEEDS_TOO_MUCH_MEMORY, f"{needs}: {said[-200:]}", model_fault=True)
    left = f"the box has {box_kib >> 10} MiB left, the model had {used_kib >> 10} of {limit_kib >> 10} MiB"
    return Retry(Reason.NO_MEMORY, f"no memory to {doing}: {left}", Blame.BOX)


def _kib(file: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(file).read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else 0
