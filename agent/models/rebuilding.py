"""What the ledger still knows of a slot whose file, or list of what has been dealt with, is damaged. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.models.slot_state import (
    MAX_PLAUSIBLE_VERSION,
    Accepted,
    Dealt,
    Fate,
    Refusal,
    Shadow,
    SlotState,
    newest_refusals,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def rebuild(rows: Mapping[str, Mapping[str, Any]]) -> SlotState:
    """Make a slot's state out of the ledger's rows (key -> row, earliest change first): its file is damaged."""
    states = {state: [key for key, row in rows.items() if row["state"] == state] for state in _KEPT}
    accepted = {key: _accepted_of(rows[key]) for state in _KEPT for key in states[state]}
    refused = {
        key: Refusal(row["state"], row["sha256"], row["reason"], row["detail"], row["file"], row["changed_ms"])
        for key, row in rows.items()
        if row["state"] in ("rejected", "withdrawn")
    }
    shadows = [key for key, row in rows.items() if row["state"] == "shadow"]
    once_accepted = [row["version"] for row in rows.values() if row["state"] == "superseded"]
    return SlotState(
        active=next(iter(states["active"]), ""),
        previous=next(iter(states["previous"]), ""),
        version_floor=max((one for one in once_accepted if one <= MAX_PLAUSIBLE_VERSION), default=0),
        accepted=accepted,
        refused=newest_refusals(refused),
        shadow=Shadow(shadows[-1], rows[shadows[-1]]["changed_ms"], _accepted_of(rows[shadows[-1]]))
        if shadows
        else None,
    )


def dealt_before(rows: Mapping[str, Mapping[str, Any]]) -> list[Dealt]:
    """Give what the ledger's rows (key -> row) know of models that have been dealt with."""
    kinds = dict.fromkeys(("active", "previous", "accepted"), Fate.ACCEPTED)
    kinds |= {"shadow": Fate.SHADOW, "was_shadow": Fate.SHADOW}
    kinds |= {"superseded": Fate.SUPERSEDED, "withdrawn": Fate.WITHDRAWN, "rejected": Fate.REJECTED}
    found = []
    for key, row in rows.items():
        kind = kinds.get(row["state"])
        if kind is Fate.REJECTED and key != row["sha256"]:
            kind = Fate.OUTDATED if row["reason"] == "version_too_low" else None
        if kind is not None and row["sha256"]:
            found.append(Dealt("", "", row["sha256"], "", kind))
    return found


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
