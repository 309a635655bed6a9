"""The page's words. Each file of texts/ belongs to one page and holds `{"key": {"en": "...", "zh-TW": "..."}}`.

A key is named after its page, as in `line.waiting`; what several pages say is in shared.json. `{name}` is filled in.
The English of alarms and of what to do is in their own table, `agent/messages/alarms.py`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal

Language = Literal["en", "zh-TW"]
LANGUAGES: tuple[Language, ...] = ("en", "zh-TW")
FOLDER = Path(__file__).with_name("texts")
_CHINESE = ("zh",)


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return key -> language -> text, of all files together."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        for key, texts in json.loads(path.read_text(encoding="utf-8")).items():
            if key in found:
                raise ValueError(f"{path.name}: the key {key} is in another file, too")
            found[key] = texts
    return found


class Words:
    """The texts in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its values filled in. Raises KeyError for a key that does not exist."""
        text = catalogue()[key][self.language]
        return text.format(**values) if values else text

    def known(self, key: str, otherwise: str) -> str:
        """Return a text, or `otherwise` where there is none: a code that a newer service may know."""
        found = catalogue().get(key)
        return found.get(self.language, otherwise) if found else otherwise


def choose(setting: str, accept_language: str) -> Language:
    """Return the language of `web.language`; for `auto` the first one of the header that is known, else English."""
    if setting in LANGUAGES:
        return LANGUAGES[LANGUAGES.index(setting)]
    weighted = []
    for order, part in enumerate(accept_language[:1000].split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality or 1)
        except ValueError:
            continue
        weighted.append((-weight, order, tag.strip().lower()))
    for _, _, tag in sorted(weighted):
        if tag == "en" or tag.startswith("en-"):
            return "en"
        if tag in _CHINESE or tag.startswith("zh-"):
            return "zh-TW"
    return "en"
