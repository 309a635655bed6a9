"""The form on the page *Strip* where a person says what is on it. The agent writes it down; no result changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from agent.web.asking import AgentRefusedError
from agent.web.pictures import STRIP_ID
from agent.web.site import link, post, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from agent.web.site import Form

FINDINGS = ("defect", "no_defect", "unsure")
_LONGEST_NUMBER = 10  # digits


async def review(request: Request, form: Form) -> Response:
    """Pass on what somebody says, and show the strip again."""
    site, strip_id = site_of(request), str(request.path_params["strip_id"])
    if not site.config.web.reviews or not STRIP_ID.fullmatch(strip_id):
        raise HTTPException(404)
    if not site.review_rates.take(request.client.host if request.client else ""):
        raise HTTPException(429, "too many reviews; wait some seconds")
    revision = form.get("revision", "")
    number = int(revision) if revision.isascii() and revision.isdigit() and len(revision) <= _LONGEST_NUMBER else None
    try:
        await site.agent.ask(
            "review",
            strip_id=strip_id,
            finding=form.get("finding", ""),
            by=form.get("by", ""),
            remark=form.get("remark", ""),
            revision=number or None,
        )
        said = "reviewed"
    except AgentRefusedError:
        said = "not_reviewed"
    return RedirectResponse(link(f"/strips/{strip_id}", revision=number or "", said=said), 303)


routes = [post("/strips/{strip_id}/review", review)]
