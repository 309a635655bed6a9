"""How a slot's shadow compares with its active model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.messages.base import Count, Duration, Message, Sha256OrNone, UtcText, UtcTextOrNone

Share = Annotated[float, Field(ge=0, le=1)]


class ShadowEvent(Message):
    """What a shadow says of a strip that was published. It decides nothing; it is for whoever compares models."""

    schema_: Annotated[Literal["shadow-event/1"], Field(alias="schema")] = "shadow-event/1"
    """Name and version of this message."""
    msg_id: Annotated[str, Field(min_length=1)]
    """The same event sent twice carries the same one: drop repeats by it."""
    ts: UtcText
    """When it was written down, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    slot: Annotated[str, Field(min_length=1)]
    """The slot of both models."""
    camera: Annotated[str, Field(min_length=1)]
    """The strip's camera."""
    strip_id: Annotated[str, Field(min_length=1)]
    """The strip, as in its results."""
    file: str
    """The strip's file, relative to the camera's folder."""
    result_msg_id: Annotated[str, Field(min_length=1)]
    """`msg_id` of the result that it is compared with."""
    verdict: Literal["ok", "anomalous"]
    """What was published."""
    score: float
    """The score that was published."""
    active_sha256: Sha256OrNone
    """The model that judged it."""
    shadow_verdict: Literal["ok", "anomalous", "invalid"]
    """What the shadow says."""
    shadow_score: float
    """Its score; -1.0 when it could not judge."""
    shadow_threshold: float
    """The threshold that it was held to."""
    shadow_reason: str
    """Why it could not judge, one of the codes in docs/reasons.md; "" otherwise."""
    shadow_sha256: Sha256OrNone
    """Digest of its file."""
    shadow_inference_ms: Duration
    """Time of its model, with one thread, while others go first."""
    disagrees: bool
    """The two verdicts differ."""


class ShadowState(Message):
    """How a slot's shadow compares with its active model. While there is no shadow, nothing is retained."""

    schema_: Annotated[Literal["shadow-state/1"], Field(alias="schema")] = "shadow-state/1"
    """Name and version of this message."""
    slot: Annotated[str, Field(min_length=1)]
    """Name of the slot."""
    state: Literal["starting", "scoring", "waiting", "off"]
    """`starting`: its model is being loaded, or will be after a pause; `waiting`: for an active model, or for a trial
    that needs its memory; `off`: it was switched off, see `reason`."""
    reason: str
    """Why it was switched off, one of the codes in docs/reasons.md; "" while it is not."""
    detail: str
    """The same as a sentence."""
    shadow_model_id: str
    """The shadow; "" when its file does not say."""
    shadow_version: Count
    """Its version; 0 when it has none."""
    shadow_sha256: Sha256OrNone
    """Digest of its file."""
    since: UtcText
    """Since when it is the shadow, UTC."""
    active_model_id: str
    """The active model, which it is compared with; "" when there is none."""
    active_version: Count
    """Its version; 0 when it has none."""
    active_sha256: Sha256OrNone
    """Digest of its file; "" when there is none."""
    compared: Count
    """Strips that the shadow was given and the active model has judged. All counts begin anew with another model."""
    agreed: Count
    """Those with the same verdict."""
    agreement: Share
    """`agreed` of `compared`; 0.0 while there are none."""
    flips_to_anomalous: Count
    """Published as ok, and the shadow says anomalous."""
    flips_to_ok: Count
    """Published as anomalous, and the shadow says ok."""
    invalid: Count
    """The shadow could not judge them: a fault of its model, or light that it was not calibrated for."""
    missed: Count
    """Not compared: the file was gone before the shadow came to it, or it was too far behind."""
    score_shift: float
    """Mean of the shadow's score minus the published one."""
    score_shift_abs: Duration
    """Mean of the differences of the scores without their sign."""
    inference_ms: Duration
    """Mean time of the shadow's model for one strip: with one thread, while others go first."""
    shadow_run_ms: Duration
    """Time of the shadow for one strip in its trial on this box, with all threads: compare it with `active_run_ms`."""
    active_run_ms: Duration
    """The same of the active model; 0.0 when there is none."""
    provider: str
    """What computes the shadow (`inference.provider`); "" while it is not loaded."""
    provider_refused: str
    """Why that is the cpu and not what was asked for; "" where it is."""
    last_compared_ts: UtcTextOrNone
    """When strips were compared last, UTC; "" while none were."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    ts: UtcText
    """When this was written, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
