"""What is told of models: the messages `event/model` and `state/model`. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from agent.clock import now_ms
from agent.messages import ModelEvent, ModelState, encode, utc_text

if TYPE_CHECKING:
    from agent.ledger import ModelRecord
    from agent.models.slot_state import SlotState, Telling
    from agent.wire import Loaded

Event = Literal[
    "activated", "rejected", "rolled_back", "probation_passed", "superseded", "unchanged", "shadowed", "shadow_ended"
]


def make_event(agent: str, slot: str, telling: Telling, record: ModelRecord, return_detail: str, msg_id: str) -> bytes:
    """Make the event that tells what happened to a model."""
    return encode(
        ModelEvent(
            msg_id=msg_id,
            ts=utc_text(telling.ts_ms),
            ts_ms=telling.ts_ms,
            agent=agent,
            slot=slot,
            event=cast("Event", telling.event),
            model_id=record.model_id,
            version=record.version,
            sha256=record.sha256,
            file=record.file,
            reason=telling.reason,
            detail=telling.detail,
            active_model_id=telling.active_model_id,
            active_sha256=telling.active_sha256,
            previous_sha256=telling.previous_sha256,
            return_detail=return_detail,
        )
    )


def make_state(agent: str, slot: str, state: SlotState) -> ModelState:
    """Make the retained message of a slot."""
    ts_ms = now_ms()
    active = state.accepted.get(state.active)
    refused = next(reversed(state.refused.values()), None)
    return ModelState(
        agent=agent,
        slot=slot,
        active_model_id=active.model_id if active else "",
        active_version=active.version if active else 0,
        active_sha256=state.active,
        active_since=utc_text(active.since_ms) if active else "",
        golden="passed" if active and active.golden == "passed" else "none",
        on_probation=state.on_probation,
        previous_sha256=state.previous,
        last_refused_sha256=refused.sha256 if refused else "",
        last_refused_file=refused.file if refused else "",
        last_refused_reason=refused.reason if refused else "",
        last_refused_detail=refused.detail if refused else "",
        last_refused_ts=utc_text(refused.ts_ms) if refused else "",
        ts=utc_text(ts_ms),
        ts_ms=ts_ms,
    )


def trial_summary(loaded: Loaded) -> str:
    """Say in a sentence what a model's trial showed."""
    golden = "it brought no golden strip"
    if loaded.golden == "passed":
        golden = f"its golden strip was reproduced within {loaded.golden_difference:.6f}"
    scale = "" if loaded.labelled else f", it takes {loaded.input_scale} input"
    by = "" if loaded.provider == "cpu" else f" with {loaded.provider}"
    by += f" on the cpu, as it cannot be computed by {loaded.provider_refused}" if loaded.provider_refused else ""
    return f"{golden}{scale}; one strip takes {loaded.run_ms:.0f} ms{by}"
