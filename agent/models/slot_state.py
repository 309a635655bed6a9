"""What is remembered of a slot's models, and how it changes. Pure functions; `agent/store.py` keeps it on the disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSALS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Accepted:
    """A model that passed its trial. Times are milliseconds for one strip; the date is Unix milliseconds."""

    model_id: str
    version: int
    height: int  # pixels
    width: int
    golden: str  # passed | none
    run_ms: float  # in its trial
    cpu_ms: float  # in its trial, of all threads together
    since_ms: int  # when it became active last
    file: str  # its name in the inbox, for people only
    serving_ms: float = 0.0  # the median on strips of the line, known when it is replaced


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file, or the bytes of a model, that are not taken again from the inbox."""

    kind: str  # rejected | withdrawn
    sha256: str  # "" when the file could not be read
    reason: str
    detail: str
    file: str
    ts_ms: int


@dataclass(frozen=True, slots=True)
class SlotState:
    """Everything that has to be remembered of a slot. Models are named by their sha256."""

    active: str = ""
    previous: str = ""
    highest_version: int = 0  # that was ever accepted; going back does not lower it
    on_probation: bool = False
    probation_counts: dict[str, int] = field(default_factory=dict)  # judged, anomalous, faults: survive a restart
    returned: str = ""  # why the active model is not the one that was accepted last; "" when it is
    accepted: dict[str, Accepted] = field(default_factory=dict)  # in the order in which they became active
    refused: dict[str, Refusal] = field(default_factory=dict)  # oldest first; by sha256 or by `file_key`
    seen: dict[str, str] = field(default_factory=dict)  # file name -> InboxFile.key that has been dealt with

    def file_of(self, sha256: str) -> str:
        """Return the name that a known model had in the inbox."""
        facts = self.accepted.get(sha256) or self.refused.get(sha256)
        return facts.file if facts else ""


def file_key(name: str) -> str:
    """Name a refusal that holds for a file, not for the bytes of a model."""
    return f"file:{name}"


def activate(state: SlotState, sha256: str, accepted: Accepted, *, on_probation: bool, keep: int) -> SlotState:
    """Make a model active, the active one previous, and forget the oldest accepted ones beyond `keep`."""
    others = {name: facts for name, facts in state.accepted.items() if name != sha256}
    kept = dict(list(others.items())[-(keep - 1) :])
    return replace(
        state,
        active=sha256,
        previous=_newest(kept),
        highest_version=max(state.highest_version, accepted.version),
        on_probation=on_probation,
        probation_counts={},
        returned="",
        accepted=kept | {sha256: accepted},
        refused={key: refusal for key, refusal in state.refused.items() if key != sha256},
    )


def go_back(state: SlotState, sha256: str, since_ms: int, why: str, left: Refusal | None) -> SlotState:
    """Make an earlier model active and give up the active one.

    With `left` that one is withdrawn: it is not taken from the inbox again. Without, its file is looked at again.
    """
    bad = state.active
    rest = {name: facts for name, facts in state.accepted.items() if name not in (bad, sha256)}
    seen = state.seen if left is not None else look_again(state, bad).seen
    refused = {key: refusal for key, refusal in state.refused.items() if key != bad}
    return replace(
        state,
        active=sha256,
        previous=_newest(rest),
        on_probation=False,
        probation_counts={},
        returned=why,
        accepted=rest | {sha256: replace(state.accepted[sha256], since_ms=since_ms)},
        refused=refused if left is None else _newest_refusals(refused | {bad: left}),
        seen=seen,
    )


def look_again(state: SlotState, sha256: str) -> SlotState:
    """Let the inbox's file of a model whose own copy is damaged be taken again."""
    return replace(state, seen={name: key for name, key in state.seen.items() if name != state.file_of(sha256)})


def refuse(state: SlotState, key: str, refusal: Refusal) -> SlotState:
    """Remember a refusal; the newest hundred are kept."""
    return replace(
        state, refused=_newest_refusals({k: r for k, r in state.refused.items() if k != key} | {key: refusal})
    )


def rebuild(rows: Mapping[str, Mapping[str, Any]]) -> SlotState:
    """Make a slot's state out of the ledger's rows (key -> row, earliest change first): its file is damaged."""
    states = {state: [key for key, row in rows.items() if row["state"] == state] for state in _KEPT}
    accepted = {key: _accepted_of(rows[key]) for state in _KEPT for key in states[state]}
    refused = {
        key: Refusal(row["state"], row["sha256"], row["reason"], row["detail"], row["file"], row["changed_ms"])
        for key, row in rows.items()
        if row["state"] in ("rejected", "withdrawn")
    }
    once_accepted = [row["version"] for row in rows.values() if row["state"] not in ("rejected", "candidate")]
    return SlotState(
        active=next(iter(states["active"]), ""),
        previous=next(iter(states["previous"]), ""),
        highest_version=max(once_accepted, default=0),
        accepted=accepted,
        refused=_newest_refusals(refused),
    )


_KEPT = ("accepted", "previous", "active")


def _accepted_of(row: Mapping[str, Any]) -> Accepted:
    facts = row["facts"]
    return Accepted(
        row["model_id"],
        row["version"],
        facts.get("height", 0),
        facts.get("width", 0),
        facts.get("golden", "none"),
        facts.get("run_ms", 0.0),
        facts.get("cpu_ms", 0.0),
        row["changed_ms"],
        row["file"],
    )


def _newest(accepted: dict[str, Accepted]) -> str:
    return next(reversed(accepted), "")


def _newest_refusals(refused: dict[str, Refusal]) -> dict[str, Refusal]:
    return dict(list(refused.items())[-REFUSALS_KEPT:])
