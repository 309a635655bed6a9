"""Commands about models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.control.context import CommandError
from agent.control.on_reviews import by_model
from agent.control.reports import models_of_slots
from agent.errors import Retry
from agent.models.slot_record import SlotRecord
from agent.models.store import Store

if TYPE_CHECKING:
    from agent.control.arguments import Arguments, Forgetting, OneModel, OneSlot
    from agent.control.context import Context, Who
    from agent.models.journey import ModelJourney


def models_list(context: Context, _: Arguments, __: Who) -> dict[str, Any]:
    """List the models of all slots and what happened to them."""
    models = context.ledger.models
    return {
        "slots": models_of_slots(context),
        "models": models.list_models(),
        "activations": models.activations(),
        "reviews": by_model(context),
        "postponed": {slot: journey.postponed.describe() for slot, journey in context.models.items()},
        "inboxes": {slot: journey.inbox.describe() for slot, journey in context.models.items()},
    }


def activate(context: Context, asked: OneModel, _: Who) -> dict[str, Any]:
    """Make a model active that was looked at before; it goes through the trial."""
    journey = _journey(context, asked.slot)
    return {"sha256": journey.requests.activate(asked.digest), "slot": asked.slot}


def rollback(context: Context, asked: OneSlot, _: Who) -> dict[str, Any]:
    """Go back to the previous model; the active one is withdrawn."""
    journey = _journey(context, asked.slot)
    return {"sha256": journey.requests.roll_back(), "slot": asked.slot}


def models_forget(context: Context, asked: Forgetting, _: Who) -> dict[str, Any]:
    """Take back what was said against a model."""
    if context.models:
        requests = _journey(context, asked.slot).requests
        sha256 = requests.forget(asked.digest) if asked.digest else requests.forget_highest_version()
        return {"sha256": sha256, "slot": asked.slot}
    if asked.slot not in context.config.slots:
        raise CommandError(f"there is no slot {asked.slot!r}; configured are {', '.join(context.config.slots)}")
    try:
        record = stored_record(context, asked.slot)
        sha256 = record.find_refused(asked.digest) if asked.digest else ""
        if sha256:
            record.forget(sha256)
        else:
            record.forget_highest_version()
    except Retry as error:
        raise CommandError(f"it cannot be written down: {error}") from error
    return {"sha256": sha256, "slot": asked.slot}


def stored_record(context: Context, slot: str) -> SlotRecord:
    """Return what is on record of a slot, without a service. Raises Retry where it cannot be read."""
    store = Store(context.config.agent.state_folder / "store")
    record = SlotRecord(slot, context.config, context.ledger, store, lambda _slot, _state: None)
    record.recall()
    return record


def _journey(context: Context, slot: str) -> ModelJourney:
    if not context.models:
        raise CommandError(
            "the service is not running: a model is activated only after a trial in its worker; start it"
        )
    if slot not in context.models:
        raise CommandError(f"there is no slot {slot!r}; configured are {', '.join(context.models)}")
    return context.models[slot]
