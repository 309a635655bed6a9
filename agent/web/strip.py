"""The page *Strip*: everything that is known of one strip, its pictures, and its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from agent.web.asking import AgentRefusedError
from agent.web.looks import boxes, view
from agent.web.painter import NoPictureError
from agent.web.pictures import STRIP_ID, files_of
from agent.web.site import link, post, render, site_of
from agent.web.strips import Chosen

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from agent.web.site import Form, Site

NOTHING_TO_SEE = {"target": "", "heat": "", "picture": False, "height": 0, "width": 0, "regions": [], "detections": [],
                  "ignored_px": 0}  # fmt: skip
_TOLD_ELSEWHERE = ("schema", "detail", "delivery", "delivery_ended_ms", "delivery_note")
SAID = ("again", "refused", "reviewed", "not_reviewed")
LARGEST_REVISION = 1 << 31
LONGEST_NUMBER = 10  # digits


async def show(request: Request) -> Response:
    """Show a strip's newest result, or the one of `revision`."""
    site, strip_id, chosen = site_of(request), _strip_id(request), Chosen.of(request.query_params)
    asked: dict[str, Any] = {"strip_id": strip_id, **chosen.asked()}
    revision = request.query_params.get("revision", "")
    if revision.isascii() and revision.isdigit() and len(revision) <= LONGEST_NUMBER and int(revision) > 0:
        asked["revision"] = min(int(revision), LARGEST_REVISION)
    found = await site.agent.ask("page_strip", **asked)
    results = {result["revision"]: result for result in found["strip"]["results"]}
    message = results.get(asked.get("revision", max(results, default=0)))
    look = await _look(site, message) if message else NOTHING_TO_SEE | {"problem": ""}
    said = request.query_params.get("said", "")
    return render(
        request,
        "strip.html",
        page="strips",
        strip={"reviews": [], **found["strip"]},  # a service of an earlier release knows of none
        message=message,
        facts=[(key, value) for key, value in message.items() if key not in _TOLD_ELSEWHERE] if message else [],
        look=look,
        boxes=boxes(look),
        view=view(look),
        older=_link_to(found["older"], chosen),
        newer=_link_to(found["newer"], chosen),
        chosen=chosen,
        back=link("/strips", **chosen.query()),
        may_retry=found["may_retry"],
        said=said if said in SAID else "",
    )


async def _look(site: Site, message: dict[str, Any]) -> dict[str, Any]:
    try:
        files = await files_of(site, message["strip_id"], message["revision"])
        look, _ = await site.painter.paint({"kind": "look", "files": files})
    except (NoPictureError, AgentRefusedError) as error:
        return NOTHING_TO_SEE | {"problem": str(error)}
    return look


def _link_to(result: dict[str, Any] | None, chosen: Chosen) -> str:
    if result is None:
        return ""
    return link(f"/strips/{result['strip_id']}", revision=result["revision"], **chosen.query())


def _strip_id(request: Request) -> str:
    strip_id: str = request.path_params["strip_id"]
    if not STRIP_ID.fullmatch(strip_id):
        raise HTTPException(404)
    return strip_id


async def retry(request: Request, _: Form) -> Response:
    """Have a strip judged again, where MQTT may ask for that too; the agent decides."""
    strip_id = _strip_id(request)
    try:
        done = await site_of(request).agent.ask("retry", strip_ids=[strip_id])
        said = "again" if strip_id in done["retried"] else "refused"
    except AgentRefusedError:
        said = "refused"
    return RedirectResponse(link(f"/strips/{strip_id}", said=said), 303)


routes = [Route("/strips/{strip_id}", show), post("/strips/{strip_id}/retry", retry)]
