"""Values of any size as JSON of a limited size: what is too long is cut, and says so."""

from __future__ import annotations

from typing import Any

from agent.printable import json_text

CUT = "cut"  # key that says that some lists are shorter than they were
_TEXT_CHARACTERS = 500


def json_within(values: dict[str, Any], limit_bytes: int) -> str:
    """Write an object as ASCII JSON within a limit; of what is too long only the beginning, with `"cut": true`.

    Lists and objects in it are cut to fewer and fewer entries until it fits; at the very last it is only `cut`.
    """
    text = json_text(values)
    entries = len(text)
    while len(text) > limit_bytes and entries > 0:
        entries = min(entries, 1 << 14) // 2
        text = json_text({**_cut(values, entries, 0), CUT: True})
    return text


def _cut(value: Any, entries: int, depth: int) -> Any:
    if isinstance(value, dict):
        kept = list(value.items()) if depth == 0 else list(value.items())[:entries]
        return {key: _cut(item, entries, depth + 1) for key, item in kept if entries or depth}
    if isinstance(value, list | tuple):
        return [_cut(item, entries, depth + 1) for item in value[:entries]]
    return value[:_TEXT_CHARACTERS] if isinstance(value, str) else value
