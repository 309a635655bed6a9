"""What people ask for: one table of commands and one handler, whatever a request comes over.

The control socket calls `handle`; MQTT and Sparkplug come through the `CommandDesk` (desk.py), which calls `carry_out`
too. Whatever changes something is written into the ledger before it is done, and told by `event/command` afterwards.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import messages
from agent.control import (
    for_pages,
    on_cameras,
    on_drift,
    on_models,
    on_reviews,
    on_shadows,
    on_strips,
    on_trends,
    reports,
)
from agent.control.arguments import (
    Arguments,
    CameraOrAll,
    Forgetting,
    Listing,
    LookingBack,
    ManyStrips,
    NewThreshold,
    Numbers,
    OneCamera,
    OneModel,
    OneSlot,
    OneStrip,
    Part,
    Reviewing,
    Shadowing,
    Since,
    WorstPairs,
    check,
)
from agent.control.context import Command, CommandError, Outcome, Who
from agent.control.fitting import json_within
from agent.errors import Retry
from agent.ledger import Ending, NewCommand
from agent.messages import Fault
from agent.printable import printable

if TYPE_CHECKING:
    from agent.config import Config
    from agent.control.context import Context
    from agent.ledger import CommandRow

log = logging.getLogger(__name__)

ARGUMENTS_BYTES = 2048  # in the ledger and in the event
RESULT_BYTES = 1 << 15  # in an answer over MQTT
DETAIL_CHARACTERS = 1000
NAME_CHARACTERS = 128  # of who asks, and of the request
RESULTS_KEPT_MS = 600_000  # in the ledger, for those who ask again

COMMANDS = {
    "status": Command(Arguments, reports.status),
    "audit": Command(Since, reports.audit, lambda found: found["strips"]["seen"]),
    "unpublished": Command(Part, reports.unpublished, lambda found: len(found["unpublished"])),
    "strips_list": Command(Listing, on_strips.strips_list, lambda found: len(found["strips"])),
    "looking_back": Command(LookingBack, on_strips.looking_back, lambda found: len(found["strips"])),
    "strips_show": Command(OneStrip, on_strips.strips_show, lambda _: 1),
    "retry": Command(ManyStrips, on_strips.retry, lambda done: len(done["retried"]), changes=True),
    "review": Command(Reviewing, on_reviews.review, lambda _: 1, changes=True),
    "resend": Command(Numbers, on_strips.resend, lambda done: done["queued"], changes=True),
    "models_list": Command(Arguments, on_models.models_list, lambda found: len(found["models"])),
    "activate": Command(OneModel, on_models.activate, lambda _: 1, changes=True),
    "rollback": Command(OneSlot, on_models.rollback, lambda _: 1, changes=True),
    "models_forget": Command(Forgetting, on_models.models_forget, lambda _: 1, changes=True),
    "shadow": Command(WorstPairs, on_shadows.shadow, lambda found: found["comparison"]["compared"]),
    "set_shadow": Command(Shadowing, on_shadows.set_shadow, lambda _: 1, changes=True),
    "rescan": Command(CameraOrAll, on_cameras.rescan, lambda done: len(done["cameras"]), changes=True),
    "pause": Command(OneCamera, on_cameras.pause, lambda done: int(done["changed"]), changes=True),
    "resume": Command(OneCamera, on_cameras.resume, lambda done: int(done["changed"]), changes=True),
    "threshold": Command(OneCamera, on_cameras.threshold, lambda _: 1),
    "reload": Command(Arguments, on_cameras.reload, lambda done: len(done["changes"]), changes=True),
    "set_threshold": Command(NewThreshold, on_cameras.set_threshold, lambda done: int(done["changed"]), changes=True),
    "page_news": Command(Arguments, for_pages.news, for_page=True),
    "page_line": Command(for_pages.Newest, for_pages.line, for_page=True),
    "page_strips": Command(for_pages.Listed, for_pages.strips, for_page=True),
    "page_strip": Command(for_pages.ShownStrip, for_pages.strip, for_page=True),
    "page_picture": Command(for_pages.OfStrip, for_pages.picture, for_page=True),
    "page_models": Command(Arguments, for_pages.models, for_page=True),
    "trend": Command(on_trends.InRange, on_trends.trend, lambda found: found["results"], for_page=True),
    "what_if": Command(on_trends.OtherThreshold, on_trends.what_if, lambda found: found["looked_at"], for_page=True),
    "page_drift": Command(OneCamera, on_drift.drift, for_page=True),
    "page_health": Command(Arguments, for_pages.health, for_page=True),
}


PAGE_NEEDS = {"retry": "retry", "activate": "activate", "set_shadow": "activate"}
"""What the page may have done, and which command `mqtt.commands` has to list for it."""


def handle(context: Context, request: dict[str, Any], by: str) -> dict[str, Any]:
    """Answer one request `{"command": ..., ...}` with `{"ok": true, ...}` or `{"ok": false, "error": ...}`.

    `by` is the system's user who asks.
    """
    arguments = {key: value for key, value in request.items() if key != "command"}
    name = request.get("command")
    if by == for_pages.WEB_USER and not may_ask(context, name):
        return {"ok": False, "error": f"the page may not ask for {str(name)[:80]!r}", "code": Fault.NOT_ALLOWED.value}
    outcome = carry_out(context, name, arguments, Who(by))
    if outcome.fault is not None:
        return {"ok": False, "error": outcome.detail, "code": outcome.fault.value}
    return {"ok": True, **outcome.result}


def may_ask(context: Context, name: Any) -> bool:
    """Say whether the page on the box may have a command carried out.

    What only reads, `review` where the page is to take reviews, and what is listed for MQTT of `PAGE_NEEDS`.
    """
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if name == "review":
        return context.config.web.reviews
    return command is not None and (command.for_page or PAGE_NEEDS.get(name) in context.config.mqtt.commands)


def carry_out(context: Context, name: Any, arguments: dict[str, Any], who: Who) -> Outcome:
    """Check a command, carry it out, and record it if it changes something. Whatever was sent, nothing is raised."""
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        return Outcome(Fault.NOT_ALLOWED, f"there is no command {str(name)[:80]!r}; known are {', '.join(COMMANDS)}")
    try:
        checked = check(command.arguments, arguments)
    except ValueError as error:
        return Outcome(Fault.BAD_ARGUMENTS, printable(f"{name}: {error}"[:DETAIL_CHARACTERS]))
    if not command.changes:
        return _run(context, command, checked, who)
    by = printable(who.by[:NAME_CHARACTERS]) or "unknown"  # it is stored, told and shown
    who = replace(who, by=by, id=printable(who.id[:NAME_CHARACTERS]))
    asked = NewCommand(
        who.way, who.by, who.id, fingerprint(name, arguments), name,
        json_within(checked.model_dump(exclude_unset=True), ARGUMENTS_BYTES),
    )  # fmt: skip
    with context.changing:
        log.warning("command %s %s by %s (%s)", name, asked.arguments, who.by, who.way)
        row = 0
        try:
            row = context.ledger.commands.begin(asked, RESULTS_KEPT_MS)
        except Retry as error:
            if who.id:  # it might be asked again, and nobody would know that it was done
                return Outcome(Fault.UNAVAILABLE, printable(f"nothing was done: {error}"[:DETAIL_CHARACTERS]))
            log.error("a command cannot be written down: %s", error)  # noqa: TRY400 - the stack tells nothing
        outcome = _run(context, command, checked, who)
        if row:
            record_end(context, row, outcome)
    return replace(outcome, row=row)


def fingerprint(name: str, arguments: dict[str, Any]) -> str:
    """Tell one command from another by its name and its arguments as they were sent."""
    text = json.dumps([name, arguments], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _run(context: Context, command: Command, arguments: Arguments, who: Who) -> Outcome:
    try:
        result = command.run(context, arguments, who)
        return Outcome(result=result, count=command.count(result))
    except (CommandError, LookupError) as error:
        return Outcome(Fault.REFUSED, printable(str(error)[:DETAIL_CHARACTERS]))
    except Retry as error:
        return Outcome(Fault.UNAVAILABLE, printable(str(error)[:DETAIL_CHARACTERS]))
    except Exception as error:
        log.exception("a command failed")
        return Outcome(Fault.FAILED, printable(f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS]))


def record_end(context: Context, row: int, outcome: Outcome) -> None:
    """Write down what became of a command, and queue the event that tells of it."""
    result = "" if outcome.fault else json_within(outcome.result, RESULT_BYTES)
    ending = Ending(outcome.fault.value if outcome.fault else "", outcome.detail, outcome.count, result)
    event = partial(_event, context.config)
    try:
        context.ledger.commands.end(row, ending, messages.COMMAND_EVENT, event, context.config.outbox.max_messages)
    except Retry as error:  # it is told after the next start
        log.error("what became of command %d cannot be written down: %s", row, error)  # noqa: TRY400 - no stack
    context.ring()


def _event(config: Config, row: CommandRow, msg_id: str) -> bytes:
    return messages.encode(
        messages.CommandEvent(
            msg_id=msg_id,
            ts=messages.utc_text(row.ended_ms),
            ts_ms=row.ended_ms,
            agent=config.agent.name,
            command=row.asked.command,
            by=row.asked.sender,
            way=row.asked.way,  # type: ignore[arg-type] # one of the three
            id=row.asked.request,
            arguments=row.asked.arguments,
            ok=not row.ending.error,
            error=row.ending.error,
            detail=row.ending.detail,
            count=row.ending.count,
        )
    )
