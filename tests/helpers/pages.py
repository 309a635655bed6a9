"""The shell blocks of the pages that people paste from, and which of them are not for a box."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.helpers.repository import ROOT

PAGES = ("README.md", "docs/install.md")
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

ELSEWHERE = {
    "make demo": "for a computer with internet, where pip fetches what it needs; tests/demo runs the demo",
    ".venv/bin/python tools/export.py export": "for the machine that trains: needs PyTorch; tests/exporter",
    "cat > agent.yaml": "for the machine that trains: what make has installed, a broker, and two terminals",
    ".venv/bin/python tools/export.py push": "for the machine that trains, which pushes to the box; tests/exporter",
}
"""Why a block is not run on the box, by how it begins."""


@dataclass(frozen=True, slots=True)
class Block:
    """What is pasted at once, and where it stands."""

    page: str
    section: str
    text: str

    @property
    def elsewhere(self) -> str:
        """Say why it is not for a box, "" where it is."""
        return next((why for begin, why in ELSEWHERE.items() if self.text.startswith(begin)), "")


def blocks(page: str) -> list[Block]:
    """Give the shell blocks of a page, in order."""
    _, *parts = _SECTION.split((ROOT / page).read_text(encoding="utf-8"))
    return [
        Block(page, section, text)
        for section, body in zip(parts[::2], parts[1::2], strict=True)
        for text in _BLOCK.findall(body)
    ]
