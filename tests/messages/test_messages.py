"""The messages: what SCADA systems and historians rely on."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import jsonschema  # type: ignore[import-untyped] # it brings no types
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent import messages
from agent.messages import Message, StripResult
from agent.messages.schemas import ASKED
from tests.helpers.repository import ROOT
from tools.docs_commands import command_pages
from tools.docs_messages import message_pages

DOCS = ROOT / "docs"

RESULT: dict[str, Any] = {
    "msg_id": "3f2a-17",
    "stream": "3f2a",
    "seq": 17,
    "revision": 1,
    "ts": "2026-11-22T23:48:21.444Z",
    "ts_ms": 1795391301444,
    "agent": "insp1",
    "camera": "top",
    "strip_id": "0123456789abcdef",
    "part_id": "S1011",
    "file": "2026/S1011.tif",
    "captured_ts_ms": 1795391300000,
    "score": 0.2659,
    "threshold": 0.6,
    "verdict": "ok",
    "verdict_code": 0,
    "reason": "",
    "quality": 192,
    "anomaly_area_px": 0,
    "defect_count": 0,
    "peak_row": 5,
    "peak_col": 7,
    "rescaled": False,
    "replayed": False,
    "model_id": "unet16",
    "model_version": 3,
    "model_sha256": "ab" * 32,
    "inference_ms": 12.5,
    "total_ms": 21.0,
    "heatmap_path": "",
    "heatmap_sha256": "",
    "preview_path": "top/2026-11-22/S1011-0123456789abcdef-r1.png",
    "preview_sha256": "cd" * 32,
    "preview_url": "",
    "heatmap_state": "saved",
    "ignore_pixels_sha256": "",
    "ignore_mask_sha256": "",
    "threshold_source": "model",
}
KEYS = (
    "schema msg_id stream seq revision ts ts_ms agent camera strip_id part_id file captured_ts_ms score threshold "
    "verdict verdict_code reason quality anomaly_area_px defect_count peak_row peak_col rescaled replayed model_id "
    "model_version model_sha256 inference_ms total_ms heatmap_path heatmap_sha256 preview_path preview_sha256 "
    "preview_url heatmap_state ignore_pixels_sha256 ignore_mask_sha256 threshold_source"
)
MODEL_STATE_KEYS = (
    "schema slot active_model_id active_version active_sha256 active_since golden on_probation previous_sha256 "
    "last_refused_sha256 last_refused_file last_refused_reason last_refused_detail last_refused_ts ts ts_ms agent"
)
ALARM_EVENT_KEYS = "schema msg_id agent code source state priority text since_ts since_ms ts ts_ms"
COMMAND_EVENT_KEYS = "schema msg_id ts ts_ms agent command by way id arguments ok error detail count"
REVIEW_EVENT_KEYS = (
    "schema msg_id ts ts_ms agent camera strip_id part_id file finding by remark replaces result_msg_id revision "
    "verdict score model_id model_version model_sha256"
)
COMMAND_RESULT_KEYS = "schema id command ok error detail count result agent ts ts_ms"
SCHEMAS = messages.schemas()


def test_a_strip_result_has_exactly_the_promised_keys_in_their_order() -> None:
    """Subscribers are written against these keys."""
    assert " ".join(json.loads(messages.encode(StripResult(**RESULT)))) == KEYS


def test_the_model_state_has_exactly_the_promised_keys_in_their_order() -> None:
    """Subscribers are written against these keys."""
    assert " ".join(SCHEMAS["model-state/1"]["properties"]) == MODEL_STATE_KEYS


def test_the_alarm_event_has_exactly_the_promised_keys_in_their_order() -> None:
    """Subscribers are written against these keys."""
    assert " ".join(SCHEMAS["alarm-event/1"]["properties"]) == ALARM_EVENT_KEYS


def test_a_commands_answer_and_event_have_exactly_the_promised_keys_in_their_order() -> None:
    """Subscribers are written against these keys."""
    assert " ".join(SCHEMAS["command-event/1"]["properties"]) == COMMAND_EVENT_KEYS
    assert " ".join(SCHEMAS["command-result/1"]["properties"]) == COMMAND_RESULT_KEYS


def test_the_review_event_has_exactly_the_promised_keys_in_their_order() -> None:
    """Subscribers are written against these keys."""
    assert " ".join(SCHEMAS["review-event/1"]["properties"]) == REVIEW_EVENT_KEYS


def test_floats_stay_floats_when_they_are_whole() -> None:
    """70 makes an integer tag in Ignition and a type conflict in InfluxDB when 70.25 follows."""
    text = messages.encode(StripResult(**{**RESULT, "score": 1, "threshold": 70, "inference_ms": 12})).decode()
    assert '"score":1.0,' in text
    assert '"threshold":70.0,' in text
    assert '"inference_ms":12.0,' in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "0.5", None, True])
def test_a_score_that_is_no_finite_number_is_refused(value: object) -> None:
    """JSON has no NaN: readers would throw the whole message away."""
    with pytest.raises(ValidationError):
        StripResult(**{**RESULT, "score": value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "anomalous"},
        {"verdict": "invalid", "verdict_code": 2},
        {"verdict": "invalid", "verdict_code": 2, "quality": 0, "score": -1.0},
        {"verdict": "invalid", "verdict_code": 2, "quality": 0, "reason": "low_contrast"},
        {"reason": "low_contrast"},
        {"quality": 0},
    ],
)
def test_a_verdict_that_its_other_keys_contradict_cannot_be_made(wrong: dict[str, object]) -> None:
    """A bad strip is never ok, whichever key a subscriber looks at."""
    with pytest.raises(ValidationError):
        StripResult(**{**RESULT, **wrong})


def test_a_key_that_is_not_in_the_schema_is_refused() -> None:
    """A typing mistake in the code must not become a new key."""
    with pytest.raises(ValidationError):
        StripResult(**{**RESULT, "scores": 1.0})


@pytest.mark.parametrize("model", messages.MESSAGES, ids=lambda model: str(model.__name__))
def test_keys_and_values_are_what_scada_systems_can_read(model: type[Message]) -> None:
    """Flat, snake case, one type for each key, no null and no array."""
    [name] = get_args(model.model_fields["schema_"].annotation)
    schema = SCHEMAS[name]
    assert schema["required"] == list(schema["properties"]) or model in ASKED
    for key, described in schema["properties"].items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", key)
        assert described["type"] in {"string", "integer", "number", "boolean"}
        assert described["description"]
    assert next(iter(schema["properties"])) == "schema"


_text = st.text(max_size=20)
_finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    score=_finite,
    threshold=_finite,
    total_ms=st.floats(min_value=0, allow_infinity=False),
    file=_text,
    part_id=_text,
    captured_ts_ms=st.integers(),
)
def test_every_result_is_json_that_its_published_schema_accepts(**values: Any) -> None:
    """What is sent is what is documented, and nothing is lost on the way."""
    result = StripResult(**{**RESULT, **values})
    payload = messages.encode(result)
    jsonschema.validate(json.loads(payload), SCHEMAS["strip-result/1"])
    assert StripResult.model_validate_json(payload) == result
    assert messages.schema_name(payload) == "strip-result/1"


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"x":"strip-result/1"}', b'{"schema":"../../x"}', b"\xff\xfe"])
def test_a_payload_without_a_schema_in_front_has_no_schema_name(payload: bytes) -> None:
    """What is not one of our messages is not called one."""
    assert messages.schema_name(payload) == ""


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1795391301444, "2026-11-22T23:48:21.444Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1795391301000, "2026-11-22T23:48:21.000Z"),
    ],
)
def test_times_are_utc_with_milliseconds(unix_ms: int, text: str) -> None:
    """Always the same length, so that texts sort as times do."""
    assert messages.utc_text(unix_ms) == text


def test_the_published_pages_are_those_of_the_code() -> None:
    """docs/messages.md, docs/schemas/ and docs/asyncapi.yaml never drift from what is sent."""
    pages = message_pages() | command_pages()
    for name, text in pages.items():
        assert (DOCS / name).read_text() == text, f"docs/{name} is not up to date; run: make docs"
    assert {f"schemas/{file.name}" for file in (DOCS / "schemas").iterdir()} < pages.keys()


def test_every_topic_is_explained() -> None:
    """What can be seen on MQTT is in the documentation."""
    page = (DOCS / "messages.md").read_text()
    topics = [
        messages.strip_event_topic("{camera}"),
        messages.model_event_topic("{slot}"),
        messages.ALARM_EVENT,
        messages.COMMAND_EVENT,
        messages.REVIEW_EVENT,
        messages.shadow_event_topic("{slot}"),
        messages.replay_topic("{camera}"),
        messages.last_strip_topic("{camera}"),
        messages.model_state_topic("{slot}"),
        messages.shadow_state_topic("{slot}"),
        messages.STATE_AGENT,
        messages.STATE_HEALTH,
        messages.command_topic("{name}"),
        messages.answer_topic("{name}"),
    ]
    described = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    assert [channel["address"] for channel in described["channels"].values()] == [
        f"strip-agent/{{agent}}/{topic}" for topic in topics
    ]
    assert all(f"`{topic}`" in page for topic in topics)
