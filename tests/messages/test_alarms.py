"""Every alarm is explained, whoever raises it."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent import messages
from agent.errors import Reason
from agent.heatmap_folder import FolderState
from agent.messages.about_alarms import Priority
from agent.messages.alarms import ROLLED_BACK
from agent.publisher import flow_control, poison, status
from agent.publisher.link import Link
from agent.watching.status import AWAY
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (ROOT / "docs" / "messages.md").read_text()
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)


def named_in_the_source() -> Iterator[str]:
    """Find what is written as `f"camera_{name}_code"` or `f"slot_{name}_code"` anywhere in agent/: the codes."""
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.JoinedStr(
                    values=[ast.Constant(value="camera_" | "slot_" as what), _, ast.Constant(value=str(code))]
                ):
                    yield what + code.removeprefix("_")


def quoted(function: object) -> set[str]:
    """Find the words in quotes in a function's source."""
    return set(re.findall(r'"([a-z_]+)"', inspect.getsource(typing.cast("typing.Any", function))))


def test_every_alarm_of_a_camera_or_a_slot_is_in_the_table() -> None:
    """Whoever adds one writes down what it means and what to do."""
    found = set(named_in_the_source())
    assert {"camera_clock_ahead", "slot_no_model", "camera_files_stay"} <= found
    assert found <= messages.ALARMS.keys()
    assert {f"camera_{state}" for state in AWAY} <= messages.ALARMS.keys()
    states = typing.get_args(typing.get_type_hints(FolderState)["state"])
    assert {f"heatmaps_{state}" for state in states if state != "there"} <= messages.ALARMS.keys()
    assert {f"ledger_{reason}" for reason in (Reason.NO_SPACE, Reason.IO_ERROR)} <= messages.ALARMS.keys()


def test_every_alarm_of_the_publisher_is_in_the_table() -> None:
    """The publisher's alarms are about the broker, which is what SCADA people look at first."""
    of_the_link = quoted(Link.alarms)
    of_others = quoted(status.look) - {"broker_unreachable"}
    refusals = set(poison.REFUSED.values()) | {"publish_refused"}
    assert {"login_refused", "session_taken_over"} <= of_the_link
    assert "nobody_listening" in of_others
    assert of_the_link | of_others | refusals <= messages.ALARMS.keys()
    assert not set(flow_control.NEVER.values()) & messages.ALARMS.keys()


@pytest.mark.parametrize("code", messages.ALARMS)
def test_every_code_is_documented_with_what_to_do(code: str) -> None:
    """Who is woken by a code finds it on the page."""
    kind = messages.ALARMS[code]
    assert f"| `{code}` | {kind.priority} | {kind.text} | {kind.advice} |" in PAGE
    assert kind.text.endswith(".")
    assert kind.advice.endswith(".")
    assert "|" not in kind.text + kind.advice
    assert kind.priority in typing.get_args(Priority)


@example(camera="partly", slot="default", code="camera_unreadable", other="top")
@given(camera=NAMES, slot=NAMES, code=st.sampled_from(sorted(messages.ALARMS)), other=NAMES)
def test_the_name_of_an_alarm_tells_its_code_and_its_source(camera: str, slot: str, code: str, other: str) -> None:
    """Names of cameras and slots may have any shape, also that of a code."""
    what, _, rest = code.partition("_")
    source = {"camera": f"camera/{camera}", "slot": f"slot/{slot}"}.get(what, "agent")
    name = code if source == "agent" else f"{what}_{source.split('/')[1]}_{rest}"
    assume(not name.startswith(f"camera_{other}_"))
    alarm = messages.explain(name, {camera, other}, {slot})
    assert (alarm.code, alarm.source, alarm.priority) == (code, source, messages.ALARMS[code].priority)


def test_a_slot_that_went_back_names_the_reason() -> None:
    """`state/health` has the reason in the alarm's name, the event has it in its text."""
    alarm = messages.explain("slot_default_probation_faults", ["top"], ["default"])
    assert (alarm.code, alarm.source) == (ROLLED_BACK, "slot/default")
    assert alarm.text.endswith("The reason: probation_faults.")


@pytest.mark.parametrize("name", ["camera_gone_missing", "slot_default_", "camera_top_", "", "nonsense"])
def test_an_alarm_that_nobody_explained_is_told_all_the_same(name: str) -> None:
    """Better a code without words than silence."""
    alarm = messages.explain(name, ["top"], ["default"])
    assert (alarm.code, alarm.source, alarm.priority) == (name, "agent", "medium")
