"""Every metric of the edge node and of its devices: name, datatype, and which key of our messages it is made from.

The table becomes docs/sparkplug.md; what the keys mean is told there in the words of docs/messages.md. Names keep apart
without case and hold no characters but letters and `/`. Whole numbers are Int64 rather than UInt64, which not every
host can hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent import messages
from agent.sparkplug.payload import Datatype, Metric, Property

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

REBIRTH = "Node Control/Rebirth"
RESCAN = "Device Control/Rescan"
THRESHOLD = "Settings/Threshold"
PAUSED = "Settings/Paused"
REQUEST = "Command/Request"
RESPONSE = "Command/Response"
BD_SEQ = "bdSeq"
LAST_EVENT = "Event/Last"
QUALITY = "Quality"

_STATUS_CODES = {"ok": 0, "degraded": 1, "failing": 2}


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric; `key` is that of the message it comes from."""

    name: str
    datatype: Datatype
    key: str
    unit: str = ""
    top: float | None = None  # the highest value, where there is one
    judged: bool = False  # null and of bad quality where the strip is invalid


_INT32, _INT64, _DOUBLE, _STRING = Datatype.INT32, Datatype.INT64, Datatype.DOUBLE, Datatype.STRING
_BOOLEAN, _DATETIME = Datatype.BOOLEAN, Datatype.DATETIME

AGENT = (
    Definition("Agent/Version", _STRING, "version"),
    Definition("Agent/Started", _DATETIME, "started_ts"),
)
HEALTH = (
    Definition("Health/Status", _STRING, "status"),
    Definition("Health/StatusCode", _INT32, "status_code"),
    Definition("Health/Alarms", _STRING, "alarms"),
    Definition("Health/AlarmCount", _INT32, "alarm_count"),
    Definition("Health/StripsPending", _INT64, "strips_pending"),
    Definition("Health/StripsOldest", _DOUBLE, "strips_oldest_s", "s"),
    Definition("Health/OutboxDepth", _INT64, "outbox_depth"),
    Definition("Health/OutboxOldest", _DOUBLE, "outbox_oldest_s", "s"),
    Definition("Health/OutboxParked", _INT64, "outbox_parked"),
    Definition("Health/OutboxDropped", _INT64, "outbox_dropped"),
    Definition("Health/Seen", _INT64, "seen"),
    Definition("Health/Acknowledged", _INT64, "acknowledged"),
    Definition("Health/Skipped", _INT64, "skipped"),
    Definition("Health/WorkerRestarts", _INT64, "worker_restarts"),
    Definition("Health/HeatmapsSaved", _BOOLEAN, "heatmaps_saved"),
    Definition("Health/HeatmapFree", _INT64, "heatmap_free_bytes", "B"),
    Definition("Health/StateFree", _INT64, "state_free_bytes", "B"),
)
MODEL = (  # below Model/<slot>/
    Definition("Id", _STRING, "active_model_id"),
    Definition("Version", _INT64, "active_version"),
    Definition("Sha256", _STRING, "active_sha256"),
    Definition("Since", _DATETIME, "active_since"),
    Definition("OnProbation", _BOOLEAN, "on_probation"),
    Definition("LastRefusedReason", _STRING, "last_refused_reason"),
    Definition("LastRefusedTime", _DATETIME, "last_refused_ts"),
)
STRIP = (
    Definition("Strip/Seq", _INT64, "seq"),
    Definition("Strip/Stream", _STRING, "stream"),
    Definition("Strip/Id", _STRING, "strip_id"),
    Definition("Strip/Revision", _INT32, "revision"),
    Definition("Strip/PartId", _STRING, "part_id"),
    Definition("Strip/File", _STRING, "file"),
    Definition("Strip/Captured", _DATETIME, "captured_ts_ms"),
    Definition("Strip/Score", _DOUBLE, "score", judged=True),
    Definition("Strip/Threshold", _DOUBLE, "threshold"),
    Definition("Strip/ThresholdSource", _STRING, "threshold_source"),
    Definition("Strip/Verdict", _STRING, "verdict"),
    Definition("Strip/VerdictCode", _INT32, "verdict_code", top=2),
    Definition("Strip/Reason", _STRING, "reason"),
    Definition("Strip/AnomalyArea", _INT32, "anomaly_area_px", "px", judged=True),
    Definition("Strip/DefectCount", _INT32, "defect_count", judged=True),
    Definition("Strip/PeakRow", _INT32, "peak_row", "px", judged=True),
    Definition("Strip/PeakCol", _INT32, "peak_col", "px", judged=True),
    Definition("Strip/Rescaled", _BOOLEAN, "rescaled"),
    Definition("Strip/InferenceTime", _DOUBLE, "inference_ms", "ms", judged=True),
    Definition("Strip/TotalTime", _DOUBLE, "total_ms", "ms"),
    Definition("Strip/ModelId", _STRING, "model_id"),
    Definition("Strip/ModelVersion", _INT64, "model_version"),
    Definition("Strip/ModelSha256", _STRING, "model_sha256"),
    Definition("Strip/HeatmapPath", _STRING, "heatmap_path"),
    Definition("Strip/HeatmapSha256", _STRING, "heatmap_sha256"),
    Definition("Strip/PreviewPath", _STRING, "preview_path"),
    Definition("Strip/PreviewSha256", _STRING, "preview_sha256"),
    Definition("Strip/PreviewUrl", _STRING, "preview_url"),
    Definition("Strip/HeatmapState", _STRING, "heatmap_state"),
)
CAMERA = (
    Definition("Camera/State", _STRING, "state"),
    Definition("Camera/Reachable", _BOOLEAN, "reachable"),
    Definition("Camera/Ok", _INT64, "ok"),
    Definition("Camera/Anomalous", _INT64, "anomalous"),
    Definition("Camera/Invalid", _INT64, "invalid"),
    Definition(THRESHOLD, _DOUBLE, "operators_threshold"),
    Definition(PAUSED, _BOOLEAN, "paused"),
)
COMMANDS_BEHIND = {
    REQUEST: (),
    THRESHOLD: ("set_threshold",),
    PAUSED: ("pause", "resume"),
    RESCAN: ("rescan",),
}
"""Which commands of `mqtt.commands` writing a metric means; it may be written where all of them are listed."""


