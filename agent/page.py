"""Pages for people: one file that loads nothing from elsewhere, without scripts."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.25em .7em;text-align:right}"
    "th{background:#eee}td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:0 1.5em 1em 0}"
    "figcaption{font-size:.85em}.bad{background:#fcc}img{max-width:100%}"
)


def page(title: str, parts: Iterable[str]) -> str:
    """Put a page together; `parts` are HTML, the title is text."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html><html lang="en">{head}{body}</html>\n'


def table(head: Iterable[str], rows: Iterable[Iterable[str]], bad: Collection[int] = ()) -> str:
    """Write a table; the rows whose numbers are in `bad` stand out."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for number, row in enumerate(rows):
        mark = ' class="bad"' if number in bad else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def png_url(png: bytes) -> str:
    """Give the bytes of a PNG file as an address that holds them."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
