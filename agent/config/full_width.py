"""Punctuation of Chinese and Japanese keyboards, and of word processors, that looks like YAML's and is none."""

# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL_WIDTH = range(0xFF01, 0xFF5F)
_TO_ASCII = 0xFEE0  # from a full-width form to what it is the form of
_OTHERS = dict.fromkeys("“”„〝〞「」『』", '"') | dict.fromkeys("‘’‚", "'")
_OTHERS |= {"、": ",", "。": ".", "【": "[", "】": "]", "〔": "[", "〕": "]", "–": "-", "—": "-"}
_OTHERS |= dict.fromkeys("\u3000\u00a0\u2002\u2003", " ")
AROUND_A_VALUE = frozenset(
    character
    for character in (*_OTHERS, *map(chr, _FULL_WIDTH))
    if _OTHERS.get(character, unicodedata.normalize("NFKC", character)) in {'"', "'", " "}
)
"""Quotes and spaces: at the beginning or the end of a value they are meant as those of YAML."""


def look_alikes(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, sentence) for each line that has such characters outside of quotes and comments."""
    for number, line in enumerate(text.splitlines(), start=1):
        found = dict.fromkeys(character for character in _outside_of_quotes(line) if _meant(character))
        if found:
            yield number, sentence("".join(found))


def sentence(characters: str) -> str:
    """Say what each of these characters is, and what to type in its place."""
    named = ", ".join(f"{_shown(character)}: type {_typed(_meant(character))}" for character in characters)
    return f"looks like YAML and is none (full-width characters; switch the keyboard to English): {named}"


def _meant(character: str) -> str:
    if ord(character) in _FULL_WIDTH:
        return chr(ord(character) - _TO_ASCII)
    return _OTHERS.get(character, "")


def _shown(character: str) -> str:
    code = f"U+{ord(character):04X}"
    return f"a space of another kind ({code})" if character.isspace() else f"{character} ({code})"


def _typed(character: str) -> str:
    return "an ordinary space" if character == " " else character


def _outside_of_quotes(line: str) -> Iterator[str]:
    quote, before = "", " "
    for character in line:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and not before.isalnum():  # an apostrophe in a word is none
            quote = character
        elif character == "#" and before.isspace():
            return
        else:
            yield character
        before = character