def agent_metrics(version: str, started_ts: str, ts_ms: int) -> tuple[Metric, ...]:
    """Make what never changes while the agent runs; births carry it."""
    return _metrics(AGENT, {"version": version, "started_ts": started_ts}, ts_ms)


def health_metrics(health: Mapping[str, Any] | None, now_ms: int) -> tuple[Metric, ...]:
    """Make the node's metrics of a decoded `state/health`; without one they are null."""
    if health is None:
        return _metrics(HEALTH, {}, now_ms)
    return _metrics(HEALTH, {**health, "status_code": _STATUS_CODES[health["status"]]}, health["ts_ms"])


def model_metrics(slot: str, state: Mapping[str, Any] | None, now_ms: int) -> tuple[Metric, ...]:
    """Make the node's metrics of a slot from a decoded `state/model/<slot>`; without one they are null."""
    ts_ms = now_ms if state is None else state["ts_ms"]
    return _metrics(MODEL, state or {}, ts_ms, prefix=f"Model/{slot}/")


def strip_metrics(result: Mapping[str, Any] | None, now_ms: int, *, historical: bool = False) -> tuple[Metric, ...]:
    """Make the device's metrics of a decoded strip result, with the time of its commit; without one they are null.

    Raises LookupError, TypeError or ValueError where it is no strip result.
    """
    if result is None:
        return _metrics(STRIP, {}, now_ms)
    return _metrics(STRIP, result, int(result["ts_ms"]), quality=int(result["quality"]), historical=historical)


def camera_metrics(camera: Mapping[str, Any], ts_ms: int) -> tuple[Metric, ...]:
    """Make the device's metrics of its camera, from values by the keys of `CAMERA`."""
    return _metrics(CAMERA, camera, ts_ms)


