"""Every code that the source gives as a reason is explained to who reads it."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from agent.errors import Reason
from agent.messages import ALARMS
from agent.publisher import flow_control
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

REASONS = (ROOT / "docs" / "reasons.md").read_text()
MESSAGES = (ROOT / "docs" / "messages.md").read_text()
SOURCES = [path for path in sorted((ROOT / "agent").rglob("*.py")) if path.name != "errors.py"]


def codes_given_to(*names: str) -> Iterator[str]:
    """Find the literal codes among the arguments of calls such as `CannotSend("too_large", ...)` anywhere in agent/."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in names:
                for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                    if isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z]+)*", str(argument.value)):
                        yield str(argument.value)


def alarms_in(node: ast.AST) -> Iterator[str]:
    """Find the literal codes in a part of the source, those with a camera's or slot's name in the middle left out."""
    if isinstance(node, ast.JoinedStr | ast.comprehension | ast.Compare):
        return
    if isinstance(node, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z]+)+", str(node.value)):
        yield str(node.value)
    for child in ast.iter_child_nodes(node):
        yield from alarms_in(child)


def alarms_of_the_box() -> Iterator[str]:
    """Find what is put into a list called `alarms`, or returned by a function of that name, anywhere in agent/."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(targets=[ast.Name(id="alarms")]) | ast.AugAssign(target=ast.Name(id="alarms")):
                    yield from alarms_in(node.value)
                case ast.Call(func=ast.Attribute(value=ast.Name(id="alarms"), attr="append" | "insert")):
                    yield from alarms_in(node)
                case ast.FunctionDef(name="alarms"):
                    yield from (code for part in node.body[1:] for code in alarms_in(part))


def test_every_alarm_of_the_box_itself_is_explained_with_what_to_do() -> None:
    """Whoever raises one writes it into the table that the page is made of."""
    found = set(alarms_of_the_box())
    assert {"ledger_was_damaged", "clock_jumped_ahead", "outbox_dropped", "heatmaps_failed", "login_refused"} <= found
    assert [code for code in sorted(found) if not {code, f"slot_{code}"} & ALARMS.keys()] == []


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_section(reason: Reason) -> None:
    """Of strips, models, manifests and the box: a heading of its own, and more than a few words below it."""
    section = re.search(rf"^### `{reason}`\n(.*?)(?=^##|\Z)", REASONS, re.DOTALL | re.MULTILINE)
    assert section is not None
    assert len(section[1].split()) >= 10


def test_every_reason_is_given_somewhere() -> None:
    """A code that nothing raises any more is taken out of the list and of the page."""
    source = "\n".join(path.read_text() for path in SOURCES)
    assert [reason for reason in Reason if f"Reason.{reason.name}" not in source] == []


def test_why_a_message_was_set_aside_is_explained() -> None:
    """What cannot be sent is named in the audit with a code; the page says what to do with each."""
    codes = {*codes_given_to("CannotSend", "_park"), *flow_control.NEVER.values()}
    assert {"too_large", "topic_invalid", "payload_invalid", "broker_disconnects"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in MESSAGES] == []


def test_why_the_agent_came_or_went_is_explained() -> None:
    """`state/agent` has a reason in either state."""
    codes = {*codes_given_to("_payload", "close")}
    assert {"connected", "connection_lost", "shutdown"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in MESSAGES] == []
