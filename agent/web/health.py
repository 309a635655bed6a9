"""The page *Health*: alarms in words with what to do, broker, cameras, disk, outbox, the balance, versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from agent.messages.alarms import ROLLED_BACK
from agent.web.site import render, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PRIORITIES = ("critical", "high", "medium", "low")
PENDING = ("waiting", "judged")
ACKNOWLEDGED = ("ok", "anomalous", "invalid")


async def show(request: Request) -> Response:
    """Show how the agent is."""
    found = await site_of(request).agent.ask("page_health")
    found["alarms"].sort(key=lambda alarm: PRIORITIES.index(alarm["priority"]))
    for alarm in found["alarms"]:
        alarm["rolled_back_for"] = _rolled_back_for(alarm)
    return render(
        request,
        "health.html",
        found=found,
        health=found["health"],
        balances=[_sums(balance) for balance in found["balances"]],
        balanced=all(balance["balanced"] for balance in found["balances"]),
    )


def _rolled_back_for(alarm: dict[str, Any]) -> str:
    """Return the reason code of a model that had to go, which the English text ends with; "" of another alarm."""
    if alarm["code"] != ROLLED_BACK:
        return ""
    reason: str = alarm["name"].removeprefix(alarm["source"].replace("/", "_", 1) + "_")
    return reason


def _sums(balance: dict[str, Any]) -> dict[str, Any]:
    return {
        **balance,
        "pending": sum(balance[state] for state in PENDING),
        "acknowledged": sum(balance[state] for state in ACKNOWLEDGED),
    }


routes = [Route("/health", show, name="health")]
