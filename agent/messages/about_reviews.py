"""The message that passes on what a person says about a strip."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.messages.base import Count, Message, Sha256OrNone, UtcText


class ReviewEvent(Message):
    """A person has said something about a strip. It never changes a result; it is for whoever trains and counts.

    Of several reviews of a strip by the same person the latest one counts.
    """

    schema_: Annotated[Literal["review-event/1"], Field(alias="schema")] = "review-event/1"
    """Name and version of this message."""
    msg_id: Annotated[str, Field(min_length=1)]
    """The same event sent twice carries the same one: drop repeats by it."""
    ts: UtcText
    """When it was said, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    camera: Annotated[str, Field(min_length=1)]
    """The strip's camera."""
    strip_id: Annotated[str, Field(min_length=1)]
    """The strip, as in its results."""
    part_id: str
    """Of its result; "" when there is none."""
    file: str
    """The strip's file, relative to the camera's folder."""
    finding: Literal["defect", "no_defect", "unsure"]
    """What the person says: `no_defect` of an anomalous strip is a false alarm, `defect` of an ok one a miss."""
    by: Annotated[str, Field(min_length=1)]
    """The name that the person gave; `event/command` tells who the system says it was."""
    remark: str
    """A remark; "" when there is none."""
    replaces: bool
    """The same person has reviewed this strip before, and this is said instead."""
    result_msg_id: str
    """`msg_id` of the result that it is about; "" when the strip has none yet."""
    revision: Count
    """Revision of that result; 0 when there is none."""
    verdict: Literal["", "ok", "anomalous", "invalid"]
    """Its verdict; "" when there is none."""
    score: float
    """Its score; -1.0 when there is none."""
    model_id: str
    """The model that judged; "" when none did."""
    model_version: Count
    """Its version; 0 when it has none."""
    model_sha256: Sha256OrNone
    """Digest of its file; "" when there is none."""
