"""Pictures on pages for people; the pages themselves are the box's (agent/page.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.page import png_url
from tools.exporter.pictures import encode_png

if TYPE_CHECKING:
    from tools.exporter.graph import Array


def data_url(picture: Array) -> str:
    """Give a picture, (height, width) or (height, width, 3) uint8 BGR, as an address that holds it."""
    return png_url(encode_png(picture))
