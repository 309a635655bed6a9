"""Commands about strips and their results."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.control.context import CommandError
from agent.control.on_reviews import shown as shown_review
from agent.control.reports import cameras_of
from agent.ledger import Choice
from agent.ledger.replays import MAX_REPLAYS

if TYPE_CHECKING:
    from agent.control.arguments import Listing, LookingBack, ManyStrips, Numbers, OneStrip
    from agent.control.context import Context, Who

MAX_LISTED = 100_000
RETRY_BATCH = 200  # strips in one transaction
RETRY_BATCHES = 10  # of a model in one request: more would keep the service's heart from beating


def strips_list(context: Context, asked: Listing, _: Who) -> dict[str, Any]:
    """List strips, the newest first."""
    limit = min(asked.limit, MAX_LISTED)
    found = context.ledger.report.list_strips(
        state=asked.state, camera=asked.camera, model=asked.model, limit=limit + 1
    )
    return {"strips": found[:limit], "cut": len(found) > limit}


def looking_back(context: Context, asked: LookingBack, _: Who) -> dict[str, Any]:
    """Tell what was said of strips and where their files were, and the operators' thresholds of now."""
    found, before_row = context.ledger.history.said(
        Choice(tuple(asked.verdicts), asked.reviewed, asked.near, asked.disagreeing),
        cameras=asked.cameras, since_ms=asked.since_ms, before_row=asked.before_row, limit=asked.limit,
    )  # fmt: skip
    return {
        "strips": [asdict(one) for one in found],
        "before_row": before_row,
        "thresholds": {camera: asdict(told) for camera, told in context.ledger.operators.thresholds.items()},
    }


def strips_show(context: Context, asked: OneStrip, _: Who) -> dict[str, Any]:
    """Show everything known of one strip."""
    shown = context.ledger.report.show_strip(asked.strip_id)
    if shown is None:
        raise CommandError(f"no strip, or more than one, has an id that begins with {asked.strip_id!r}")
    shown["reviews"] = [shown_review(said) for said in context.ledger.reviews.of_strip(shown["row"])]
    return {"strip": shown}


def retry(context: Context, asked: ManyStrips, _: Who) -> dict[str, Any]:
    """Judge strips again, as new revisions."""
    if not asked.strip_ids and asked.model is None:
        raise CommandError("name strips, or a model")
    named, refused = _find_strips(context, asked.strip_ids)
    retried = _retry(context, named, refused)
    row, more = asked.after_row, asked.model is not None
    for _batch in range(RETRY_BATCHES if asked.model is not None else 0):
        batch = dict(context.ledger.report.judged_by(asked.model or "", row, RETRY_BATCH))
        row = max(batch, default=row)
        retried += _retry(context, batch, refused)
        more = len(batch) == RETRY_BATCH
        if not more:
            break
    context.ring()
    return {"retried": retried, "refused": refused, "next_row": row if more else None}


def _find_strips(context: Context, strip_ids: list[str]) -> tuple[dict[int, str], dict[str, str]]:
    """Return the strips that are meant, row -> id, and what means none, with the reason."""
    named: dict[int, str] = {}
    refused: dict[str, str] = {}
    for strip_id in strip_ids:
        found = context.ledger.report.find_strips(strip_id)
        if len(found) == 1:
            named.update(found)
        else:
            refused[strip_id] = "more than one strip's id begins so" if found else "no such strip"
    return named, refused


def _retry(context: Context, strips: dict[int, str], refused: dict[str, str]) -> list[str]:
    """Give strips (row -> id) back to the queue; add to `refused`, return the ids of the others."""
    refused_rows = context.ledger.strips.retry(list(strips), cameras_of(context))
    refused.update({strips[row]: why for row, why in refused_rows.items()})
    return [strip_id for row, strip_id in strips.items() if row not in refused_rows]


def resend(context: Context, asked: Numbers, _: Who) -> dict[str, Any]:
    """Send stored results again, behind everything that waits."""
    replays, number = context.ledger.replays, asked.to_seq - asked.from_seq + 1
    if number < 1:
        raise CommandError(f"{asked.from_seq} is above {asked.to_seq}: the first number comes first")
    if replays.waiting() + number > MAX_REPLAYS:
        raise CommandError(
            f"these are {number} numbers and {replays.waiting()} still wait; at most {MAX_REPLAYS} may wait at a time"
        )
    stream = asked.stream or context.ledger.database.stream
    found = replays.ask(stream, asked.from_seq, asked.to_seq)
    context.ring()
    return {"stream": stream, "from_seq": asked.from_seq, "to_seq": asked.to_seq, **asdict(found)}
