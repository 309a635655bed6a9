"""The agent's own folder of models, and what has to be remembered of each slot. It outlives the ledger.

<state>/store/<sha256>.onnx            models that were accepted; nothing else is ever loaded to score strips
<state>/store/slots/<slot>.candidate   the copy that is being tried
<state>/store/slots/<slot>.json        the slot's state: what is active, previous, refused
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agent.errors import Retry
from agent.files import fsync_folder, remove_temporary_files, write_atomically
from agent.models.slot_state import Accepted, Refusal, SlotState

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

SLOT_FILE_FORMAT = 1
_PLAIN_FIELDS = ("active", "previous", "highest_version", "on_probation", "probation_counts", "returned", "seen")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A slot's state as its file told it; `problem` says why it could not be read."""

    state: SlotState
    problem: str = ""


class Store:
    """One for the whole service: its slots take turns at what concerns all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def model_path(self, sha256: str) -> Path:
        """Where an accepted model is kept."""
        return self.folder / f"{sha256}.onnx"

    def candidate_path(self, slot: str) -> Path:
        """Where a slot's candidate is copied to."""
        return self.folder / "slots" / f"{slot}.candidate"

    def load(self, slot: str) -> Loaded:
        """Read a slot's state; one that was never written is empty."""
        path = self._slot_path(slot)
        try:
            fields = json.loads(path.read_bytes())
            accepted = {sha: Accepted(**values) for sha, values in fields["accepted"].items()}
            refused = {key: Refusal(**values) for key, values in fields["refused"].items()}
            plain: dict[str, Any] = {name: fields[name] for name in _PLAIN_FIELDS}
            return Loaded(SlotState(accepted=accepted, refused=refused, **plain))
        except FileNotFoundError:
            return Loaded(SlotState())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return Loaded(SlotState(), f"{path} cannot be read ({type(error).__name__}: {error})")

    def save(self, slot: str, state: SlotState) -> None:
        """Replace a slot's file atomically; raises Retry (the box is to blame) where that cannot be done."""
        with self._lock:
            self._save(slot, state)

    def accept(self, slot: str, sha256: str, state: SlotState, *, is_candidate: bool) -> None:
        """Keep the slot's candidate under its digest, where it is not there yet, and save the state that names it.

        Raises Retry.
        The model's name comes first: whatever a slot's file names is there.
        """
        try:
            with self._lock:
                if is_candidate:
                    self.candidate_path(slot).replace(self.model_path(sha256))
                    fsync_folder(self.folder)
                self._save(slot, state)
        except OSError as error:
            raise Retry.of_box(error, f"cannot keep model {sha256[:12]} in the store") from error

    def sweep(self) -> list[str]:
        """Remove the models that no slot wants any more, and what killed processes left; return the models' names."""
        removed = []
        with self._lock:
            remove_temporary_files(self.folder)
            slots = [self.load(path.stem) for path in (self.folder / "slots").glob("*.json")]
            if any(slot.problem for slot in slots):
                return []  # nobody knows what it wants
            wanted = {sha256 for slot in slots for sha256 in slot.state.accepted}
            try:
                for path in self.folder.glob("*.onnx"):
                    if path.stem not in wanted:
                        path.unlink(missing_ok=True)
                        removed.append(path.stem)
            except OSError as error:
                log.warning("cannot remove a model from the store: %s", error)
        return removed

    def drop_candidate(self, slot: str) -> None:
        """Remove the copy of a candidate, if there is one."""
        try:
            self.candidate_path(slot).unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove %s: %s", self.candidate_path(slot), error)

    def _slot_path(self, slot: str) -> Path:
        return self.folder / "slots" / f"{slot}.json"

    def _save(self, slot: str, state: SlotState) -> None:
        fields = {"format": SLOT_FILE_FORMAT, **asdict(state)}
        try:
            write_atomically(self._slot_path(slot), json.dumps(fields, indent=1).encode())
        except OSError as error:
            raise Retry.of_box(error, f"cannot write the state of slot {slot}") from error
