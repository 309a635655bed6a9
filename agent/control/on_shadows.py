"""Commands about shadows: models that score beside the active ones and decide nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.control.arguments import WorstPairs
from agent.control.context import CommandError
from agent.control.on_models import stored_record
from agent.errors import Retry
from agent.models.requests import find_for_shadow
from agent.models.store import Store
from agent.shadow.rules import SHARE

if TYPE_CHECKING:
    from agent.control.arguments import Shadowing
    from agent.control.context import Context, Who
    from agent.ledger import Comparison
    from agent.models.slot_state import Accepted, SlotState


def shadow(context: Context, asked: WorstPairs, _: Who) -> dict[str, Any]:
    """Tell how a slot's shadow compares with its active model, and which strips they see most differently."""
    state = _state(context, asked.slot)
    sha256 = state.shadow.sha256 if state.shadow else ""
    results = context.ledger.shadow
    cameras = [camera.name for camera in context.config.cameras if camera.slot == asked.slot]
    loaded = context.models[asked.slot].slot.shadow_facts if asked.slot in context.models else None
    return {
        "slot": asked.slot,
        "shadow": _model(sha256, state.shadow.facts if state.shadow else None)
        | {
            "since_ms": state.shadow.since_ms if state.shadow else 0,
            "reason": state.shadow.reason if state.shadow else "",
            "detail": state.shadow.detail if state.shadow else "",
            "share": SHARE,
            "events": state.shadow.events if state.shadow else False,
            "provider": loaded.provider if loaded else "",
            "provider_refused": loaded.provider_refused if loaded else "",
        },
        "active": _model(state.active, state.accepted.get(state.active)),
        "comparison": _shown(results.comparison(asked.slot, sha256, state.active))
        | {"behind": results.behind(asked.slot, sha256, cameras) if sha256 else 0},
        "worst": results.worst(asked.slot, sha256, state.active, asked.limit),
    }


def shadows(context: Context, who: Who, worst: int) -> dict[str, Any]:
    """Tell the same of each slot that has a shadow, with so many pairs."""
    told = {slot: shadow(context, WorstPairs(slot=slot, limit=worst), who) for slot in context.config.slots}
    return {slot: facts for slot, facts in told.items() if facts["shadow"]["sha256"]}


def set_shadow(context: Context, asked: Shadowing, _: Who) -> dict[str, Any]:
    """Have a model of the store score beside the active one, or none; nothing is promoted by that."""
    if context.models:
        if asked.slot not in context.models:
            raise _no_slot(context, asked.slot)
        requests = context.models[asked.slot].requests
        sha256 = requests.shadow(asked.digest, events=asked.events) if asked.digest else requests.end_shadow()
        return {"slot": asked.slot, "sha256": sha256, "on": bool(asked.digest)}
    if asked.slot not in context.config.slots:
        raise _no_slot(context, asked.slot)
    try:
        record = stored_record(context, asked.slot)
        if asked.digest:
            sha256 = find_for_shadow(record.state, asked.digest)
            record.choose_shadow(sha256, events=asked.events)
        elif record.state.shadow is None:
            raise CommandError(f"slot {asked.slot} has no shadow")
        else:
            sha256 = record.state.shadow.sha256
            record.end_shadow(sha256)
    except Retry as error:
        raise CommandError(f"it cannot be written down: {error}") from error
    return {"slot": asked.slot, "sha256": sha256, "on": bool(asked.digest)}


def _state(context: Context, slot: str) -> SlotState:
    if slot not in context.config.slots:
        raise _no_slot(context, slot)
    if slot in context.models:
        return context.models[slot].state
    return Store(context.config.agent.state_folder / "store").load(slot).state


def _no_slot(context: Context, slot: str) -> CommandError:
    return CommandError(f"there is no slot {slot!r}; configured are {', '.join(context.config.slots)}")


def _model(sha256: str, facts: Accepted | None) -> dict[str, Any]:
    return {
        "sha256": sha256,
        "model_id": facts.model_id if facts else "",
        "version": facts.version if facts else 0,
        "run_ms": facts.run_ms if facts else 0.0,
    }


def _shown(found: Comparison) -> dict[str, Any]:
    return asdict(found) | {
        "agreement": found.agreement,
        "mean_shift": found.mean_shift,
        "mean_abs_shift": found.mean_abs_shift,
        "mean_inference_ms": found.mean_inference_ms,
    }
