"""docs/zh-TW/ explains every code of the English tables, with what to do; commands and codes stay as they are typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest

from agent.cli.__main__ import cli
from agent.config.words import leaf_paths
from agent.errors import Reason
from agent.messages.alarms import ALARMS
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "docs/zh-TW"
PAGES = sorted(FOLDER.glob("*.md"))
CODE = re.compile(r"`([^`\n]+)`")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def rows(page: Path) -> dict[str, list[str]]:
    """Return the further cells of each table's row by the code in its first."""
    found: dict[str, list[str]] = {}
    for line in page.read_text().splitlines():
        if match := re.match(r"\| `(\w+)` \|(.*)\|$", line):
            assert match[1] not in found, f"{match[1]} stands there twice"
            found[match[1]] = [cell.strip() for cell in match[2].split(" | ")]
    return found


def test_every_reason_is_explained_with_what_to_do() -> None:
    """No code is missing, and none is there that does not exist."""
    found = rows(FOLDER / "reasons.md")
    assert found.keys() == {reason.value for reason in Reason}, "give it a row in docs/zh-TW/reasons.md"
    for code, (meaning, action) in found.items():
        assert CHINESE.search(meaning), code
        assert action, code


def test_every_alarm_is_explained_with_its_priority_and_what_to_do() -> None:
    """As the English table has it."""
    found = rows(FOLDER / "alarms.md")
    assert found.keys() == ALARMS.keys(), "give it a row in docs/zh-TW/alarms.md"
    for code, (priority, meaning, action) in found.items():
        assert priority == ALARMS[code].priority, code
        assert CHINESE.search(meaning), code
        assert action, code


def test_the_three_verdicts_are_explained() -> None:
    """With their numbers, and that what is invalid was not inspected."""
    found = rows(FOLDER / "README.md")
    assert {code: found[code][0] for code in ("ok", "anomalous", "invalid")} == {
        "ok": "0",
        "anomalous": "1",
        "invalid": "2",
    }
    assert "未檢查" in found["invalid"][2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_keys_exist_and_links_lead_somewhere(page: Path) -> None:
    """What is typed is as it is in the English pages."""
    text = page.read_text()
    keys = {".".join(path) for path in leaf_paths()}
    sections = {key.split(".")[0] for key in keys}
    for code in CODE.findall(text):
        words = code.split()
        if words[0] == "strip-agent" and len(words) > 1:
            command = cli.commands[words[1]]
            assert not isinstance(command, click.Group) or words[2] in command.commands, code
        elif re.fullmatch(r"[a-z]+(\.[a-z_]+)+(: \w+)?", code) and code.split(".")[0] in sections:
            assert any(key == code.split(":")[0] for key in keys), code
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (FOLDER / target).exists(), target
