"""What people ask for: status, audit, strips, models. One handler for the control socket and for the command line.

Every answer is made of plain JSON values. A request that cannot be met raises CommandError with a sentence for people.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.ledger.report import ACKNOWLEDGED, PENDING, STATES
from agent.models.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.models.journey import ModelJourney

MAX_LISTED = 100_000
RETRY_BATCH = 200  # strips in one transaction
STAYING_NAMED = 5  # files of each camera
STRIP_DIGITS = 16
MODEL_DIGITS = 8  # fewer might mean a model that nobody thought of


class CommandError(Exception):
    """The request cannot be met; the text is for people."""


@dataclass(frozen=True, slots=True)
class Context:
    """What commands work on. `live` tells what only a running service knows; without one it is None."""

    config: Config
    ledger: Ledger
    models: Mapping[str, ModelJourney]  # empty without a service
    live: Callable[[], dict[str, Any]] | None = None
    ring: Callable[[], None] = lambda: None  # there may be something to do


def handle(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request `{"command": ..., ...}` with `{"ok": true, ...}` or `{"ok": false, "error": ...}`."""
    command = request.get("command")
    handler = _HANDLERS.get(command) if isinstance(command, str) else None
    if handler is None:
        return {"ok": False, "error": f"unknown command {str(command)[:80]!r}; known are {', '.join(_HANDLERS)}"}
    arguments = {key: value for key, value in request.items() if key != "command"}
    try:
        return {"ok": True, **handler(context, **arguments)}
    except TypeError as error:
        return {"ok": False, "error": f"{command}: wrong arguments: {error}"}
    except (CommandError, LookupError) as error:
        return {"ok": False, "error": str(error)}


def _status(context: Context) -> dict[str, Any]:
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
            if balance["waiting"] and balance["camera"] not in _cameras(context)
        },
        "staying": context.ledger.strips.name_staying(STAYING_NAMED),
        "seen_again": context.ledger.strips.seen_again(),
        "strips": _sums(balances),
        "outbox": asdict(report.depths()),
        "models": _models_of_slots(context),
        **(context.live() if context.live is not None else {}),
    }


def _cameras(context: Context) -> set[str]:
    return {camera.name for camera in context.config.cameras}


def _sums(balances: list[dict[str, Any]]) -> dict[str, int]:
    sums = {key: sum(balance[key] for balance in balances) for key in ("seen", *STATES)}
    sums["pending"] = sum(sums[state] for state in PENDING)
    sums["acknowledged"] = sum(sums[state] for state in ACKNOWLEDGED)
    return sums


def _models_of_slots(context: Context) -> dict[str, Any]:
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
            "returned": state.returned,
            "problem": loaded.problem,
        }
    return shown


