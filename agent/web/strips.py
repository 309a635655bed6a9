"""The page *Strips*: results by camera, verdict, reason and time, the newest first, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from agent.errors import Reason
from agent.web.site import link, render, site_of

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request
    from starlette.responses import Response

SHOWN = 60
VERDICTS = ("ok", "anomalous", "invalid")
REASONS = tuple(reason.value for reason in Reason)
_LATEST_MS = 1 << 52
_LONGEST_NUMBER = 18  # digits


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a list or the neighbours of a strip are restricted to; "" is any. `until` is a time as a form has it."""

    camera: str = ""
    verdict: str = ""
    reason: str = ""
    part: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: QueryParams) -> Chosen:
        """Take it out of an address; what cannot be is left out."""
        verdict, reason = query.get("verdict", ""), query.get("reason", "")
        return cls(
            camera=query.get("camera", "")[:64],
            verdict=verdict if verdict in VERDICTS else "",
            reason=reason if reason in REASONS else "",
            part=query.get("part", "")[:200],
            until=query.get("until", "") if _ms(query.get("until", "")) is not None else "",
        )

    def asked(self) -> dict[str, Any]:
        """Return the arguments of the agent's command that say the same."""
        values = {"camera": self.camera, "verdict": self.verdict, "reason": self.reason, "part": self.part}
        return {key: value for key, value in values.items() if value}

    def query(self) -> dict[str, str]:
        """Return what goes into a link, so that the next page is restricted alike."""
        return {"camera": self.camera, "verdict": self.verdict, "reason": self.reason, "part": self.part}

    @property
    def until_ms(self) -> int | None:
        """The time in Unix milliseconds, by the box's own time zone."""
        return _ms(self.until)


def _ms(text: str) -> int | None:
    try:
        ms = int(datetime.fromisoformat(text[:32]).timestamp() * 1000) if text else None
    except (ValueError, OverflowError, OSError):
        return None
    return ms if ms is None or 0 <= ms < _LATEST_MS else None


async def show(request: Request) -> Response:
    """Show a page of the list."""
    chosen = Chosen.of(request.query_params)
    asked: dict[str, Any] = {**chosen.asked(), "limit": SHOWN}
    before = request.query_params.get("before", "")
    if before.isascii() and before.isdigit() and len(before) <= _LONGEST_NUMBER:
        asked["before_seq"] = int(before)
    elif chosen.until_ms is not None:
        asked["until_ms"] = chosen.until_ms
    found = await site_of(request).agent.ask("page_strips", **asked)
    older = found["next_before_seq"]
    return render(
        request,
        "strips.html",
        found=found,
        chosen=chosen,
        verdicts=VERDICTS,
        reasons=REASONS,
        older=link("/strips", **chosen.query(), before=older) if older is not None else "",
        first="before_seq" not in asked and "until_ms" not in asked,
        newest=link("/strips", **chosen.query()),
        searched_on=older is not None and len(found["results"]) < SHOWN,
    )


routes = [Route("/strips", show, name="strips")]
