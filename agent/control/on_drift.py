"""How a camera's strips look against what the model knows: for the page. It only reads, in a bounded time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.clock import DAY_MS, now_ms
from agent.contract.measures import off_scale, on_scale
from agent.control.context import CommandError
from agent.drift.judging import CAUSES, SHOWN_BY

if TYPE_CHECKING:
    from agent.control.arguments import OneCamera
    from agent.control.context import Context, Who
    from agent.drift.judging import Cause

DAYS = 30


def drift(context: Context, asked: OneCamera, _: Who) -> dict[str, Any]:
    """Tell what a camera's strips are compared with, or why with nothing, and each cause's measure day by day.

    `state`: off | not_running | no_model | no_reference | too_few | compared; `causes` is empty where there is no
    reference. All numbers are in the unit of the measure.
    """
    if asked.camera not in {camera.name for camera in context.config.cameras}:
        raise CommandError(f"there is no camera {asked.camera!r}")
    told: dict[str, Any] = {"camera": asked.camera, "state": "off", "causes": [], "now_ms": now_ms()}
    if not context.config.drift.enabled:
        return told
    if context.live is None:
        return told | {"state": "not_running"}
    facts = context.live()["drift"].get(asked.camera)
    if facts is None:
        return told | {"state": "no_model"}
    keys = ("reference", "reference_strips", "learned", "learns", "strips", "not_compared", "changed")
    told |= {key: facts[key] for key in keys}
    if facts["reference"] == "none":
        return told | {"state": "no_reference"}
    causes = [_cause(context, asked.camera, facts, cause) for cause in CAUSES]
    state = "compared" if facts["furthest"] else "too_few"
    return told | {"state": state, "causes": [one for one in causes if one is not None]}


def _cause(context: Context, camera: str, facts: dict[str, Any], cause: Cause) -> dict[str, Any] | None:
    """Tell of the cause's measure that is furthest away, None where the reference has none of them."""
    known = [name for name in SHOWN_BY[cause] if name in facts["measures"]]
    if not known:
        return None
    furthest = facts["furthest"].get(cause, {"measure": known[0], "deviation": None})
    measure = furthest["measure"] if furthest["measure"] in known else known[0]  # "hot" has no days of its own
    return {
        "cause": cause,
        "changed": cause in facts["changed"],
        "moved": facts["moved"].get(cause, {}),
        "began": facts["began"].get(cause, ""),
        "examples": facts["examples"].get(cause, []),
        "deviation": furthest["deviation"],
        "measure": measure,
        **facts["measures"][measure],
        "days": _days(context, camera, facts, measure),
    }


def _days(context: Context, camera: str, facts: dict[str, Any], measure: str) -> list[dict[str, Any]]:
    since = datetime.fromtimestamp((now_ms() - DAYS * DAY_MS) / 1000, UTC).date().isoformat()
    good = on_scale("score", facts["good_below"]) if measure == "score" else None
    found = context.ledger.drift.days(camera, facts["model_sha256"], measure, since)
    middles = [(day, sketch.n, sketch.middle(measure, good)) for day, sketch in found.items()]
    return [
        {"day": day, "strips": strips, "middle": off_scale(measure, middle)}
        for day, strips, middle in middles
        if middle is not None
    ]
