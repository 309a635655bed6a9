"""What supervisor and worker say to each other: every message comes back as it was, everything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import wire
from agent.records import FileIdentity, HeatmapFiles, Judgement, Strip
from agent.wire import Failed, Job, Judged, Judging, Loaded, Opening, Reading, Refused, Setup, Writing
from tests.helpers.measures import make_measures

if TYPE_CHECKING:
    from agent.wire import Message

STRIP = Strip(1, "s", "top", "day/\udcff.tif", FileIdentity(10, 2, 3), attempts=1, revision=2, seen_ms=4)
JUDGEMENT = Judgement(
    score=1, threshold=0.5, anomalous=True, anomaly_area_px=1, defect_count=1, peak_row=2, peak_col=3,
    rescaled=False, inference_ms=1.5, digest="d", heatmaps=HeatmapFiles("a.tiff", "t", "a.png", "p", "saved", 7),
)  # fmt: skip
MEASURES = make_measures(rows_1=None, sharpness_target=None)
MESSAGES: list[Message] = [
    Setup("m", "s", "l", "h", "candidate", None, 4096, "auto", {"a": 1}, {}, {}, 5.0, {}),
    Setup("m", "s", "l", "h", "worker", 2, None, "auto", {"a": 1}, {}, {}, 5.0, {"top": {}}),
    Job(STRIP, "/folder", 0.5),
    Opening(),
    Loaded(
        labelled=True, model_id="m", version=1, height=976, width=176, golden="none", golden_difference=0.0,
        threshold=None, load_ms=1.0, run_ms=1.0, cpu_ms=1.0,
    ),
    Refused("golden_mismatch", "why", box_fault=False),
    Reading("s"),
    Judging("s"),
    Writing("s"),
    Judged("s", JUDGEMENT),
    Judged("s", replace(JUDGEMENT, measures=MEASURES)),
    Failed("s", "unreadable", "why", "file", model_fault=False, digest=""),
]  # fmt: skip

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    """File names of any bytes included."""
    assert wire.decode(wire.encode(message)) == message


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"1", b"null", b'{"kind": []}', b"\xff", b"[" * 100_000])
def test_a_line_that_is_no_message_is_a_value_error(line: bytes) -> None:
    """Whatever a broken worker says, it is the worker that ends, not the supervisor."""
    with pytest.raises(ValueError, match="no message"):
        wire.decode(line)


@given(st.binary())
def test_any_bytes_are_a_message_or_a_value_error(line: bytes) -> None:
    """No other error comes out."""
    with pytest.raises(ValueError, match="no message"):
        wire.decode(line)


def _spoil(fields: dict[str, object], path: list[str], value: object) -> None:
    inside = fields
    for name in path[:-1]:
        inside = inside[name]  # type: ignore[assignment] # a dict, as its path says
    inside[path[-1]] = value


def _paths(fields: dict[str, object]) -> list[list[str]]:
    found = []
    for name, value in fields.items():
        found.append([name])
        if isinstance(value, dict) and name not in ("checks", "scoring", "heatmaps", "ignored"):
            found += [[name, *rest] for rest in _paths(value)]
    return found


@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_with_one_field_spoilt_is_as_typed_as_before_or_a_value_error(
    message: Message, data: st.DataObject
) -> None:
    """A field of another type never gets through: it would do its harm far from here."""
    fields = json.loads(wire.encode(message))
    path = data.draw(st.sampled_from(_paths(fields)))
    _spoil(fields, path, data.draw(anything))
    line = json.dumps(fields).encode()
    try:
        decoded = wire.decode(line)
    except ValueError:
        return
    assert wire.decode(wire.encode(decoded)) == decoded or "NaN" in line.decode()
