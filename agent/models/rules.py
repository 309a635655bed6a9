"""What a model must satisfy beyond the contract: its papers, its version, its speed. Pure functions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.clock import BUILT_MS, now_ms
from agent.contract.manifest import check_manifest_fits
from agent.errors import Blame, Reason, Reject, Retry
from agent.models.slot_state import MAX_PLAUSIBLE_VERSION

if TYPE_CHECKING:
    from agent.contract.manifest import Manifest
    from agent.models.slot_state import Accepted, SlotState
    from agent.wire import Loaded

LOOK_LIKE_SECONDS = range(1_000_000_000, 10_000_000_000)  # Unix seconds from 2001 to 2286
TEN_YEARS_SECONDS = 315_576_000
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
        Reason.MODEL_BLIND,
        Reason.INFERENCE_FAILED,
        Reason.OUTPUT_WRONG_SHAPE,
        Reason.OUTPUT_NON_FINITE,
        Reason.OUTPUT_OUT_OF_RANGE,
        Reason.OUTPUT_OTHER_CHANNELS,
    }
)
"""Refusals that hold for these bytes under any name; the others may be mended by another manifest or another place."""


def check_papers(
    manifest: Manifest | None,
    *,
    sha256: str,
    size: int,
    slot: str,
    highest_version: int | None,
    rollback_is_signed: bool,
) -> None:
    """Check that the manifest speaks of this file, this slot, and no older version. Raises Reject.

    `highest_version` is None where an operator asked for it: the version does not matter then.
    """
    if manifest is None:
        return
    check_manifest_fits(manifest, sha256=sha256, size=size)
    if manifest.slot != slot:
        raise Reject(Reason.MANIFEST_WRONG_SLOT, f"the manifest is for slot {manifest.slot!r}, this is {slot!r}")
    if highest_version is None:
        return
    check_plausible(manifest.version, now_ms())
    if not (manifest.rollback and rollback_is_signed):
        check_version(manifest.version, highest_version)


def check_plausible(version: int, clock_ms: int) -> None:
    """Refuse a version far ahead of all that can come later: once accepted it would hold them off. Raises Reject.

    Versions that look like Unix seconds may lie ten years ahead of the clock `clock_ms`, Unix milliseconds; one that is
    before the build date is not believed.
    """
    if version > MAX_PLAUSIBLE_VERSION:
        raise Reject(Reason.VERSION_IMPLAUSIBLE, f"version {version} is above 2^52, so none could follow it")
    now_seconds = max(clock_ms, BUILT_MS) // 1000
    if version in LOOK_LIKE_SECONDS and version > now_seconds + TEN_YEARS_SECONDS:
        when = datetime.fromtimestamp(version, UTC).date()
        ahead = f"version {version} as a time is {when}, more than ten years ahead of this box's clock"
        raise Reject(Reason.VERSION_IMPLAUSIBLE, ahead)


def check_version(version: int, highest_version: int) -> None:
    """Refuse a version below the highest that was accepted and not withdrawn. Raises Reject."""
    if version < highest_version:
        detail = f"version {version} is older than {highest_version}, the highest that was accepted"
        raise Reject(Reason.VERSION_TOO_LOW, f"{detail}; sign it as a rollback to go back on purpose")


def check_same_digest(found: str, wanted: str) -> None:
    """Refuse a file that is not the one that an operator asked for. Raises Reject."""
    if found != wanted:
        raise Reject(Reason.DIGEST_MISMATCH, f"the file changed: {wanted[:12]} was asked for, it is {found[:12]} now")


def check_trial(loaded: Loaded, manifest: Manifest | None, state: SlotState, ratio: float | None) -> None:
    """Check what a trial showed. Raises Reject, and Retry where the box is too busy to tell how fast a model is."""
    active = state.accepted.get(state.active)
    check_facts(loaded, manifest, state.highest_version)
    check_states_a_version(loaded, manifest, active)
    check_size(loaded, active)
    check_speed(loaded, active, ratio)


def check_facts(loaded: Loaded, manifest: Manifest | None, highest_version: int) -> None:
    """Check that the model agrees with its manifest, or without one that it is new enough. Raises Reject."""
    if manifest is None:
        if loaded.labelled:
            check_plausible(loaded.version, now_ms())
            check_version(loaded.version, highest_version)
        return
    if loaded.labelled and (manifest.model_id, manifest.version) != (loaded.model_id, loaded.version):
        stated = f"{manifest.model_id} version {manifest.version}"
        found = f"{loaded.model_id} version {loaded.version}"
        raise Reject(Reason.MANIFEST_CONTRADICTED, f"the manifest says {stated}, the model says {found}")


def check_states_a_version(loaded: Loaded, manifest: Manifest | None, active: Accepted | None) -> None:
    """Refuse a file that states no version where the active model does: it may be older. Raises Reject."""
    if loaded.labelled or manifest is not None or active is None or not active.version:
        return
    detail = f"the file states no version, the active model has version {active.version}"
    raise Reject(Reason.VERSION_TOO_LOW, f"{detail}; `strip-agent models activate` takes it all the same")


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
