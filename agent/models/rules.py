"""What a model must satisfy beyond the contract: its papers, its version, its speed. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.contract.manifest import check_manifest_fits
from agent.errors import Blame, Reason, Reject, Retry

if TYPE_CHECKING:
    from agent.contract.manifest import Manifest
    from agent.models.slot_state import Accepted
    from agent.wire import Loaded

NOBODY_WAITS_MS = 20.0
TIMES_THE_BOX_IS_TO_BLAME = 3
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10, 600

BYTES_ARE_TO_BLAME = frozenset(
    {
        Reason.MODEL_UNREADABLE,
        Reason.MODEL_CRASHED,
        Reason.MODEL_TRIAL_TIMEOUT,
        Reason.MODEL_NEEDS_TOO_MUCH_MEMORY,
        Reason.MODEL_TOO_SLOW,
        Reason.MODEL_NAMES,
        Reason.MODEL_AXES,
        Reason.MODEL_DTYPES,
        Reason.MODEL_SHAPES,
        Reason.MODEL_METADATA,
        Reason.GOLDEN_DAMAGED,
        Reason.GOLDEN_MISMATCH,
        Reason.INPUT_SCALE_DOUBTFUL,
        Reason.INFERENCE_FAILED,
        Reason.OUTPUT_WRONG_SHAPE,
        Reason.OUTPUT_NON_FINITE,
        Reason.OUTPUT_OUT_OF_RANGE,
        Reason.OUTPUT_OTHER_CHANNELS,
    }
)
"""Refusals that hold for these bytes under any name; the others may be mended by another manifest or another place."""


def check_papers(
    manifest: Manifest | None, *, sha256: str, size: int, slot: str, highest_version: int, rollback_is_signed: bool
) -> None:
    """Check that the manifest speaks of this file, this slot, and no older version. Raises Reject."""
    if manifest is None:
        return
    check_manifest_fits(manifest, sha256=sha256, size=size)
    if manifest.slot != slot:
        raise Reject(Reason.MANIFEST_WRONG_SLOT, f"the manifest is for slot {manifest.slot!r}, this is {slot!r}")
    if not (manifest.rollback and rollback_is_signed):
        check_version(manifest.version, highest_version)


def check_version(version: int, highest_version: int) -> None:
    """Refuse a version below the highest that was ever accepted. Raises Reject."""
    if version < highest_version:
        detail = f"version {version} is older than {highest_version}, the highest that was accepted"
        raise Reject(Reason.VERSION_TOO_LOW, f"{detail}; sign it as a rollback to go back on purpose")


def check_same_digest(found: str, wanted: str) -> None:
    """Refuse a file that is not the one that an operator asked for. Raises Reject."""
    if found != wanted:
        raise Reject(Reason.DIGEST_MISMATCH, f"the file changed: {wanted[:12]} was asked for, it is {found[:12]} now")


def check_facts(loaded: Loaded, manifest: Manifest | None, highest_version: int) -> None:
    """Check that the model agrees with its manifest, or without one that it is new enough. Raises Reject."""
    if manifest is None:
        if loaded.labelled:
            check_version(loaded.version, highest_version)
        return
    if loaded.labelled and (manifest.model_id, manifest.version) != (loaded.model_id, loaded.version):
        stated = f"{manifest.model_id} version {manifest.version}"
        found = f"{loaded.model_id} version {loaded.version}"
        raise Reject(Reason.MANIFEST_CONTRADICTED, f"the manifest says {stated}, the model says {found}")


def check_size(loaded: Loaded, active: Accepted | None) -> None:
    """Refuse a model for strips of another size than the active one's: it could judge none of them. Raises Reject."""
    if active is None or not active.height or (loaded.height, loaded.width) == (active.height, active.width):
        return
    detail = f"it takes {loaded.height} x {loaded.width} pixels, the active model {active.height} x {active.width}"
    raise Reject(Reason.MODEL_SHAPES, f"{detail}; if the cameras have changed, use `strip-agent models activate`")


def check_speed(loaded: Loaded, active: Accepted | None, ratio: float | None) -> None:
    """Compare with the active model, by the clock and by the processor's time, which other processes do not stretch.

    Raises Reject where both are too long, and Retry (the box is too busy to tell) where only the clock says so.
    """
    if active is None or ratio is None or not is_too_slow(loaded.run_ms, active.run_ms, ratio):
        return
    detail = f"takes {loaded.run_ms:.0f} ms a strip, the active model {active.run_ms:.0f} ms"
    detail = f"{detail}; tolerated is {ratio:g} times (models.probation.max_latency_ratio)"
    if is_too_slow(loaded.cpu_ms, active.cpu_ms, ratio):
        raise Reject(Reason.MODEL_TOO_SLOW, detail)
    busy = f"{detail}; but the processor worked {loaded.cpu_ms:.0f} ms on it, so the box is too busy to time it"
    raise Retry(Reason.BOX_BUSY, busy, Blame.BOX)


def is_too_slow(found_ms: float, before_ms: float, ratio: float) -> bool:
    """Say whether a model is slower than the one before by more than `ratio`; nobody waits for a few milliseconds."""
    return before_ms > 0 and found_ms > NOBODY_WAITS_MS and found_ms > ratio * before_ms


DOUBTFUL = {
    Reason.KILLED: Reason.MODEL_NEEDS_TOO_MUCH_MEMORY,
    Reason.BOX_BUSY: Reason.MODEL_TOO_SLOW,
    Reason.MODEL_TRIAL_TIMEOUT: Reason.MODEL_TRIAL_TIMEOUT,
}
"""Faults of the box that a model may be behind, and what they become when they come back whenever it is tried."""


def decide_box_fault(error: Retry, times: int) -> Reject | None:
    """Return the refusal that a fault of the box has become after so many `times`; None while it is the box's."""
    if error.reason not in DOUBTFUL or times < TIMES_THE_BOX_IS_TO_BLAME:
        return None
    return Reject(DOUBTFUL[error.reason], f"in {times} trials: {error.detail}", model_fault=True)


def pause_seconds(times: int) -> float:
    """Return how long a file waits after that many faults of the box in a row."""
    return float(min(FIRST_PAUSE_SECONDS * 2 ** (times - 1), LONGEST_PAUSE_SECONDS))
