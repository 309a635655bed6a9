"""Every message the agent publishes: its keys, their types, its topic, and how it becomes bytes.

All messages are flat JSON objects with constant keys and constant types: SCADA systems and historians make one tag or
column of each key and take its type from the first value they see. There is no null, no NaN and no array; "" stands for
"there is none". The docstring below a key becomes its text in docs/messages.md and in docs/schemas/.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import GenerateJsonSchema

Count = Annotated[int, Field(ge=0)]
Duration = Annotated[float, Field(ge=0)]
UtcText = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
UtcTextOrNone = Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)?$")]
Sha256OrNone = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]

INVALID_SCORE = -1.0
VERDICT_CODES = {"ok": 0, "anomalous": 1, "invalid": 2}
GOOD_QUALITY, BAD_QUALITY = 192, 0

STATE_AGENT = "state/agent"
STATE_HEALTH = "state/health"


def strip_event_topic(camera: str) -> str:
    """Topic of a camera's results, below the base topic."""
    return f"event/strip/{camera}"


def last_strip_topic(camera: str) -> str:
    """Topic of a camera's newest result, retained, below the base topic."""
    return f"state/last_strip/{camera}"


def model_event_topic(slot: str) -> str:
    """Topic of what happened to a slot's models, below the base topic."""
    return f"event/model/{slot}"


def model_state_topic(slot: str) -> str:
    """Topic of a slot's active model, retained, below the base topic."""
    return f"state/model/{slot}"


class Message(BaseModel):
    """Base of all messages; `schema` is the first key, so that the first bytes tell messages apart."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )


class StripResult(Message):
    """One judgement of one strip. Retained on `state/last_strip/{camera}` it is the newest of that camera."""

    schema_: Annotated[Literal["strip-result/1"], Field(alias="schema")] = "strip-result/1"
    """Name and version of this message. New keys keep the version; anything else makes a new one."""
    msg_id: Annotated[str, Field(min_length=1)]
    """`stream-seq`. The same result sent twice carries the same one: drop repeats by it."""
    stream: Annotated[str, Field(min_length=1)]
    """Random name of the ledger that counted `seq`; a new ledger starts a new count."""
    seq: Annotated[int, Field(ge=1)]
    """Counts the results of a ledger in the order of their commit, without gaps: a missing number is a lost message."""
    revision: Annotated[int, Field(ge=1)]
    """1 for the first judgement of a strip; each `strips retry` adds one."""
    ts: UtcText
    """When the result was committed, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    camera: Annotated[str, Field(min_length=1)]
    """Name of the camera."""
    strip_id: Annotated[str, Field(min_length=1)]
    """Identity of the strip; revisions of one strip share it."""
    part_id: str
    """What the camera's `part_id_pattern` found in the file name; "" when there is none."""
    file: str
    """The strip's file, relative to the camera's folder; odd bytes are shown with backslash escapes."""
    captured_ts_ms: int
    """Modification time of the strip's file in Unix milliseconds: the best known time of the picture."""
    score: float
    """The strip's score by the configured method; -1.0 when it was not judged."""
    threshold: float
    """A score at or above it is anomalous."""
    verdict: Literal["ok", "anomalous", "invalid"]
    """`invalid` was not judged and never means ok."""
    verdict_code: Literal[0, 1, 2]
    """0 ok, 1 anomalous, 2 invalid."""
    reason: str
    """Why the strip is invalid, one of the codes in docs/reasons.md; "" otherwise."""
    quality: Literal[0, 192]
    """192 good; 0 bad: the score must not be used."""
    anomaly_area_px: Count
    """Pixels of all counted defect regions."""
    defect_count: Count
    """Number of defect regions."""
    peak_row: Annotated[int, Field(ge=-1)]
    """Row of the heatmap's maximum, from 0; -1 when there is no heatmap."""
    peak_col: Annotated[int, Field(ge=-1)]
    """Column of the heatmap's maximum, from 0; -1 when there is no heatmap."""
    rescaled: bool
    """The strip's grey levels were outside the range and it was stretched before judging."""
    replayed: bool
    """True only in answers to a request for old results."""
    model_id: str
    """The model that judged; "" when no model was involved."""
    model_version: Count
    """Its version; 0 when it has none."""
    model_sha256: Sha256OrNone
    """Digest of its file; "" when no model was involved."""
    inference_ms: Duration
    """Time that the model ran."""
    total_ms: Duration
    """Time from the settled file to the commit."""
    heatmap_path: str
    """The lossless heatmap (float TIFF), POSIX, relative to the heatmap folder; "" when there is none."""
    heatmap_sha256: Sha256OrNone
    """Digest of that file; "" when there is none."""
    preview_path: str
    """The picture for people (PNG), relative to the heatmap folder; "" when there is none."""
    preview_url: str
    """Its address by `heatmaps.url_template`; "" when there is none."""
    heatmap_state: Literal["saved", "by_rule", "no_space", "failed"]
    """`by_rule`: the configuration says not to save this one."""

    @model_validator(mode="after")
    def _verdict_agrees(self) -> StripResult:
        invalid = self.verdict == "invalid"
        if self.verdict_code != VERDICT_CODES[self.verdict]:
            raise ValueError(f"verdict {self.verdict} has code {VERDICT_CODES[self.verdict]}, not {self.verdict_code}")
        if invalid != (self.quality == BAD_QUALITY) or invalid != bool(self.reason):
            raise ValueError("an invalid result has quality 0 and a reason, any other has quality 192 and none")
        if invalid and self.score != INVALID_SCORE:
            raise ValueError(f"an invalid result has score {INVALID_SCORE}, not {self.score}")
        return self


