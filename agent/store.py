"""The agent's own folder of models, named by their digest, and what has to be remembered of each slot.

<state>/store/<sha256>.onnx       accepted models, and the one that is being tried
<state>/store/slots/<slot>.json   what is active, previous, refused: it outlives the ledger
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent.contract import CONTRACT
from agent.errors import Retry
from agent.files import remove_temporary_files, write_atomically

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

SLOT_FILE_FORMAT = 1
REFUSALS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Accepted:
    """A model that passed its trial."""

    model_id: str
    version: int
    golden: str  # passed | none
    run_ms: float
    since_ms: int  # when it became active last, Unix milliseconds
    file: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A model that is not taken again from the inbox."""

    kind: str  # rejected | withdrawn
    reason: str
    detail: str
    file: str
    ts_ms: int


@dataclass(frozen=True, slots=True)
class SlotState:
    """Everything that has to be remembered of a slot. Models are named by their sha256."""

    active: str = ""
    previous: str = ""
    highest_version: int = 0
    on_probation: bool = False
    accepted: dict[str, Accepted] = field(default_factory=dict)  # oldest first
    refused: dict[str, Refusal] = field(default_factory=dict)  # oldest first
    seen: dict[str, str] = field(default_factory=dict)  # file name -> InboxFile.key that has been dealt with


def model_path(store: Path, sha256: str) -> Path:
    """Where a model is kept."""
    return store / f"{sha256}.onnx"


def is_intact(store: Path, sha256: str) -> bool:
    """Say whether the store still holds the very bytes of a model."""
    try:
        with model_path(store, sha256).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def sweep(store: Path, wanted: Collection[str]) -> list[str]:
    """Remove leftovers of dead processes and the models that no slot wants any more; return the models' names."""
    remove_temporary_files(store)
    removed = []
    for path in store.glob("*.onnx"):
        if path.stem not in wanted:
            path.unlink(missing_ok=True)
            removed.append(path.stem)
    for path in store.glob(".incoming.*.tmp"):
        path.unlink(missing_ok=True)
    return removed


def load_slot(store: Path, slot: str) -> tuple[SlotState, str]:
    """Read a slot's state and say what was wrong with its file ("" when nothing was)."""
    path = store / "slots" / f"{slot}.json"
    try:
        fields = json.loads(path.read_bytes())
        accepted = {sha: Accepted(**values) for sha, values in fields["accepted"].items()}
        refused = {sha: Refusal(**values) for sha, values in fields["refused"].items()}
        known = {name: fields[name] for name in ("active", "previous", "highest_version", "on_probation", "seen")}
        return SlotState(accepted=accepted, refused=refused, **known), ""
    except FileNotFoundError:
        return SlotState(), ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return SlotState(), f"{path} cannot be read ({error}); the slot starts anew"


def save_slot(store: Path, slot: str, state: SlotState) -> None:
    """Replace a slot's file atomically; raises Retry (the box is to blame) where that cannot be done."""
    fields: dict[str, Any] = {"format": SLOT_FILE_FORMAT, "contract": CONTRACT, **asdict(state)}
    try:
        write_atomically(store / "slots" / f"{slot}.json", json.dumps(fields, indent=1).encode())
    except OSError as error:
        raise Retry.of_box(error, f"cannot write the state of slot {slot}") from error


def activate(state: SlotState, sha256: str, accepted: Accepted, *, on_probation: bool, keep: int) -> SlotState:
    """Make a model active, the active one previous, and forget accepted ones beyond `keep`."""
    previous = state.active if state.active not in ("", sha256) else state.previous
    order = {name: facts for name, facts in state.accepted.items() if name not in (sha256, previous)}
    order |= {name: state.accepted[name] for name in (previous,) if name in state.accepted} | {sha256: accepted}
    kept = dict(list(order.items())[-keep:])
    return replace(
        state,
        active=sha256,
        previous=previous if previous in kept else "",
        highest_version=max(state.highest_version, accepted.version),
        on_probation=on_probation,
        accepted=kept,
        refused={name: refusal for name, refusal in state.refused.items() if name != sha256},
    )


def refuse(state: SlotState, sha256: str, refusal: Refusal, name: str, key: str) -> SlotState:
    """Remember a refusal and that the file has been dealt with; the newest hundred are kept."""
    refused = {old: facts for old, facts in state.refused.items() if old != sha256} | {sha256: refusal}
    return replace(state, refused=dict(list(refused.items())[-REFUSALS_KEPT:]), seen=state.seen | {name: key})


def withdraw(state: SlotState, sha256: str, file: str, reason: str, detail: str) -> SlotState:
    """Take a model out of the accepted ones: it is not taken from the inbox again."""
    refusal = Refusal("withdrawn", reason, detail, file, time.time_ns() // 1_000_000)
    return replace(
        state,
        previous="" if state.previous == sha256 else state.previous,
        accepted={name: facts for name, facts in state.accepted.items() if name != sha256},
        refused={name: old for name, old in state.refused.items() if name != sha256} | {sha256: refusal},
    )


def step_back(state: SlotState, sha256: str, since_ms: int) -> SlotState:
    """Make the previous model the active one again; then there is no previous one."""
    facts = replace(state.accepted[sha256], since_ms=since_ms)
    rest = {name: old for name, old in state.accepted.items() if name != sha256}
    return replace(state, active=sha256, previous="", on_probation=False, accepted=rest | {sha256: facts})


def wanted_by_all_slots(store: Path) -> set[str]:
    """Return the models that some slot has accepted and keeps."""
    wanted = set()
    for path in (store / "slots").glob("*.json"):
        state, _ = load_slot(store, path.stem)
        wanted |= set(state.accepted) | {state.active, state.previous}
    return wanted - {""}
