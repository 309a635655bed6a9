"""Which names are strips, and in what order they come. Nothing but logic."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from agent.files import HIDDEN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

AgeKey = tuple[int, bytes]
"""(mtime in ns, `natural_key` of the path): orders files from old to new, without ties."""

_NUMBER = re.compile(rb"[0-9]+")


def natural_key(path: str) -> bytes:
    r"""Return a key that orders paths as people count: `img_9` before `img_10`. Different paths have different keys.

    Bytes, so that Python and SQLite (a BLOB) compare them alike. Each number is preceded by how many digits it has,
    zeros in front of it aside; numbers stay where they were among other characters. The path itself, after a zero
    byte, decides between `img_7` and `img_07`.
    """
    name = os.fsencode(path)
    return _NUMBER.sub(_counted, name) + b"\0" + name


def _counted(number: re.Match[bytes]) -> bytes:
    digits = number[0].lstrip(b"0")
    return b"%04d%s" % (len(digits), digits)


def compile_patterns(patterns: Sequence[str]) -> re.Pattern[str]:
    """Turn globs into one regular expression for `fullmatch` on a path relative to the camera's folder.

    `*` and `?` stay inside one name, `[...]` and `[!...]` are sets, `**` as a whole part is any number of folders
    including none. Case does not matter. Raises ValueError for a pattern that could never match. A file that the agent
    has hidden to move or remove it never matches.
    """
    hidden = rf"(?!(?:.*/)?{re.escape(HIDDEN_PREFIX)}[^/]*\Z)"
    return re.compile(f"{hidden}(?:{'|'.join(_translate(pattern) for pattern in patterns)})", re.IGNORECASE | re.DOTALL)


def _translate(pattern: str) -> str:
    parts = pattern.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"pattern {pattern!r}: write it relative to the camera's folder, for example **/*.tif")
    regex = ""
    for before, part in zip(["", *parts], parts[:-1], strict=False):
        if part != "**":
            regex += _translate_name(part, pattern) + "/"
        elif before != "**":
            regex += "(?:[^/]+/)*"
    return regex + ("(?:[^/]+/)*[^/]+" if parts[-1] == "**" else _translate_name(parts[-1], pattern))


_TOKENS = re.compile(r"\*+|\?|\[(?P<negated>!?)(?P<members>.[^]]*)\]|.", re.DOTALL)


def _translate_name(part: str, pattern: str) -> str:
    regex = ""
    for token in _TOKENS.finditer(part):
        if token[0].startswith("*"):
            regex += "[^/]*"
        elif token[0] == "?":
            regex += "[^/]"
        elif token["members"]:
            members = _translate_members(token["members"], pattern)
            regex += f"[^/{members}]" if token["negated"] else f"(?!/)[{members}]"
        else:
            regex += re.escape(token[0])
    return regex


def _translate_members(members: str, pattern: str) -> str:
    regex = ""
    for first, last in re.findall(r"(.)(?:-(.))?", members, re.DOTALL):
        if last and last < first:
            raise ValueError(f"pattern {pattern!r}: the range {first}-{last} runs backwards")
        regex += re.escape(first) + (f"-{re.escape(last)}" if last else "")
    return regex
