"""Commands: what is asked over MQTT, what is answered, and the event that tells who changed what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from agent.messages.base import Count, Message, UtcText

CommandName = Literal[
    "status",
    "audit",
    "models_list",
    "rescan",
    "retry",
    "resend",
    "set_threshold",
    "activate",
    "rollback",
    "pause",
    "resume",
]
"""What may be asked over MQTT where `mqtt.commands` lists it."""


class Fault(StrEnum):
    """Why a command was not carried out: `error` of its answer. The docstrings become docs/commands.md."""

    MALFORMED = "malformed"
    """The request is no JSON object with `schema` `command/1`, `id` and `by`; `detail` says what is wrong."""
    NOT_ALLOWED = "not_allowed"
    """There is no such command, or it is not listed in `mqtt.commands`."""
    BAD_ARGUMENTS = "bad_arguments"
    """An argument is missing, unknown, or not what it should be; `detail` names each."""
    REFUSED = "refused"
    """It cannot be met: no such strip, model or camera, nothing to go back to, too much at once."""
    ID_USED = "id_used"
    """In the last ten minutes the same sender used this `id` for something else. Nothing was done; use a new one."""
    TOO_MANY = "too_many"
    """Too many commands that change something in ten minutes; wait, or name several strips in one."""
    UNAVAILABLE = "unavailable"
    """The ledger cannot be read or written now (a full or broken disk). Not done, or in part; `detail` says which."""
    INTERRUPTED = "interrupted"
    """The agent was ended while it was at it: it may or may not have been done. Look before you ask again."""
    FAILED = "failed"
    """An error that nobody expected; the agent's log has it. It may have been done in part."""


def _of_one_printable_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be one line of printable text")
    return text


CommandId = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_of_one_printable_line)]
Sender = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_of_one_printable_line)]


class CommandRequest(Message):
    """A request on `cmd/<name>`; the command's arguments stand beside these keys (docs/commands.md)."""

    model_config = ConfigDict(extra="ignore")  # the arguments are checked by the command

    schema_: Annotated[Literal["command/1"], Field(alias="schema")]
    """Name and version of this message."""
    id: CommandId
    """Made by the sender, new for each command: asked again with the same one, it is answered again and not done."""
    by: Sender
    """Who asks: it goes into the ledger and into `event/command`. The broker decides who may publish here."""
    ts_ms: int = 0
    """When it was sent, Unix milliseconds: more than 60 s later it is ignored. 0, or left out: it never expires."""


class CommandResult(Message):
    """The answer to a command, on the request's response topic below `rsp/` (MQTT 5), else on `rsp/<name>`."""

    schema_: Annotated[Literal["command-result/1"], Field(alias="schema")] = "command-result/1"
    """Name and version of this message."""
    id: str
    """Of the request; "" where that had none that can be used."""
    command: Annotated[str, Field(min_length=1)]
    """What was asked."""
    ok: bool
    """It was done. What takes its time (a model's trial, strips that are judged again) is only begun then."""
    error: Literal["", *Fault]  # type: ignore[valid-type] # the members of the enum
    """Why it was not, one of the codes in docs/commands.md; "" otherwise."""
    detail: str
    """The same as a sentence; "" otherwise."""
    count: Count
    """How many it was about: strips, results, models, cameras."""
    result: str
    """What there is to know, as JSON in text; "" when it was not done."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    ts: UtcText
    """When it was done or refused, UTC; the same when it is answered again."""
    ts_ms: int
    """`ts` in Unix milliseconds."""


class CommandEvent(Message):
    """Somebody had something changed, whichever way: over MQTT, Sparkplug or the command line."""

    schema_: Annotated[Literal["command-event/1"], Field(alias="schema")] = "command-event/1"
    """Name and version of this message."""
    msg_id: Annotated[str, Field(min_length=1)]
    """The same event sent twice carries the same one: drop repeats by it."""
    ts: UtcText
    """When it was done or refused, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    command: Annotated[str, Field(min_length=1)]
    """What was asked."""
    by: Annotated[str, Field(min_length=1)]
    """Who asked: over MQTT what the request says, on the command line the system's user."""
    way: Literal["mqtt", "sparkplug", "command_line"]
    """How it came."""
    id: str
    """Of the request; "" on the command line."""
    arguments: str
    """Its arguments as JSON in text; long lists are cut."""
    ok: bool
    """It was done, or begun."""
    error: Literal["", *Fault]  # type: ignore[valid-type] # the members of the enum
    """Why it was not, one of the codes in docs/commands.md; "" otherwise."""
    detail: str
    """The same as a sentence; "" otherwise."""
    count: Count
    """How many it was about."""
