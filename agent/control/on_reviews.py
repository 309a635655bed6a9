"""Commands about reviews: what people say about strips, and what that says about the models."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from agent import messages
from agent.control.context import CommandError
from agent.ledger import NewReview
from agent.records import show_name

if TYPE_CHECKING:
    from agent.config import Config
    from agent.control.arguments import Reviewing
    from agent.control.context import Context, Who
    from agent.ledger import Review

Value = TypeVar("Value", str, int, float)


def review(context: Context, asked: Reviewing, who: Who) -> dict[str, Any]:
    """Record what a person says about a strip, and publish it; no result changes."""
    found = context.ledger.report.find_strips(asked.strip_id)
    if len(found) != 1:
        raise CommandError(f"no strip, or more than one, has an id that begins with {asked.strip_id!r}")
    new = NewReview(found[0][0], asked.finding, asked.by, asked.remark, who.by, asked.revision)
    payload = partial(_event, context.config)
    done = context.ledger.reviews.add(new, messages.REVIEW_EVENT, payload, context.config.outbox.max_messages)
    context.ring()
    return {"review": shown(done)}


def shown(said: Review) -> dict[str, Any]:
    """Return a review as plain values."""
    return asdict(said) | {"path": show_name(said.path)}


def by_model(context: Context) -> dict[str, dict[str, Any]]:
    """Return for each model that was reviewed, by its digest, what that says about it.

    A false alarm is an anomalous strip without a defect, a miss an ok one with a defect. The rate is that of the false
    alarms among the anomalous strips that somebody was sure of, 0 to 1; None where there are none.
    """
    counts: dict[str, dict[tuple[str, str], int]] = {}
    for one in context.ledger.reviews.counts():
        if one.model_sha256:
            counts.setdefault(one.model_sha256, {})[one.verdict, one.finding] = one.number
    return {model: _summary(found) for model, found in counts.items()}


def _summary(found: dict[tuple[str, str], int]) -> dict[str, Any]:
    false_alarms = found.get(("anomalous", "no_defect"), 0)
    confirmed = found.get(("anomalous", "defect"), 0)
    sure = false_alarms + confirmed
    return {
        "reviewed": sum(found.values()),
        "unsure": sum(number for (_, finding), number in found.items() if finding == "unsure"),
        "confirmed": confirmed,
        "false_alarms": false_alarms,
        "false_alarm_rate": false_alarms / sure if sure else None,
        "misses": found.get(("ok", "defect"), 0),
    }


def _event(config: Config, said: Review, result: dict[str, Any], replaces: bool, msg_id: str) -> bytes:
    return messages.encode(
        messages.ReviewEvent(
            msg_id=msg_id,
            ts=messages.utc_text(said.reviewed_ms),
            ts_ms=said.reviewed_ms,
            agent=config.agent.name,
            camera=said.camera,
            strip_id=said.strip_id,
            part_id=_of(result, "part_id", ""),
            file=show_name(said.path),
            finding=said.finding,
            by=said.person,
            remark=said.remark,
            replaces=replaces,
            result_msg_id=_of(result, "msg_id", ""),
            revision=said.revision,
            verdict=said.verdict,  # type: ignore[arg-type] # one of the three, or ""
            score=_of(result, "score", messages.INVALID_SCORE),
            model_id=_of(result, "model_id", ""),
            model_version=_of(result, "model_version", 0),
            model_sha256=said.model_sha256,
        )
    )


def _of(result: dict[str, Any], key: str, otherwise: Value) -> Value:
    """Take a value out of a stored message, which an older version may have written without it."""
    value = result.get(key)
    return value if type(value) is type(otherwise) else otherwise
