"""docs/folders.md: what it promises is tested."""

from __future__ import annotations

import re

from tests.helpers.repository import ROOT

PAGE = (ROOT / "docs" / "folders.md").read_text(encoding="utf-8")
TEST = re.compile(r"^def (test_\w+)", re.MULTILINE)
TESTS = {name for path in (ROOT / "tests").rglob("test_*.py") for name in TEST.findall(path.read_text())}


def test_every_test_that_the_page_names_is_there() -> None:
    """A test that was renamed or deleted takes its promise with it."""
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named <= TESTS, named - TESTS


def test_every_row_of_the_page_names_a_test() -> None:
    """No promise without one."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| fault", "| place"))]
    assert rows
    assert [row for row in rows if "`test_" not in row and not row.endswith("| the same |")] == []
