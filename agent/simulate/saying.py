"""The messages of a simulated box, made by the same code as a real one's."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from agent import messages
from agent.contract.threshold import Threshold
from agent.errors import Reason
from agent.messages import utc_text
from agent.records import FileIdentity, HeatmapFiles, Judgement, Strip, make_strip_id
from agent.strips.message import strip_message
from agent.wire import Loaded

if TYPE_CHECKING:
    from agent.config import Config
    from agent.publisher import PublisherStatus
    from agent.simulate.story import Judged

SLOT = "default"
THRESHOLD = 0.5
STRIP_BYTES = 976 * 176 * 4 * 4  # float32, four channels
VALID_FOR_SECONDS = 150
Event = Literal["activated", "rejected", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that there is not."""

    version: int

    @property
    def model_id(self) -> str:
        """Its name."""
        return f"simulated-{self.version}"

    @property
    def sha256(self) -> str:
        """What its digest would be."""
        return hashlib.sha256(self.model_id.encode()).hexdigest()

    @property
    def loaded(self) -> Loaded:
        """What a worker would say of it."""
        return Loaded(
            labelled=True, model_id=self.model_id, version=self.version, height=976, width=176, golden="passed",
            golden_difference=0.0, threshold=THRESHOLD, load_ms=310.0, run_ms=42.0, cpu_ms=80.0,
        )  # fmt: skip


@dataclass(slots=True)
class Box:
    """What the simulated box knows of itself."""

    config: Config
    stream: str = field(default_factory=lambda: secrets.token_hex(4))
    seq: int = 0
    events: int = 0  # of alarms and models
    acknowledged: int = 0
    model: Model = field(default_factory=lambda: Model(7))
    previous: Model = field(default_factory=lambda: Model(6))
    refused: messages.ModelEvent | None = None
    active_since_ms: int = 0
    last: messages.StripResult | None = None  # the newest one
    alarms: dict[str, int] = field(default_factory=dict)  # name -> since when, Unix milliseconds


def strip_result(box: Box, judged: Judged, now_ms: int) -> messages.StripResult:
    """Make the result of the next strip."""
    box.seq += 1
    camera = next(camera for camera in box.config.cameras if camera.name == judged.camera)
    path = f"PN0815-{box.seq:06d}.tif"
    captured_ms = now_ms - 800
    identity = FileIdentity(STRIP_BYTES, captured_ms * 1_000_000, captured_ms * 1_000_000)
    strip_id = make_strip_id(camera.name, path, identity, 0)
    strip = Strip(box.seq, strip_id, camera.name, path, identity, attempts=1, revision=1, seen_ms=now_ms - 300)
    judgement = None
    if not judged.reason:
        judgement = Judgement(
            score=judged.score, threshold=THRESHOLD, anomalous=judged.score >= THRESHOLD,
            anomaly_area_px=judged.area_px, defect_count=judged.defects,
            peak_row=judged.peak[0], peak_col=judged.peak[1], rescaled=False, inference_ms=judged.inference_ms,
            digest="", heatmaps=HeatmapFiles(state="by_rule"),
        )  # fmt: skip
    box.last = strip_message(
        box.config, camera, strip, Threshold(THRESHOLD, "model"), judgement, judged.reason, box.model.loaded,
        stream=box.stream, seq=box.seq, ts_ms=now_ms, model_sha256=box.model.sha256,
    )  # fmt: skip
    return box.last


def alarm_event(box: Box, name: str, now_ms: int, *, raised: bool) -> messages.AlarmEvent:
    """Raise or clear an alarm, and make the event."""
    since_ms = box.alarms.setdefault(name, now_ms) if raised else box.alarms.pop(name, now_ms)
    alarm = messages.explain(name, [camera.name for camera in box.config.cameras], [SLOT])
    box.events += 1
    return messages.AlarmEvent(
        msg_id=f"{box.stream}-a{box.events}",
        agent=box.config.agent.name,
        code=alarm.code,
        source=alarm.source,
        state="raised" if raised else "cleared",
        priority=alarm.priority,
        text=alarm.text,
        since_ts=utc_text(since_ms),
        since_ms=since_ms,
        ts=utc_text(now_ms),
        ts_ms=now_ms,
    )


