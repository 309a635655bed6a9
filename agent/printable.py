"""Text that came from outside, made fit for a terminal and the log: one place, used where it is printed.

Names of files, cameras, operators in a model, what brokers say, what stands in a configuration: anybody may have put
a terminal's commands, line breaks, marks that turn the writing around, or bytes that are no text into them.
"""

from __future__ import annotations

import json
from typing import Any


def printable(text: str) -> str:
    r"""Escape control characters and bytes that are no text; `\` stays, because names come here escaped already."""
    if text.isprintable():  # as nearly all of it is: the log is written with each strip
        return text
    return "".join(char if char.isprintable() else escape(char) for char in text)


def escape(char: str) -> str:
    """Write a character as a backslash and letters; a byte that `os.fsdecode` could not decode as itself."""
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def printable_values(value: Any) -> Any:
    """Make every text in plain JSON values printable, keys included."""
    if isinstance(value, dict):
        return {printable_values(key): printable_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def json_text(value: Any, indent: int | None = None) -> str:
    """Write plain JSON values in ASCII without control characters. Raises ValueError for numbers JSON does not have."""
    return json.dumps(value, allow_nan=False, indent=indent).replace("\x7f", "\\u007f")


def model_name(model_id: str, version: int) -> str:
    """Name a model; one that states neither has only its file's name and its digest, which stand beside this."""
    return f"{model_id or '(no id)'} version {version}" if model_id or version else "(states no id)"
