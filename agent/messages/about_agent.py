"""Whether the agent is there, and how it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.messages.base import Count, Duration, Message, UtcText


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
    """Of `connected` and `connection_lost`: when the connection began, not when it was lost; else when written. UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds; with `connection_lost` one more than in `connected`, so that it sorts behind it."""
    started_ts: UtcText
    """When the agent was started, UTC."""
    version: str
    """Version of the agent."""
    connection: Count
    """Counts the connections, over restarts. The higher one is the later one; of the same one, offline is the later."""


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
    """`degraded`: something needs attention, strips are judged; `failing`: strips are not judged, or not recorded."""
    alarm_count: Count
    """Number of alarms."""
    alarms: str
    """Codes of what needs attention, separated by commas; "" when all is well."""
    uptime_s: Count
    """Seconds since the start."""
    strips_pending: Count
    """Strips that wait to be judged, also those that the ledger cannot take in now."""
    strips_oldest_s: Duration
    """Age of the oldest of them in seconds; 0.0 when none waits."""
    strips_seen_again: Count
    """How often a file was seen with other times but the same content, in this ledger: the same strips, told once."""
    strips_vanished: Count
    """Files that were gone before they were complete, since the start."""
    files_ignored: Count
    """Names in the cameras' folders that `cameras[].ignore` passes over, as the last scans found them."""
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
    """The broker says that no one subscribes to the results of some camera (MQTT 5 only)."""
    unheard: Count
    """Results that the broker took while no one subscribed to them, since the start (MQTT 5 only)."""
    cameras_total: Count
    """Configured cameras."""
    cameras_reachable: Count
    """Cameras whose folder can be read."""
    cameras: str
    """Each camera and its state, as `top=events side=unreachable`."""
    slots_total: Count
    """Model slots in use."""
    slots_ready: Count
    """Slots with a model that is scoring."""
    worker_restarts: Count
    """Workers that had to be replaced, since the start."""
    heatmaps_saved: bool
    """False: no heatmaps are written: no space, or their folder is away or hangs; scoring goes on."""
    heatmap_free_bytes: Count
    """Free space where heatmaps go; 0 while that is not known."""
    state_free_bytes: Count
    """Free space where the ledger is."""
    cameras_paused: Count = 0
    """Cameras whose strips wait because an operator has paused them."""
    thresholds_set: Count = 0
    """Cameras whose threshold an operator has set."""
    commands_answered: Count = 0
    """Commands over MQTT that were carried out or refused, since the start."""
    commands_ignored: Count = 0
    """Those that were neither carried out nor answered: retained, too large, expired, too many; `status` says why."""
    answers_lost: Count = 0
    """Answers that could not be given: the broker did not take them, or was away for too long."""
