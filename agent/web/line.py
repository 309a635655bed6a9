"""The page *Line*: of each camera what came last, seen from three metres, and what came before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse
from starlette.routing import Route

from agent.web.looks import boxes_of
from agent.web.site import render, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SHOWN = 50


async def show(request: Request) -> Response:
    """Show the line."""
    site = site_of(request)
    line = await site.agent.ask("page_line", limit=SHOWN)
    for camera in line["cameras"]:
        last = camera["last"]
        camera["boxes"], camera["view"] = await boxes_of(site, last) if last else ([], (1, 1))
    return render(request, "line.html", line=line)


async def to_line(_: Request) -> Response:
    """Lead to the first page."""
    return RedirectResponse("/line", 303)


routes = [Route("/", to_line), Route("/line", show, name="line")]