def model_event(box: Box, event: Event, now_ms: int) -> messages.ModelEvent:
    """Let something happen to the models, and make the event."""
    about, reason, detail, back = Model(box.model.version + 1), "", "", ""
    if event == "activated":
        box.previous, box.model, box.active_since_ms = box.model, about, now_ms
        detail = "its golden strip was reproduced within 0.000012; one strip takes 42 ms"
    elif event == "rolled_back":
        about, reason = box.model, Reason.PROBATION_LATENCY
        detail, back = "a strip takes 260 ms, 6.2 times as long as in the trial", "the previous one scores again"
        box.model, box.active_since_ms = box.previous, now_ms
    else:
        reason = Reason.GOLDEN_MISMATCH
        detail = "the heatmap of its golden strip differs by 0.31, allowed are 0.02"
    box.events += 1
    told = messages.ModelEvent(
        msg_id=f"{box.stream}-m{box.events}",
        ts=utc_text(now_ms),
        ts_ms=now_ms,
        agent=box.config.agent.name,
        slot=SLOT,
        event=event,
        model_id=about.model_id,
        version=about.version,
        sha256=about.sha256,
        file=f"{about.model_id}.onnx",
        reason=reason,
        detail=detail,
        active_model_id=box.model.model_id,
        active_sha256=box.model.sha256,
        previous_sha256=box.previous.sha256,
        return_detail=back,
    )
    box.refused = told if reason else box.refused
    return told


def review_event(box: Box, finding: Literal["defect", "no_defect"], now_ms: int) -> messages.ReviewEvent:
    """Let somebody say something about the newest strip. Raises LookupError where there is none."""
    if (strip := box.last) is None:
        raise LookupError("no strip has been judged yet")
    box.events += 1
    return messages.ReviewEvent(
        msg_id=f"{box.stream}-r{box.events}",
        ts=utc_text(now_ms),
        ts_ms=now_ms,
        agent=box.config.agent.name,
        camera=strip.camera,
        strip_id=strip.strip_id,
        part_id=strip.part_id,
        file=strip.file,
        finding=finding,
        by="a simulated person",
        remark="",
        replaces=False,
        result_msg_id=strip.msg_id,
        revision=strip.revision,
        verdict=strip.verdict,
        score=strip.score,
        model_id=strip.model_id,
        model_version=strip.model_version,
        model_sha256=strip.model_sha256,
    )


def model_state(box: Box, now_ms: int) -> messages.ModelState:
    """Say what is active."""
    refused = box.refused
    return messages.ModelState(
        slot=SLOT,
        active_model_id=box.model.model_id,
        active_version=box.model.version,
        active_sha256=box.model.sha256,
        active_since=utc_text(box.active_since_ms),
        golden="passed",
        on_probation=False,
        previous_sha256=box.previous.sha256,
        last_refused_sha256=refused.sha256 if refused else "",
        last_refused_file=refused.file if refused else "",
        last_refused_reason=refused.reason if refused else "",
        last_refused_detail=refused.detail if refused else "",
        last_refused_ts=refused.ts if refused else "",
        ts=utc_text(now_ms),
        ts_ms=now_ms,
        agent=box.config.agent.name,
    )


def health(
    box: Box, broker: PublisherStatus, *, outbox: tuple[int, int], waiting: int, started_ms: int, now_ms: int
) -> messages.Health:
    """Say how the box is. `outbox` counts what waits for the broker and what no broker takes, `waiting` strips."""
    cameras = [camera.name for camera in box.config.cameras]
    away = [name for name in cameras if f"camera_{name}_missing" in box.alarms]
    alarms = [*box.alarms, *broker.alarms]
    told = [messages.explain(alarm, cameras, [SLOT]) for alarm in alarms]
    return messages.Health(
        agent=box.config.agent.name,
        ts=utc_text(now_ms),
        ts_ms=now_ms,
        valid_for_s=VALID_FOR_SECONDS,
        status="degraded" if any(alarm.priority != "low" for alarm in told) else "ok",
        alarm_count=len(alarms),
        alarms=",".join(alarms),
        uptime_s=max(0, now_ms - started_ms) // 1000,
        strips_pending=waiting,
        strips_oldest_s=0.0,
        strips_seen_again=0,
        strips_vanished=0,
        files_ignored=0,
        outbox_depth=outbox[0],
        outbox_oldest_s=0.0,
        outbox_parked=outbox[1],
        outbox_dropped=0,
        seen=box.seq + waiting,
        acknowledged=box.acknowledged,
        skipped=0,
        broker_connected=broker.connected,
        broker_protocol=broker.protocol,
        broker_error=broker.last_error,
        delivery=broker.delivery,
        nobody_listening=broker.nobody_listening,
        unheard=broker.unheard,
        cameras_total=len(cameras),
        cameras_reachable=len(cameras) - len(away),
        cameras=" ".join(f"{name}={'missing' if name in away else 'events'}" for name in cameras),
        slots_total=1,
        slots_ready=1,
        worker_restarts=0,
        heatmaps_saved="heatmaps_no_space" not in box.alarms,
        heatmap_free_bytes=1 << 30 if "heatmaps_no_space" in box.alarms else 80 << 30,
        state_free_bytes=40 << 30,
    )
