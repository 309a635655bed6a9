"""How a slot's shadow compares, as the messages `state/shadow` and `event/shadow`. Pure functions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from agent.clock import now_ms
from agent.ledger.shadow import Events
from agent.messages import ShadowEvent, ShadowState, encode, shadow_event_topic, utc_text
from agent.records import show_name

if TYPE_CHECKING:
    from agent.config import Config
    from agent.ledger import Comparison
    from agent.ledger.shadow import Opinion
    from agent.models.slot_state import Shadow, SlotState
    from agent.wire import Loaded

Doing = Literal["starting", "scoring", "waiting", "off"]


def make_shadow_state(
    agent: str,
    slot: str,
    state: SlotState,
    shadow: Shadow,
    found: Comparison,
    doing: Doing,
    loaded: Loaded | None = None,
) -> ShadowState:
    """Make the retained message; `found` is the comparison with the model that is active now.

    `loaded` is what the shadow's worker said, None while none has loaded it.
    """
    active = state.accepted.get(state.active)
    ts_ms = now_ms()
    return ShadowState(
        agent=agent,
        slot=slot,
        state="off" if shadow.reason else doing,
        reason=shadow.reason,
        detail=shadow.detail,
        shadow_model_id=shadow.facts.model_id,
        shadow_version=shadow.facts.version,
        shadow_sha256=shadow.sha256,
        since=utc_text(shadow.since_ms),
        active_model_id=active.model_id if active else "",
        active_version=active.version if active else 0,
        active_sha256=state.active,
        compared=found.compared,
        agreed=found.agreed,
        agreement=found.agreement,
        flips_to_anomalous=found.to_anomalous,
        flips_to_ok=found.to_ok,
        invalid=found.invalid,
        missed=found.missed,
        score_shift=found.mean_shift,
        score_shift_abs=found.mean_abs_shift,
        inference_ms=found.mean_inference_ms,
        shadow_run_ms=shadow.facts.run_ms,
        active_run_ms=active.run_ms if active else 0.0,
        provider=loaded.provider if loaded else "",
        provider_refused=loaded.provider_refused if loaded else "",
        last_compared_ts=utc_text(found.last_ms) if found.compared else "",
        ts=utc_text(ts_ms),
        ts_ms=ts_ms,
    )


def events_of(config: Config, slot: str, sha256: str, stream: str) -> Events:
    """Say how the opinions of a shadow are told; `stream` is the ledger's."""
    payload = partial(_make_event, config.agent.name, slot, sha256, stream)
    return Events(shadow_event_topic(slot), payload, config.outbox.max_messages)


def _make_event(agent: str, slot: str, sha256: str, stream: str, opinion: Opinion, msg_id: str, ts_ms: int) -> bytes:
    published = opinion.published
    return encode(
        ShadowEvent(
            msg_id=msg_id,
            ts=utc_text(ts_ms),
            ts_ms=ts_ms,
            agent=agent,
            slot=slot,
            camera=published.strip.camera,
            strip_id=published.strip.strip_id,
            file=show_name(published.strip.path),
            result_msg_id=f"{stream}-{published.seq}",
            verdict="anomalous" if published.verdict == "anomalous" else "ok",
            score=published.score,
            active_sha256=published.model_sha256,
            shadow_verdict=opinion.verdict,
            shadow_score=opinion.score,
            shadow_threshold=opinion.threshold,
            shadow_reason=opinion.reason,
            shadow_sha256=sha256,
            shadow_inference_ms=opinion.inference_ms,
            disagrees=opinion.disagrees,
        )
    )
