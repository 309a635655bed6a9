"""README.md and docs/install.md: whatever is to be pasted on a box is run on one by a test."""

from __future__ import annotations

import re

import pytest

from tests.helpers.pages import ELSEWHERE, PAGES, Block, blocks
from tests.helpers.repository import ROOT

FOLLOWED = re.compile(r'\bfollow\(box, "([^"]+)"(?:, "([^"]+)")?')
ALL = [block for page in PAGES for block in blocks(page)]


def followed() -> set[tuple[str, str]]:
    """Give page and section of what the tests on a whole box paste."""
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests/system").glob("test_*.py"))]
    return {(page or "docs/install.md", section) for text in sources for section, page in FOLLOWED.findall(text)}


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}: {block.section}")
def test_a_block_is_run_on_a_box_or_said_to_be_for_elsewhere(block: Block) -> None:
    """No command stands there that nobody has pasted as it stands."""
    assert block.elsewhere or (block.page, block.section) in followed(), block.text


def test_every_reason_is_about_a_block_that_is_there() -> None:
    """What is not run on a box is listed once, with its reason, and nothing is listed that is gone."""
    for begin, why in ELSEWHERE.items():
        assert why
        assert len([block for block in ALL if block.text.startswith(begin)]) == 1, begin


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}: {block.section}")
def test_no_line_carries_an_explanation_that_a_shell_would_run(block: Block) -> None:
    """What explains stands behind a #: after it a shell reads no further."""
    typed = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", block.text, flags=re.DOTALL)
    lines = [re.split(r"\s#", line)[0] for line in typed.splitlines()]
    assert [line for line in lines if re.search(r"\S {3,}\S", line)] == []
