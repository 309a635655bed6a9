"""Tells what happened to a slot's models: its row and its event in the ledger, and a line in the log.

What is not told yet is a list in the slot's file. It is worked off here, each entry once, also after a power cut
between two of its steps: the ledger knows up to which number it has been told.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.ledger import Changes, ModelRecord
from agent.logs import event
from agent.messages import model_event_topic
from agent.models.message import make_event

if TYPE_CHECKING:
    from agent.config import Config
    from agent.ledger import Ledger
    from agent.models.slot_state import SlotState, Telling

log = logging.getLogger(__name__)


def places(state: SlotState) -> dict[str, str]:
    """Give the models that are kept, sha256 -> active | previous | accepted | shadow."""
    found = dict.fromkeys(state.kept, "shadow") | dict.fromkeys(state.accepted, "accepted")
    return found | {sha: place for sha, place in ((state.previous, "previous"), (state.active, "active")) if sha}


def tell(telling: Telling, state: SlotState, slot: str, config: Config, ledger: Ledger) -> None:
    """Tell one thing; `state` is the slot's now. Raises Retry where the ledger cannot take it: nothing is told then."""
    record = ModelRecord(**telling.row)
    return_detail = telling.return_detail
    judged = ledger.models.count_judged(record.sha256) if telling.counts_judged else 0
    if judged:
        again = f"strip-agent strips retry --model {record.sha256[:12]}"
        return_detail += f"; {judged} strips were judged by the other: {again}"
    if return_detail:
        record.facts["return_detail"] = return_detail

    def payload(msg_id: str) -> bytes:
        return make_event(config.agent.name, slot, telling, record, return_detail, msg_id)

    changes = Changes(slot, places(state), (record,) if telling.writes_row else ())
    ledger.models.record(changes, telling.number, model_event_topic(slot), payload, config.outbox.max_messages)
    level = logging.ERROR if telling.event in ("rejected", "rolled_back") else logging.WARNING
    said = " ".join(part for part in (telling.reason, telling.detail, return_detail) if part)
    event(log, level, "model", f"slot {slot}: model {record.file or record.sha256[:12]} {telling.event}: {said}",
          slot=slot, event=telling.event, sha256=record.sha256)  # fmt: skip
