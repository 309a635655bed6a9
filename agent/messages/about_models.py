"""What happens to a slot's models, and what is active."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.messages.base import Count, Message, Sha256OrNone, UtcText, UtcTextOrNone


class ModelEvent(Message):
    """Something happened to a slot's models."""

    schema_: Annotated[Literal["model-event/1"], Field(alias="schema")] = "model-event/1"
    """Name and version of this message."""
    msg_id: Annotated[str, Field(min_length=1)]
    """The same event sent twice carries the same one: drop repeats by it."""
    ts: UtcText
    """When it happened, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    slot: Annotated[str, Field(min_length=1)]
    """The slot it happened to."""
    event: Literal[
        "activated",
        "rejected",
        "rolled_back",
        "probation_passed",
        "superseded",
        "unchanged",
        "shadowed",
        "shadow_ended",
    ]
    """`unchanged`: the pushed file is known already; `rolled_back`: the model failed on probation and is withdrawn;
    `shadowed`, `shadow_ended`: from now on, or no longer, it scores beside the active one and decides nothing."""
    model_id: str
    """The model this is about; "" when its file could not be read."""
    version: Count
    """Its version; 0 when it has none."""
    sha256: Sha256OrNone
    """Digest of its file; "" when it could not be read."""
    file: str
    """Its file, relative to the inbox; "" when it did not come from there."""
    reason: str
    """Why, one of the codes in docs/reasons.md; "" when there is nothing to explain."""
    detail: str
    """The same as a sentence, with the measured numbers."""
    active_model_id: str
    """The model that scores from now on; "" when there is none."""
    active_sha256: Sha256OrNone
    """Its digest; "" when there is none."""
    previous_sha256: Sha256OrNone
    """The model that scored before; "" when there was none."""
    return_detail: str
    """After `rolled_back`: how the return to the previous model went; "" otherwise."""


class ModelState(Message):
    """What is active in a slot, and what was refused last and why."""

    schema_: Annotated[Literal["model-state/1"], Field(alias="schema")] = "model-state/1"
    """Name and version of this message."""
    slot: Annotated[str, Field(min_length=1)]
    """Name of the slot."""
    active_model_id: str
    """The model that scores; "" when there is none."""
    active_version: Count
    """Its version; 0 when it has none."""
    active_sha256: Sha256OrNone
    """Digest of its file; "" when there is none."""
    active_since: UtcTextOrNone
    """Since when it scores, UTC; "" when there is none."""
    golden: Literal["passed", "none"]
    """Whether it reproduced its golden strip on this box; `none`: its file brought none."""
    on_probation: bool
    """It is still watched, and the previous one comes back when it fails."""
    previous_sha256: Sha256OrNone
    """The model before it; "" when there is none."""
    last_refused_sha256: Sha256OrNone
    """The model that was refused last; "" when none was."""
    last_refused_file: str
    """Its file, relative to the inbox."""
    last_refused_reason: str
    """Why, one of the codes in docs/reasons.md."""
    last_refused_detail: str
    """The same as a sentence, with the measured numbers."""
    last_refused_ts: UtcTextOrNone
    """When, UTC."""
    ts: UtcText
    """When this was written, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
