"""The page *Models*: what is active, what was refused and why, probation, shadows, which model judged when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from agent.web.changing import CHANGES
from agent.web.site import render, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from agent.web.texts import Words

NUMBERS_SHOWN = 20


async def show(request: Request) -> Response:
    """Show the models."""
    earlier_release: dict[str, Any] = {"reviews": {}, "shadows": {}, "may_activate": False}
    found = earlier_release | await site_of(request).agent.ask("page_models")
    said = request.query_params.get("said", "")
    said = said if said in CHANGES else ""
    names = {model["sha256"]: model["model_id"] for model in found["models"] if model["model_id"]}
    return render(request, "models.html", found=found, names=names, measured=measured, said=said)


def measured(words: Words, facts: dict[str, Any]) -> list[str]:
    """Write down what was measured of a model; numbers without words of their own under their names."""
    said = []
    for key, value in list(facts.items())[:NUMBERS_SHOWN]:
        if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
            continue
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        known = words.known(f"fact.{key}", "")
        said.append(known.format(value=text) if known else f"{key} {text}")
    return said


routes = [Route("/models", show, name="models")]
