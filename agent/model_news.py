"""What is told of models: the ledger's rows, `event/model` and `state/model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from agent import messages
from agent.ledger import ModelRecord
from agent.ledger.strips import now_ms
from agent.messages import ModelEvent, ModelState, utc_text

if TYPE_CHECKING:
    from agent.config import Config
    from agent.ledger import Ledger
    from agent.store import SlotState
    from agent.wire import Loaded

Event = Literal["activated", "rejected", "rolled_back", "probation_passed", "superseded", "unchanged"]
_STATES = {"activated": "active", "probation_passed": "active", "rejected": "rejected", "rolled_back": "withdrawn",
           "superseded": "superseded"}  # fmt: skip


def tell(
    config: Config,
    ledger: Ledger,
    slot: str,
    state: SlotState,
    what: Event,
    *,
    sha256: str,
    file: str,
    model_id: str = "",
    version: int = 0,
    reason: str = "",
    detail: str = "",
    return_detail: str = "",
    facts: dict[str, Any] | None = None,
) -> None:
    """Record what happened to a model and queue the event; `state` is the slot's afterwards. Raises Retry."""
    active = state.accepted.get(state.active)

    def payload(msg_id: str, ts_ms: int) -> bytes:
        return messages.encode(
            ModelEvent(
                msg_id=msg_id,
                ts=utc_text(ts_ms),
                ts_ms=ts_ms,
                agent=config.agent.name,
                slot=slot,
                event=what,
                model_id=model_id,
                version=version,
                sha256=sha256,
                file=file,
                reason=reason,
                detail=detail,
                active_model_id=active.model_id if active else "",
                active_sha256=state.active,
                previous_sha256=state.previous,
                return_detail=return_detail,
            )
        )

    record = None
    if what in _STATES:
        record = ModelRecord(slot, sha256, _STATES[what], file, model_id, version, reason, detail, facts or {})
    ledger.models.record(record, messages.model_event_topic(slot), payload, config.outbox.max_messages)


def model_state(slot: str, state: SlotState) -> ModelState:
    """Make the retained message of a slot."""
    active = state.accepted.get(state.active)
    refused_sha256, refused = next(reversed(state.refused.items()), ("", None))
    return ModelState(
        slot=slot,
        active_model_id=active.model_id if active else "",
        active_version=active.version if active else 0,
        active_sha256=state.active,
        active_since=utc_text(active.since_ms) if active else "",
        golden="passed" if active and active.golden == "passed" else "none",
        on_probation=state.on_probation,
        previous_sha256=state.previous,
        last_refused_sha256="" if refused_sha256.startswith("unread:") else refused_sha256,
        last_refused_file=refused.file if refused else "",
        last_refused_reason=refused.reason if refused else "",
        last_refused_detail=refused.detail if refused else "",
        last_refused_ts=utc_text(refused.ts_ms) if refused else "",
        ts=utc_text(now_ms()),
    )


def proof_of(loaded: Loaded) -> str:
    """Say in a sentence what a model's trial showed."""
    golden = "it brought no golden strip"
    if loaded.golden == "passed":
        golden = f"its golden strip was reproduced within {loaded.golden_difference:.6f}"
    return f"{golden}; one strip takes {loaded.run_ms:.0f} ms"
