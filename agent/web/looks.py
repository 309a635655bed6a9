"""What is known of a strip's pictures, and the boxes around what was found in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.web.asking import AgentRefusedError
from agent.web.painter import NoPictureError
from agent.web.pictures import files_of

if TYPE_CHECKING:
    from agent.web.site import Site

MAX_BOXES = 50
GAP_PX = 4  # between a region and its box
RADIUS_PX = 6  # around a detection
Box = tuple[float, float, float, float]
"""x, y, width and height in a picture as it is shown."""


async def boxes_of(site: Site, message: dict[str, Any]) -> tuple[list[Box], tuple[int, int]]:
    """Return the boxes of a strip's message and the width and height around them; none where none are known."""
    if not (message["heatmap_path"] or message["preview_path"]):
        return [], (1, 1)
    key = message["strip_id"], str(message["revision"]), "regions"
    kept = site.cache.get(key)
    if kept is not None:
        found: dict[str, Any] = json.loads(kept)
    else:
        try:
            files = await files_of(site, message["strip_id"], message["revision"])
            found, _ = await site.painter.paint({"kind": "regions", "files": files})
        except (NoPictureError, AgentRefusedError):
            return [], (1, 1)
        site.cache.put(key, json.dumps(found).encode())
    return boxes(found), view(found)


def view(look: dict[str, Any]) -> tuple[int, int]:
    """Return width and height of a strip's picture as it is shown: tall ones are turned."""
    return max(1, look["height"], look["width"]), max(1, min(look["height"], look["width"]))


def boxes(look: dict[str, Any]) -> list[Box]:
    """Return the boxes around the regions of a strip, as it is shown."""
    turned = look["height"] > look["width"]
    found = []
    for region in [*look["regions"], *map(_around, look["detections"])][:MAX_BOXES]:
        try:
            top, left, bottom, right = (region[name] for name in ("top", "left", "bottom", "right"))
        except KeyError:
            continue
        x, y, width, height = left, top, right - left, bottom - top
        if turned:
            x, y, width, height = top, look["width"] - right, bottom - top, right - left
        found.append((x - GAP_PX, y - GAP_PX, max(0, width) + 2 * GAP_PX, max(0, height) + 2 * GAP_PX))
    return found


def _around(detection: dict[str, Any]) -> dict[str, Any]:
    row, col = detection.get("row", 0), detection.get("col", 0)
    return {"top": row - RADIUS_PX, "left": col - RADIUS_PX, "bottom": row + RADIUS_PX, "right": col + RADIUS_PX}
