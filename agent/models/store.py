"""The agent's own folder of models, and what has to be remembered of each slot. It outlives the ledger.

<state>/store/<sha256>.onnx            models that were accepted; nothing else is ever loaded to score strips
<state>/store/slots/<slot>.candidate   the copy that is being tried
<state>/store/slots/<slot>.json        the slot's state: what is active, previous, refused
<state>/store/slots/<slot>.dealt       what of its inbox has been dealt with (models/dealt_with.py)
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agent.errors import Retry
from agent.files import fsync_folder, remove_temporary_files, write_atomically
from agent.models.slot_state import MAX_PLAUSIBLE_VERSION, Accepted, Dealt, Refusal, Shadow, SlotState, Telling

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

SLOT_FILE_FORMAT = 1
_PLAIN_FIELDS = ("active", "previous", "on_probation", "probation_counts", "returned")
_LATER_FIELDS = {"tellings": 0}  # an earlier release wrote no such thing


@dataclass(frozen=True, slots=True)
class Loaded:
    """A slot's state as its file told it; `problem` says why it could not be read."""

    state: SlotState
    problem: str = ""
    seen: dict[str, str] = field(default_factory=dict)  # file name -> key, as an earlier release remembered them


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

    def dealt_path(self, slot: str) -> Path:
        """Where it is remembered what of a slot's inbox has been dealt with."""
        return self.folder / "slots" / f"{slot}.dealt"

    def load(self, slot: str) -> Loaded:
        """Read a slot's state; one that was never written is empty."""
        path = self._slot_path(slot)
        try:
            fields = json.loads(path.read_bytes())
            accepted = {sha: Accepted(**values) for sha, values in fields["accepted"].items()}
            refused = {key: Refusal(**values) for key, values in fields["refused"].items()}
            untold = tuple(Telling(**values) for values in fields.get("untold", ()))
            plain: dict[str, Any] = {name: fields[name] for name in _PLAIN_FIELDS}
            plain |= {name: fields.get(name, default) for name, default in _LATER_FIELDS.items()}
            plain["version_floor"] = fields.get("version_floor", _old_floor(fields["highest_version"], accepted))
            unwritten = tuple(Dealt(**values) for values in fields.get("unwritten", ()))
            shadow = _shadow_of(fields.get("shadow"))
            state = SlotState(
                accepted=accepted, refused=refused, untold=untold, unwritten=unwritten, shadow=shadow, **plain
            )
            _check_together(state)
            return Loaded(state, seen=dict(fields.get("seen", {})))
        except FileNotFoundError:
            return Loaded(SlotState())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return Loaded(SlotState(), f"{path} cannot be read ({type(error).__name__}: {error})")

    def active_sizes(self, slots: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return (height, width) of the strips that the active model takes, for the slots that have one."""
        states = {slot: self.load(slot).state for slot in slots}
        active = {slot: state.accepted.get(state.active) for slot, state in states.items()}
        return {slot: (model.height, model.width) for slot, model in active.items() if model is not None}

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
        """Remove the models that no slot wants any more, and what killed processes left; return the models' names.

        Raises nothing: what cannot be removed stays until the next time.
        """
        removed = []
        with self._lock:
            try:
                remove_temporary_files(self.folder)
                slots = [self.load(path.stem) for path in (self.folder / "slots").glob("*.json")]
                if any(slot.problem for slot in slots):
                    return []  # nobody knows what it wants
                wanted = {sha256 for slot in slots for sha256 in slot.state.kept}
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
        fields = {"format": SLOT_FILE_FORMAT, **asdict(state), "highest_version": state.highest_version}
        try:
            write_atomically(self._slot_path(slot), json.dumps(fields, indent=1).encode())
        except OSError as error:
            raise Retry.of_box(error, f"cannot write the state of slot {slot}") from error


def _shadow_of(fields: dict[str, Any] | None) -> Shadow | None:
    """Read the slot's shadow; an earlier release wrote none."""
    return None if fields is None else Shadow(**fields | {"facts": Accepted(**fields["facts"])})


def _check_together(state: SlotState) -> None:
    """See that what is active is known, and that numbers are numbers. Raises ValueError."""
    if not {state.active, state.previous} - {""} <= state.accepted.keys():
        raise ValueError("a model is active or previous that was never accepted")
    numbers = (state.version_floor, state.tellings, *state.probation_counts.values())
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise ValueError("a count is no whole number that could be")


def _old_floor(highest_version: int, accepted: dict[str, Accepted]) -> int:
    """Make a version floor out of what an earlier release remembered, which withdrawn models had raised for good."""
    kept = max((facts.version for facts in accepted.values()), default=0)
    return highest_version if kept < highest_version <= MAX_PLAUSIBLE_VERSION else 0
