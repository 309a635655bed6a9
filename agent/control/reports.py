"""How the agent is and what it has done: the status and the audit."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.control.on_reviews import by_model
from agent.ledger.audit import ACKNOWLEDGED, PENDING, STATES
from agent.models.store import Store

if TYPE_CHECKING:
    from agent.control.arguments import Arguments, Part, Since
    from agent.control.context import Context, Who

STAYING_NAMED = 5  # files of each camera


def status(context: Context, _: Arguments, __: Who) -> dict[str, Any]:
    """Tell how the service is and what it has done."""
    report = context.ledger.report
    balances = [asdict(balance) for balance in report.balances()]
    return {
        "version": __version__,
        "agent": context.config.agent.name,
        "running": context.live is not None,
        "cameras": {balance["camera"]: balance for balance in balances},
        "abandoned": {
            balance["camera"]: balance["waiting"]
            for balance in balances
            if balance["waiting"] and balance["camera"] not in cameras_of(context)
        },
        "paused": {camera: asdict(pause) for camera, pause in context.ledger.operators.paused.items()},
        "thresholds": {camera: asdict(told) for camera, told in context.ledger.operators.thresholds.items()},
        "staying": context.ledger.strips.name_staying(STAYING_NAMED),
        "seen_again": context.ledger.strips.seen_again(),
        "strips": _sums(balances),
        "outbox": asdict(report.depths()),
        "models": models_of_slots(context),
        "reviews": by_model(context),
        **(context.live() if context.live is not None else {}),
    }


def cameras_of(context: Context) -> set[str]:
    """Return the configured cameras."""
    return {camera.name for camera in context.config.cameras}


def _sums(balances: list[dict[str, Any]]) -> dict[str, int]:
    sums = {key: sum(balance[key] for balance in balances) for key in ("seen", *STATES)}
    sums["pending"] = sum(sums[state] for state in PENDING)
    sums["acknowledged"] = sum(sums[state] for state in ACKNOWLEDGED)
    return sums


def models_of_slots(context: Context) -> dict[str, Any]:
    """Tell what is active in each slot."""
    shown = {}
    for slot in context.config.slots:
        loaded = Store(context.config.agent.state_folder / "store").load(slot)
        state = loaded.state
        facts = state.accepted.get(state.active)
        shown[slot] = {
            "active_sha256": state.active,
            "active_model_id": facts.model_id if facts else "",
            "active_version": facts.version if facts else 0,
            "golden": facts.golden if facts else "none",
            "on_probation": state.on_probation,
            "previous_sha256": state.previous,
            "shadow_sha256": state.shadow.sha256 if state.shadow else "",
            "shadow_off": state.shadow.reason if state.shadow else "",
            "returned": state.returned,
            "problem": loaded.problem,
        }
    return shown


def audit(context: Context, asked: Since, _: Who) -> dict[str, Any]:
    """Prove that no strip is lost; name what is not published, up to a number."""
    audit = context.ledger.report.audit(since_ms=asked.since_ms)
    balances = [asdict(balance) for balance in audit.cameras]
    sums = _sums(balances)
    return {
        "balanced": audit.balanced,
        "problems": audit.problems,
        "stream": audit.stream,
        "last_seq": audit.last_seq,
        "since_ms": asked.since_ms,
        "seen_again": context.ledger.strips.seen_again(),
        "strips": sums,
        "cameras": {
            balance["camera"]: balance
            | {"pending": balance["waiting"] + balance["judged"]}
            | {"acknowledged": sum(balance[state] for state in ACKNOWLEDGED)}
            for balance in balances
        },
        "unpublished": _with_lost_cameras(context, audit.unpublished),
        "unpublished_up_to": audit.unpublished_up_to,
        "unpublished_not_named": audit.unpublished_not_named,
    }


def unpublished(context: Context, asked: Part, _: Who) -> dict[str, Any]:
    """Name more of what is not published."""
    named, up_to = context.ledger.report.unpublished(since_ms=asked.since_ms, after_row=asked.after_row)
    return {"unpublished": _with_lost_cameras(context, named), "unpublished_up_to": up_to}


def _with_lost_cameras(context: Context, unpublished: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for item in unpublished:
        if item["state"] == "waiting" and item["camera"] not in cameras_of(context):
            item["why"] = "waits for ever: its camera is not configured any more"
    return unpublished
