"""Pictures by a strip's id and revision, never by a path: the agent says which files show it.

The process that decodes them opens the files without following links, below the folders of the configuration, and only
if they are still what was judged. What it made is kept for a while, up to a number of bytes.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from agent.web.asking import AgentRefusedError
from agent.web.painter import NoPictureError
from agent.web.site import site_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from agent.web.site import Site

KINDS = ("target", "reference1", "reference2", "heat", "thumb", "picture")
MAX_SIDE_PX = 16384
STRIP_ID = re.compile("[0-9a-f]{16}")
_RANGE = re.compile("bytes=([0-9]{0,12})-([0-9]{0,12})")
_UNCHANGING = "private, max-age=86400, immutable"  # a revision's picture never changes


async def files_of(site: Site, strip_id: str, revision: int) -> dict[str, Any]:
    """Return the part of a painter's job that says where a strip's files are. Raises AgentRefusedError."""
    found = await site.agent.ask("page_picture", strip_id=strip_id, revision=revision)
    config = site.config
    kept = found["heatmap_path"] or found["preview_path"]
    return {
        "strip": [(folder, found["path"]) for folder in found["folders"]],
        "size_bytes": found["size_bytes"],
        "mtime_ns": found["mtime_ns"],
        "max_bytes": config.checks.max_file_mib << 20,
        "heatmaps": str(config.heatmap_folder),
        "tiff": found["heatmap_path"],
        "png": found["preview_path"],
        "regions": f"{kept.rpartition('.')[0]}.json" if kept else "",
        "shape": (found["height"], found["width"]) if found["height"] else None,
    }


async def show(request: Request) -> Response:
    """Answer with a picture, or a part of it, or that the browser has it already."""
    strip_id, kind = request.path_params["strip_id"], request.path_params["kind"]
    revision = request.path_params["revision"]
    if not STRIP_ID.fullmatch(strip_id) or kind not in KINDS or not 0 < revision < 1 << 31:
        return PlainTextResponse("there is no such picture\n", 404)
    key = (strip_id, str(revision), kind)
    body = site_of(request).cache.get(key)
    if body is None:
        try:
            files = await files_of(site_of(request), strip_id, revision)
            _, body = await site_of(request).painter.paint({"kind": kind, "files": files})
        except NoPictureError as error:
            return PlainTextResponse(f"{error}\n", 503 if error.busy else 404)
        except AgentRefusedError as error:
            return PlainTextResponse(f"{error}\n", 404)
        site_of(request).cache.put(key, body)
    return answer(request, body)


def answer(request: Request, body: bytes) -> Response:
    """Answer with bytes that never change: as a whole, one range of them, or 304 for who has them."""
    headers = {
        "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "cache-control": _UNCHANGING,
        "accept-ranges": "bytes",
    }
    if headers["etag"] in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked and (asked[1] or asked[2]) and request.headers.get("if-range", headers["etag"]) == headers["etag"]:
        first = int(asked[1]) if asked[1] else max(0, len(body) - int(asked[2]))
        last = min(int(asked[2]), len(body) - 1) if asked[1] and asked[2] else len(body) - 1
        if first > last:
            return Response(status_code=416, headers={**headers, "content-range": f"bytes */{len(body)}"})
        headers["content-range"] = f"bytes {first}-{last}/{len(body)}"
        return Response(body[first : last + 1], 206, headers, "image/png")
    return Response(body, 200, headers, "image/png")


async def value(request: Request) -> Response:
    """Answer with what is stored at a pixel of a strip."""
    strip_id, revision = request.path_params["strip_id"], request.path_params["revision"]
    row, col = (request.query_params.get(name, "") for name in ("row", "col"))
    good = (
        STRIP_ID.fullmatch(strip_id)
        and 0 < revision < 1 << 31
        and all(
            text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < MAX_SIDE_PX  # noqa: PLR2004 - digits
            for text in (row, col)
        )
    )
    if not good:
        return PlainTextResponse("there is no such pixel\n", 404)
    try:
        files = await files_of(site_of(request), strip_id, revision)
        facts, _ = await site_of(request).painter.paint(
            {"kind": "value", "files": files, "row": int(row), "col": int(col)}
        )
    except (NoPictureError, AgentRefusedError) as error:
        return PlainTextResponse(f"{error}\n", 404)
    return JSONResponse(facts)


routes = [
    Route("/strips/{strip_id}/{revision:int}/value", value),
    Route("/strips/{strip_id}/{revision:int}/{kind}.png", show),
]
