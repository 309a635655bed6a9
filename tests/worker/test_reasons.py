"""The reasons for which a strip is not judged are explained to operators."""

from __future__ import annotations

import re

import pytest

from agent.errors import Reason
from agent.worker.tiff_tags import LOSSLESS
from tests.helpers.bad_strips import BAD_STRIPS
from tests.helpers.repository import ROOT

TEXT = (ROOT / "docs" / "reasons.md").read_text()
SECTIONS = {
    match[1]: match[2].strip()
    for match in re.finditer(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
}


@pytest.mark.parametrize("reason", sorted({reason for _, reason in BAD_STRIPS.values()}))
def test_the_reason_of_each_bad_strip_is_explained(reason: Reason) -> None:
    """Each has a heading of its own, and more than a few words below it."""
    assert len(SECTIONS[reason].split()) >= 10


def test_every_explained_code_exists() -> None:
    """The page explains no reason that is never given."""
    assert set(SECTIONS) <= set(Reason)


def test_the_accepted_compressions_are_those_that_are_read() -> None:
    """The page names each of them."""
    assert all(name in SECTIONS[Reason.UNSUPPORTED_CODEC] for name in LOSSLESS.values())
