"""The page *Trend*: a camera's scores over time, how they are spread, what another threshold would have said, drift."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from agent.messages import Fault
from agent.messages.alarms import ALARMS
from agent.web import charts
from agent.web.asking import AgentRefusedError
from agent.web.site import render, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from agent.web.site import Site
    from agent.web.texts import Words

HOUR_MS = 3_600_000
RANGES = (1, 8, 24, 24 * 7, 24 * 30, 24 * 90)  # hours
LASTS = (100, 1000, 10_000, 100_000)
_LONGEST_NUMBER = 20  # characters


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for; what it cannot mean is the default."""

    camera: str
    hours: int
    last: int
    threshold: float | None  # None: the one of the newest result

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Take it out of an address."""
        query, cameras = request.query_params, [camera.name for camera in site_of(request).config.cameras]
        camera = query.get("camera", "")
        return cls(
            camera=camera if camera in cameras else cameras[0],
            hours=_one_of(query.get("hours", ""), RANGES, 24),
            last=_one_of(query.get("last", ""), LASTS, 1000),
            threshold=_number(query.get("threshold", "")),
        )


def _one_of(text: str, known: tuple[int, ...], otherwise: int) -> int:
    return next((number for number in known if text == str(number)), otherwise)


def _number(text: str) -> float | None:
    try:
        value = float(text) if len(text) <= _LONGEST_NUMBER else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < float("inf") else None


async def show(request: Request) -> Response:
    """Show the charts, and what the threshold that is asked for would have said."""
    site, asked = site_of(request), Asked.of(request)
    to_ms = time.time_ns() // 1_000_000 + 1
    from_ms = to_ms - asked.hours * HOUR_MS
    trend = await site.agent.ask("trend", camera=asked.camera, from_ms=from_ms, to_ms=to_ms)
    held_to = [bucket["threshold"] for bucket in trend["buckets"] if bucket["threshold"] is not None]
    fallback = 1.0 if trend["in_pixels"] else 0.5
    threshold = asked.threshold if asked.threshold is not None else held_to[-1] if held_to else fallback
    drawn = charts.scores(trend)
    ok, anomalous = charts.histogram(trend["bins"])
    return render(
        request,
        "trend.html",
        asked=asked,
        cameras=[camera.name for camera in site.config.cameras],
        ranges=RANGES,
        lasts=LASTS,
        trend=trend,
        sums={key: sum(bucket[key] for bucket in trend["buckets"]) for key in ("ok", "anomalous", "invalid")},
        scores=drawn,
        score_ticks=charts.ticks(drawn.top),
        shares=(shares := charts.shares(trend)),
        share_ticks=charts.ticks(shares.top),
        times=charts.times(trend["from_ms"], trend["to_ms"]),
        spread_ok=ok,
        spread_anomalous=anomalous,
        spread_at=charts.place_in_bins(threshold, trend["bins"]),
        threshold=threshold,
        step="1" if trend["in_pixels"] else "0.005",
        what_if=await _what_if(site, asked, threshold),
        drift=(drift := await _drift(site, asked.camera)),
        looks=[_drawn(cause, drift["now_ms"]) for cause in drift["causes"]],
        finding=finding,
    )


async def _drift(site: Site, camera: str) -> dict[str, Any]:
    """Return how the camera's strips look; `unknown` from a service of an earlier release, which has no such answer."""
    try:
        return await site.agent.ask("page_drift", camera=camera)
    except AgentRefusedError as error:
        if error.code != Fault.NOT_ALLOWED:
            raise
        return {"state": "unknown", "causes": []}


def _drawn(cause: dict[str, Any], now_ms: int) -> dict[str, Any]:
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    advice = ALARMS[f"camera_drift_{cause['cause']}"].advice
    return {**cause, "drawn": charts.look(cause, today), "advice": advice}


def finding(words: Words, moved: dict[str, str], began: str) -> str:
    """Say what has moved in the language of the page; "" where that is the service's own English."""
    said = words.known(f"finding.{moved.get('kind', '')}", "")
    if not said:
        return ""
    more = {key: words.known(f"finding.{moved[key]}", "") for key in ("channel", "way", "reference")}
    return said.format(**moved | more) + words("finding.since", day=began)


async def what_if(request: Request) -> Response:
    """Answer with what a threshold would have said alone, for the page that is open."""
    site, asked = site_of(request), Asked.of(request)
    threshold = 0.5 if asked.threshold is None else asked.threshold
    return render(request, "what_if.html", what_if=await _what_if(site, asked, threshold))


async def _what_if(site: Site, asked: Asked, threshold: float) -> dict[str, Any]:
    """Return the agent's answer, or `refused` with its words: a threshold that is none is no error of the page."""
    try:
        return await site.agent.ask("what_if", camera=asked.camera, threshold=threshold, last=asked.last)
    except AgentRefusedError as error:
        return {"refused": str(error)}


routes = [Route("/trend", show, name="trend"), Route("/trend/what-if", what_if)]
