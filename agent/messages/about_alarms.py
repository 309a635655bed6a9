"""The message that tells of an alarm."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.messages.base import Message, UtcText

Priority = Literal["low", "medium", "high", "critical"]


class AlarmEvent(Message):
    """An alarm was raised or cleared. A verdict is no alarm: a defect is what the box is there to find."""

    schema_: Annotated[Literal["alarm-event/1"], Field(alias="schema")] = "alarm-event/1"
    """Name and version of this message."""
    msg_id: Annotated[str, Field(min_length=1)]
    """The same event sent twice carries the same one: drop repeats by it."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    code: Annotated[str, Field(min_length=1)]
    """What is wrong, one of the codes of docs/messages.md (Alarms); with `source` it tells which alarm this is."""
    source: Annotated[str, Field(min_length=1)]
    """What it is about: `camera/<name>`, `slot/<name>`, or `agent` for the whole box."""
    state: Literal["raised", "cleared"]
    """`raised` when it begins, `cleared` once it has been gone for five seconds."""
    priority: Priority
    """`critical`: strips are not judged or not recorded; `high`: results do not arrive, or strips wait; `low`: only to
    know."""
    text: str
    """The code as a sentence."""
    since_ts: UtcText
    """When it began, UTC."""
    since_ms: int
    """`since_ts` in Unix milliseconds."""
    ts: UtcText
    """When this happened: with `raised` the same as `since_ts`, with `cleared` when it ended, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds; never before `since_ms`."""
