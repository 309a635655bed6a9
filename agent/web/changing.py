"""Makes a model active, or a shadow, or no shadow any more: asked once more on a page of its own, then by the agent.

Only where `mqtt.commands` lists `activate`: what may be asked from afar may be asked here. The agent decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from agent.web.asking import AgentRefusedError
from agent.web.site import link, post, render, site_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from agent.web.site import Form

SHA256 = re.compile("[0-9a-f]{64}")
CHANGES = ("activate", "shadow", "off")
REFUSED = 409


async def ask(request: Request) -> Response:
    """Show what would be done, with the button that does it."""
    return await _page(request, request.query_params)


async def change(request: Request, form: Form) -> Response:
    """Have it done, and show the models again; where the agent refuses, say why."""
    site, to, slot, sha256 = site_of(request), form.get("to", ""), form.get("slot", ""), form.get("sha256", "")
    if to not in CHANGES or not SHA256.fullmatch(sha256):
        raise HTTPException(404)
    if not site.review_rates.take(request.client.host if request.client else ""):
        raise HTTPException(429, "too many at once; wait some seconds")
    try:
        if to == "activate":
            await site.agent.ask("activate", slot=slot, digest=sha256)
        else:
            await site.agent.ask("set_shadow", slot=slot, digest=sha256 if to == "shadow" else "")
    except AgentRefusedError as error:
        return await _page(request, form, str(error))
    return RedirectResponse(link("/models", said=to), 303)


async def _page(request: Request, asked: Mapping[str, str], problem: str = "") -> Response:
    found = await site_of(request).agent.ask("page_models")
    to, name, sha256 = asked.get("to", ""), asked.get("slot", ""), asked.get("sha256", "")
    slot = found["slots"].get(name)
    if to not in CHANGES or slot is None or not found.get("may_activate") or not SHA256.fullmatch(sha256):
        raise HTTPException(404)
    known: list[dict[str, Any]] = [one for one in found["models"] if one["sha256"] == sha256 and one["slot"] == name]
    return render(
        request,
        "change.html",
        REFUSED if problem else 200,
        page="models",
        to=to,
        slot_name=name,
        slot=slot,
        sha256=sha256,
        model=known[0] if known else None,
        problem=problem,
    )


routes = [Route("/models/change", ask), post("/models/change", change)]
