"""The active models on this box: whether they load and reproduce their golden strip, and how long a strip takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.doctor.finding import Finding
from agent.cli.oneshot import try_active
from agent.errors import Reject, Retry
from agent.models.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import Config

LIMIT_SECONDS = 60.0  # for a model to load and to run a few times
MEMORY_OF_ITS_FILE = 4  # a loaded model takes at most so many times its file's size, as a rule
MEMORY_BESIDE_MIB = 300
MILLI = 1e-3


def measure_models(config: Config) -> Iterator[Finding]:
    """Run each active model a few times in a process of its own, as the service does when it loads one."""
    store = Store(config.agent.state_folder / "store")
    for slot in config.slots:
        try:
            loaded = store.load(slot)
            size = store.model_path(loaded.state.active).stat().st_size if loaded.state.active else 0
        except OSError as error:
            yield Finding("note", "model", f"slot {slot}: cannot be looked at by this user: {error.strerror}")
            continue
        if loaded.problem:
            yield Finding("note", "model", f"slot {slot}: {loaded.problem}")
        elif not loaded.state.active:
            yield Finding("note", "model", f"slot {slot}: none is active; strips wait until one is pushed")
        elif (missing := _missing_mib(size)) > 0:
            detail = f"slot {slot}: not tried, as {missing:.0f} MiB of memory are missing for a second one"
            yield Finding("note", "model", detail)
        else:
            yield _measure(config, slot, loaded.state.active)


def _measure(config: Config, slot: str, sha256: str) -> Finding:
    limit = min(LIMIT_SECONDS, config.models.trial.seconds)
    trial = config.models.trial.model_copy(update={"seconds": limit})
    models = config.models.model_copy(update={"trial": trial})
    try:
        loaded = try_active(config.model_copy(update={"models": models}), sha256)
    except (Reject, Retry) as refusal:
        return Finding("bad", "model", f"slot {slot}: {refusal.reason}: {refusal.detail}")
    seconds = loaded.run_ms * MILLI
    name = f"{loaded.model_id or 'unlabelled'} version {loaded.version}"
    detail = f"slot {slot}: {name}: {seconds:.2g} s for a strip on this processor, golden strip {loaded.golden}"
    figures = {"seconds_per_strip": seconds}
    if seconds < config.inference.deadline_seconds:
        return Finding("good", "model", detail, figures)
    return Finding("bad", "model", f"{detail}; longer than inference.deadline_seconds", figures)


def _missing_mib(size_bytes: int) -> float:
    """Say how much memory is missing for another worker; 0.0 or less where there is enough."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return MEMORY_OF_ITS_FILE * size_bytes / 2**20 + MEMORY_BESIDE_MIB - available_kib / 2**10