def event_metric(text: str | None, ts_ms: int, *, historical: bool = False) -> Metric:
    """Make the metric that carries what is no strip: the JSON of docs/messages.md as it goes to `event/`."""
    return Metric(LAST_EVENT, _STRING, text, ts_ms, historical=historical)


def writable(commands: Collection[str]) -> frozenset[str]:
    """Return the metrics that hosts may write where these commands are allowed."""
    if not commands:
        return frozenset({REBIRTH})
    may = {name for name, behind in COMMANDS_BEHIND.items() if set(behind) <= set(commands)}
    return frozenset({REBIRTH, *may})


def node_controls(may_write: Collection[str], now_ms: int) -> tuple[Metric, ...]:
    """Make the node's metrics for commands, where there are any."""
    if REQUEST not in may_write:
        return ()
    return tuple(Metric(name, _STRING, "", now_ms) for name in (REQUEST, RESPONSE))


def device_controls(may_write: Collection[str], now_ms: int) -> tuple[Metric, ...]:
    """Make a device's metrics that are only there to be written."""
    return (Metric(RESCAN, _BOOLEAN, value=False, timestamp_ms=now_ms),) if RESCAN in may_write else ()


def response_metric(text: str, now_ms: int) -> Metric:
    """Make the answer to a command."""
    return Metric(RESPONSE, _STRING, text, now_ms)


def with_facts(metrics: Iterable[Metric], may_write: Collection[str]) -> tuple[Metric, ...]:
    """Add what only births carry: units, limits, and what hosts must not write."""
    return tuple(_with_facts(metric, may_write) for metric in metrics)


def _with_facts(metric: Metric, may_write: Collection[str]) -> Metric:
    definition = _BY_NAME.get(metric.name or "")
    facts = [] if metric.name in may_write else [Property("readOnly", _BOOLEAN, value=True)]
    if definition is not None and definition.unit:
        facts.append(Property("engUnit", _STRING, definition.unit))
    if definition is not None and definition.top is not None:
        facts += [Property("engLow", _DOUBLE, 0.0), Property("engHigh", _DOUBLE, float(definition.top))]
    return Metric(
        metric.name, metric.datatype, metric.value, metric.timestamp_ms, properties=(*metric.properties, *facts)
    )


def _metrics(
    definitions: Iterable[Definition],
    values: Mapping[str, Any],
    ts_ms: int,
    *,
    prefix: str = "",
    quality: int | None = None,
    historical: bool = False,
) -> tuple[Metric, ...]:
    """Make all of them; without values all are null."""
    return tuple(
        Metric(
            name=prefix + definition.name,
            datatype=definition.datatype,
            value=_value(definition, values, quality),
            timestamp_ms=max(0, ts_ms),
            historical=historical,
            properties=_quality(definition, quality),
        )
        for definition in definitions
    )


def _quality(definition: Definition, quality: int | None) -> tuple[Property, ...]:
    return (Property(QUALITY, _INT32, quality),) if definition.judged and quality is not None else ()


def _value(definition: Definition, values: Mapping[str, Any], quality: int | None) -> Any:
    if not values or (definition.judged and quality != messages.GOOD_QUALITY):
        return None
    value = values.get(definition.key)  # an older version may have written it, without this key
    if value is None:
        return None
    expected = _TYPES[definition.datatype]
    if definition.datatype is _DATETIME:
        return _milliseconds(value)
    if not isinstance(value, expected) or isinstance(value, bool) != (expected is bool):
        raise TypeError(f"{definition.key}: {value!r} is no {definition.datatype.name}")
    return value


def _milliseconds(value: Any) -> int | None:
    """Take Unix milliseconds, or a UTC text of our messages, of which "" says that there is none."""
    if isinstance(value, str):
        return round(datetime.fromisoformat(value).timestamp() * 1000) if value else None
    return max(0, int(value))


_TYPES: dict[Datatype, type] = {_INT32: int, _INT64: int, _DOUBLE: float, _STRING: str, _BOOLEAN: bool, _DATETIME: int}
_BY_NAME = {definition.name: definition for definition in (*AGENT, *HEALTH, *STRIP, *CAMERA)}
