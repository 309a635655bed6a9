"""What the pages tell people to type exists."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest

from agent.cli.__main__ import cli
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NAMED = re.compile(r"`strip-agent ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_commands_that_a_page_names_exist(page: Path) -> None:
    """Also the command of a group, such as `models list`."""
    for name, further in NAMED.findall(page.read_text()):
        command = cli.commands.get(name)
        assert command is not None, f"{page} names `strip-agent {name}`"
        if isinstance(command, click.Group) and further:
            assert further in command.commands, f"{page} names `strip-agent {name} {further}`"