def _audit(context: Context, *, since_ms: int = 0) -> dict[str, Any]:
    audit = context.ledger.report.audit(since_ms=since_ms)
    balances = [asdict(balance) for balance in audit.cameras]
    sums = _sums(balances)
    return {
        "balanced": audit.balanced,
        "problems": audit.problems,
        "stream": audit.stream,
        "last_seq": audit.last_seq,
        "since_ms": since_ms,
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


def _unpublished(context: Context, *, since_ms: int, after_row: int) -> dict[str, Any]:
    named, up_to = context.ledger.report.unpublished(since_ms=int(since_ms), after_row=int(after_row))
    return {"unpublished": _with_lost_cameras(context, named), "unpublished_up_to": up_to}


def _with_lost_cameras(context: Context, unpublished: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for item in unpublished:
        if item["state"] == "waiting" and item["camera"] not in _cameras(context):
            item["why"] = "waits for ever: its camera is not configured any more"
    return unpublished


def _strips_list(
    context: Context, *, state: str | None = None, camera: str | None = None, model: str | None = None, limit: int = 50
) -> dict[str, Any]:
    if state not in (None, "pending", "acknowledged", *STATES):
        raise CommandError(f"there is no state {state!r}; known are pending, acknowledged, {', '.join(STATES)}")
    limit = max(1, min(int(limit), MAX_LISTED))
    model = None if model is None else _digits(model, "a model", MODEL_DIGITS, 64)
    found = context.ledger.report.list_strips(state=state, camera=camera, model=model, limit=limit + 1)
    return {"strips": found[:limit], "cut": len(found) > limit}


def _strips_show(context: Context, *, strip_id: str) -> dict[str, Any]:
    shown = context.ledger.report.show_strip(_digits(strip_id, "a strip", 1, STRIP_DIGITS))
    if shown is None:
        raise CommandError(f"no strip, or more than one, has an id that begins with {strip_id!r}")
    return {"strip": shown}


def _strips_retry(context: Context, *, strip_ids: list[str], model: str | None = None) -> dict[str, Any]:
    model = None if model is None else _digits(model, "a model", MODEL_DIGITS, 64)
    named, refused = _find_strips(context, strip_ids)
    retried = _retry(context, named, refused)
    row = 0
    while model is not None and (batch := dict(context.ledger.report.judged_by(model, row, RETRY_BATCH))):
        row = max(batch)
        retried += _retry(context, batch, refused)
    context.ring()
    return {"retried": retried, "refused": refused}


def _find_strips(context: Context, strip_ids: list[str]) -> tuple[dict[int, str], dict[str, str]]:
    """Return the strips that are meant, row -> id, and what means none, with the reason."""
    named: dict[int, str] = {}
    refused: dict[str, str] = {}
    for strip_id in strip_ids:
        found = context.ledger.report.find_strips(_digits(strip_id, "a strip", 1, STRIP_DIGITS))
        if len(found) == 1:
            named.update(found)
        else:
            refused[strip_id] = "more than one strip's id begins so" if found else "no such strip"
    return named, refused


def _retry(context: Context, strips: dict[int, str], refused: dict[str, str]) -> list[str]:
    """Give strips (row -> id) back to the queue; add to `refused`, return the ids of the others."""
    refused_rows = context.ledger.strips.retry(list(strips), _cameras(context))
    refused.update({strips[row]: why for row, why in refused_rows.items()})
    return [strip_id for row, strip_id in strips.items() if row not in refused_rows]


def _digits(text: str, what: str, least: int, most: int) -> str:
    if not isinstance(text, str) or not re.fullmatch(f"[0-9a-fA-F]{{{least},{most}}}", text):
        raise CommandError(f"{str(text)[:80]!r} does not name {what}: {least} to {most} hexadecimal digits do")
    return text.lower()


def _models_list(context: Context) -> dict[str, Any]:
    models = context.ledger.models
    return {
        "slots": _models_of_slots(context),
        "models": models.list_models(),
        "activations": models.activations(),
        "postponed": {slot: journey.postponed.describe() for slot, journey in context.models.items()},
    }


def _models_activate(context: Context, *, digest: str, slot: str = "default") -> dict[str, Any]:
    journey = _journey(context, slot)
    return {"sha256": journey.activate(digest), "slot": slot}


def _models_rollback(context: Context, *, slot: str = "default") -> dict[str, Any]:
    journey = _journey(context, slot)
    return {"sha256": journey.roll_back(), "slot": slot}


def _journey(context: Context, slot: str) -> ModelJourney:
    if not context.models:
        raise CommandError(
            "the service is not running: a model is activated only after a trial in its worker; start it"
        )
    if slot not in context.models:
        raise CommandError(f"there is no slot {slot!r}; configured are {', '.join(context.models)}")
    return context.models[slot]


CHANGING_COMMANDS = frozenset({"strips_retry", "models_activate", "models_rollback"})
_HANDLERS: dict[str, Callable[..., dict[str, Any]]] = {
    "status": _status,
    "audit": _audit,
    "unpublished": _unpublished,
    "strips_list": _strips_list,
    "strips_show": _strips_show,
    "strips_retry": _strips_retry,
    "models_list": _models_list,
    "models_activate": _models_activate,
    "models_rollback": _models_rollback,
}
