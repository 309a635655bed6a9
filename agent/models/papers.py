"""What speaks for a file of the inbox before it is tried: that it is not known yet, its manifest, its signature."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.contract.manifest import MANIFEST_SUFFIX, parse_manifest_file, verify_signature
from agent.errors import Blame, Reason, Reject, Retry
from agent.models.rules import check_papers
from agent.models.slot_state import Fate

if TYPE_CHECKING:
    from agent.contract.manifest import SignedManifest
    from agent.models.dealt_with import DealtWith
    from agent.models.happenings import Candidate
    from agent.models.intake import Arrival
    from agent.models.trusted_keys import TrustedKeys


@dataclass(frozen=True, slots=True)
class Papers:
    """What a slot demands of manifests."""

    slot: str
    signature_required: bool
    trusted_keys: TrustedKeys

    def read(self, arrival: Arrival) -> SignedManifest | None:
        """Read a manifest, verified where signatures are required or its key is one of ours; None when there is none.

        Raises Reject when it is malformed, or not signed as it has to be, and Retry while the key with which it is
        signed may be one that is trusted and cannot be read.
        """
        if arrival.manifest is None:
            if self.signature_required:
                name = arrival.file.name
                raise Reject(Reason.MANIFEST_MISSING, f"{name} has no {name}{MANIFEST_SUFFIX} beside it")
            return None
        signed = parse_manifest_file(arrival.manifest)
        if self.signature_required and not signed.signature:
            raise Reject(Reason.SIGNATURE_MISSING, "its manifest is not signed, and models.require_signature is set")
        known = self.trusted_keys.known
        if signed.signature and signed.key_id not in known:
            for file, why in self.trusted_keys.missing.items():
                raise Retry(Reason.IO_ERROR, f"its key may be in {file} (models.trusted_keys): {why}", Blame.BOX)
        if self.signature_required or signed.key_id in known:
            verify_signature(signed, known)
        return signed

    def check(self, candidate: Candidate, arrival: Arrival, highest_version: int | None) -> Candidate:
        """Return the candidate with its manifest. Raises Reject where that does not let it in."""
        signed = self.read(arrival)
        candidate = replace(candidate, manifest=signed.manifest if signed else None)
        check_papers(
            candidate.manifest,
            sha256=candidate.sha256,
            size=candidate.size_bytes,
            slot=self.slot,
            highest_version=highest_version,
            rollback_is_signed=signed is not None and signed.key_id in self.trusted_keys.known,
        )
        return candidate

    def fate(self, arrival: Arrival, dealt: DealtWith, active: str) -> str:
        """Return how these bytes have been dealt with, a Fate; "" where they are to be tried.

        What turned bad stays withdrawn, though the push with which it came in was accepted. A rollback that is signed
        and new brings back what was good once, or was never tried. So does any new manifest what was only a shadow.
        """
        pushed_before = dealt.kind_of(arrival.push)
        known = dealt.kind_of(arrival.sha256)
        fate = known if known == Fate.WITHDRAWN else pushed_before or known
        if fate == Fate.SHADOW and not pushed_before and arrival.manifest is not None:
            return ""  # another manifest says anew what it is to be; without one a shadow never becomes active
        may_come_back = fate in (Fate.ACCEPTED, Fate.SUPERSEDED, Fate.OUTDATED) and arrival.sha256 != active
        if may_come_back and not pushed_before and self._is_signed_rollback(arrival):
            return ""
        return fate

    def _is_signed_rollback(self, arrival: Arrival) -> bool:
        try:
            signed = self.read(arrival)
        except Reject:
            return False
        return signed is not None and signed.manifest.rollback and signed.key_id in self.trusted_keys.known
