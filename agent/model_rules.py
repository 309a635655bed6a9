"""What a model must satisfy beyond the contract: its papers, its version, its speed. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import Reason, Reject

if TYPE_CHECKING:
    from agent.config import ModelsSection
    from agent.manifest import Manifest
    from agent.wire import Loaded

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
    }
)
"""Refusals that hold for these bytes under any name; the others may be mended by another manifest or another place."""


def check_papers(
    manifest: Manifest | None, *, sha256: str, size: int, slot: str, highest_version: int, rollback_is_signed: bool
) -> None:
    """Check that the manifest speaks of this file, this slot, and no older version. Raises Reject."""
    if manifest is None:
        return
    if (manifest.sha256, manifest.size) != (sha256, size):
        stated = f"{manifest.size} bytes with digest {manifest.sha256[:12]}"
        raise Reject(Reason.DIGEST_MISMATCH, f"the manifest speaks of {stated}, the file has {size} with {sha256[:12]}")
    if manifest.slot != slot:
        raise Reject(Reason.MANIFEST_WRONG_SLOT, f"the manifest is for slot {manifest.slot!r}, this is {slot!r}")
    if not (manifest.rollback and rollback_is_signed):
        check_version(manifest.version, highest_version)


def check_version(version: int, highest_version: int) -> None:
    """Refuse a version below the highest that was ever accepted. Raises Reject."""
    if version < highest_version:
        detail = f"version {version} is older than {highest_version}, the highest that was accepted"
        raise Reject(Reason.VERSION_TOO_LOW, f"{detail}; sign it as a rollback to go back on purpose")


def check_facts(
    loaded: Loaded, manifest: Manifest | None, highest_version: int, limits: ModelsSection, active_run_ms: float
) -> None:
    """Check what the trial found out: does it agree with the manifest, is it new enough and fast enough. Raises Reject.

    `active_run_ms` is 0.0 when there is nothing to compare with.
    """
    if (
        manifest is not None
        and loaded.labelled
        and (manifest.model_id, manifest.version)
        != (
            loaded.model_id,
            loaded.version,
        )
    ):
        stated = f"{manifest.model_id} version {manifest.version}"
        found = f"{loaded.model_id} version {loaded.version}"
        raise Reject(Reason.MANIFEST_CONTRADICTED, f"the manifest says {stated}, the model says {found}")
    if manifest is None and loaded.labelled:
        check_version(loaded.version, highest_version)
    ratio = limits.probation.max_latency_ratio
    if ratio is not None and active_run_ms and loaded.run_ms > ratio * active_run_ms:
        detail = f"takes {loaded.run_ms:.0f} ms a strip, the active model {active_run_ms:.0f} ms"
        raise Reject(
            Reason.MODEL_TOO_SLOW, f"{detail}; tolerated is {ratio:g} times (models.probation.max_latency_ratio)"
        )