class ModelEvent(Message):
    """Something happened to a slot's models."""

    schema_: Annotated[Literal["model-event/1"], Field(alias="schema")] = "model-event/1"
    """Name and version of this message."""
    msg_id: Annotated[str, Field(min_length=1)]
    """The same event sent twice carries the same one: drop repeats by it."""
    ts: UtcText
    """When it happened, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    slot: Annotated[str, Field(min_length=1)]
    """The slot it happened to."""
    event: Literal["activated", "rejected", "rolled_back", "probation_passed", "superseded", "unchanged"]
    """`unchanged`: the pushed file is known already; `rolled_back`: the model failed on probation and is withdrawn."""
    model_id: str
    """The model this is about; "" when its file could not be read."""
    version: Count
    """Its version; 0 when it has none."""
    sha256: Sha256OrNone
    """Digest of its file; "" when it could not be read."""
    file: str
    """Its file, relative to the inbox; "" when it did not come from there."""
    reason: str
    """Why, one of the codes in docs/reasons.md; "" when there is nothing to explain."""
    detail: str
    """The same as a sentence, with the measured numbers."""
    active_model_id: str
    """The model that scores from now on; "" when there is none."""
    active_sha256: Sha256OrNone
    """Its digest; "" when there is none."""
    previous_sha256: Sha256OrNone
    """The model that scored before; "" when there was none."""
    return_detail: str
    """After `rolled_back`: how the return to the previous model went; "" otherwise."""


class ModelState(Message):
    """What is active in a slot, and what was refused last and why."""

    schema_: Annotated[Literal["model-state/1"], Field(alias="schema")] = "model-state/1"
    """Name and version of this message."""
    slot: Annotated[str, Field(min_length=1)]
    """Name of the slot."""
    active_model_id: str
    """The model that scores; "" when there is none."""
    active_version: Count
    """Its version; 0 when it has none."""
    active_sha256: Sha256OrNone
    """Digest of its file; "" when there is none."""
    active_since: UtcTextOrNone
    """Since when it scores, UTC; "" when there is none."""
    golden: Literal["passed", "none"]
    """Whether it reproduced its golden strip on this box; `none`: its file brought none."""
    on_probation: bool
    """It is still watched, and the previous one comes back when it fails."""
    previous_sha256: Sha256OrNone
    """The model before it; "" when there is none."""
    last_refused_sha256: Sha256OrNone
    """The model that was refused last; "" when none was."""
    last_refused_file: str
    """Its file, relative to the inbox."""
    last_refused_reason: str
    """Why, one of the codes in docs/reasons.md."""
    last_refused_detail: str
    """The same as a sentence, with the measured numbers."""
    last_refused_ts: UtcTextOrNone
    """When, UTC."""
    ts: UtcText
    """When this was written, UTC."""


class AgentState(Message):
    """Whether the agent is connected. The broker itself sends the offline one when the agent just vanishes (will)."""

    schema_: Annotated[Literal["agent-state/1"], Field(alias="schema")] = "agent-state/1"
    """Name and version of this message."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    online: bool
    """False: nothing comes from this box until it is true again."""
    reason: str
    """Why: `connected`; `connection_lost` when the broker noticed it; else what stopped the agent."""
    ts: UtcText
    """When this was written, UTC. With `connection_lost` that is when the connection began, not when it was lost."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    started_ts: UtcText
    """When the agent was started, UTC."""
    version: str
    """Version of the agent."""


class Health(Message):
    """How the agent is. Believe it only until `ts_ms` plus `valid_for_s`: a retained message outlives its sender."""

    schema_: Annotated[Literal["health/1"], Field(alias="schema")] = "health/1"
    """Name and version of this message."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    ts: UtcText
    """When this was written, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    valid_for_s: Annotated[int, Field(gt=0)]
    """Seconds after `ts` for which this may be believed; a newer one comes before."""
    status: Literal["ok", "degraded", "failing"]
    """`degraded`: something needs attention, strips are judged; `failing`: strips are not judged."""
    alarm_count: Count
    """Number of alarms."""
    alarms: str
    """Codes of what needs attention, separated by commas; "" when all is well."""
    uptime_s: Count
    """Seconds since the start."""
    strips_pending: Count
    """Strips that wait to be judged."""
    strips_oldest_s: Duration
    """Age of the oldest of them in seconds; 0.0 when none waits."""
    strips_vanished: Count
    """Files that were gone before they were complete, since the start."""
    outbox_depth: Count
    """Messages that the broker has not acknowledged."""
    outbox_oldest_s: Duration
    """Age of the oldest of them in seconds; 0.0 when there is none."""
    outbox_parked: Count
    """Messages that the broker can never take; `strip-agent audit` names them."""
    outbox_dropped: Count
    """Messages that were dropped because the outbox was full; `strip-agent audit` names them."""
    seen: Count
    """Strips this ledger has ever accounted for: pending, acknowledged, skipped and dropped."""
    acknowledged: Count
    """Strips whose result the broker has acknowledged."""
    skipped: Count
    """Strips that the backlog rule left out."""
    broker_connected: bool
    """The agent is connected to the broker."""
    broker_protocol: Literal["", "5", "3.1.1"]
    """The MQTT version in use; "" while not connected."""
    broker_error: str
    """The last thing that went wrong with the broker; "" when nothing did."""
    delivery: Literal["verified", "unverified", "refused", "down"]
    """`unverified`: MQTT 3.1.1, where a denied message looks accepted, and none came back; `refused`: by the broker."""
    nobody_listening: bool
    """The broker says that no one subscribes to the results (MQTT 5 only)."""
    cameras_total: Count
    """Configured cameras."""
    cameras_reachable: Count
    """Cameras whose folder can be read."""
    cameras: str
    """Each camera and its state, as `top=ok side=unreachable`."""
    slots_total: Count
    """Model slots in use."""
    slots_ready: Count
    """Slots with a model that is scoring."""
    worker_restarts: Count
    """Workers that had to be replaced, since the start."""
    heatmaps_saved: bool
    """False: no heatmaps are written for lack of space; scoring goes on."""
    heatmap_free_bytes: Count
    """Free space where heatmaps go."""
    state_free_bytes: Count
    """Free space where the ledger is."""


MESSAGES: tuple[type[Message], ...] = (StripResult, ModelEvent, ModelState, AgentState, Health)

# One letter, then letters, digits and underscores: what Ignition, FUXA and InfluxDB all take as a name.
_KEY = re.compile(r"^[a-z][a-z0-9_]*$")
_SCHEMA_FIRST = re.compile(rb'^\{"schema":"([a-z-]+/[0-9]+)"')


def encode(message: Message) -> bytes:
    """Compact JSON in UTF-8. Raises ValueError when a number is not finite (only `model_construct` can cause that)."""
    values = message.model_dump(by_alias=True)
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def schema_name(payload: bytes) -> str:
    """Name of the schema that an encoded message carries in front; "" for anything else."""
    found = _SCHEMA_FIRST.match(payload)
    return found[1].decode() if found else ""


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each message, by schema name, in the order of `MESSAGES`."""
    found = {}
    for model in MESSAGES:
        name = model.model_fields["schema_"].default
        schema = model.model_json_schema(by_alias=True, mode="serialization", schema_generator=_PlainSchema)
        # New keys keep the version: a subscriber that checks against this schema must let them pass.
        schema.pop("additionalProperties")
        schema = {"$schema": _PlainSchema.schema_dialect, "$id": f"urn:strip-agent:{name}", **schema, "title": name}
        bad = [key for key in schema["properties"] if not _KEY.match(key)]
        if bad:
            raise ValueError(f"{name}: no SCADA-safe keys: {bad}")
        found[name] = schema
    return found


class _PlainSchema(GenerateJsonSchema):
    """Without the titles that only repeat each key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def utc_text(unix_ms: int) -> str:
    """Write Unix milliseconds as `2026-11-22T23:48:21.444Z`. Raises OverflowError outside the years 1 to 9999."""
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
