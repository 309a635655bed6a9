"""How the agent is: one record, gathered from all parts, for `state/health`, the status command and systemd's line."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agent import messages, sdnotify
from agent.alarms import AlarmTeller
from agent.clock import now_ms
from agent.errors import Retry
from agent.files import free_bytes
from agent.messages import Health, utc_text
from agent.records import show_name
from agent.watching.status import AWAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agent.config import Config
    from agent.control.desk import DeskStatus
    from agent.errors import Reason
    from agent.heatmap_folder import FolderState
    from agent.ledger import Ledger
    from agent.supervision import Slot
    from agent.watching import WatchStatus
    from agent.ways import Ways

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
PUBLISH_SECONDS = 60.0
VALID_FOR_SECONDS = 150  # one is sent each minute: two may be lost before it is no longer to be believed
NEVER_SECONDS = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What is asked how it is."""

    config: Config
    ledger: Ledger
    publisher: Ways
    watchers: Mapping[str, WatchStatus]
    slots: Mapping[str, Slot]
    started_ms: int
    heatmaps: FolderState
    file_errors: Mapping[str, str]  # camera -> why its files cannot be moved or removed, "" where they can
    alarms: Sequence[str]  # of the service itself
    commands: DeskStatus
    drift: Mapping[str, str]  # alarms about how strips look, each with what was found


def take_health(parts: Parts) -> Health:
    """Ask all parts. Raises Retry where the ledger does not answer."""
    now = now_ms()
    depths = parts.ledger.report.depths()
    balances = parts.ledger.report.balances()
    broker = parts.publisher.status()
    trouble = parts.ledger.database.trouble
    heatmaps = parts.heatmaps
    room = heatmaps.free_bytes >= parts.config.heatmaps.min_free_gib * 2**30
    alarms = [*parts.alarms, *broker.alarms]
    alarms += [f"camera_{name}_{watch.state}" for name, watch in parts.watchers.items() if watch.state in AWAY]
    alarms += [
        f"camera_{name}_partly_unreadable" for name, watch in parts.watchers.items() if watch.unreadable_last_scan
    ]
    alarms += [f"camera_{name}_linked_folder" for name, watch in parts.watchers.items() if watch.linked_folders]
    alarms += parts.drift
    paused = parts.ledger.operators.paused
    alarms += [f"camera_{name}_paused" for name in parts.watchers if name in paused]
    alarms += [f"slot_{name}_no_model" for name, slot in parts.slots.items() if slot.current is None]
    alarms += [f"slot_{name}_held" for name, slot in parts.slots.items() if slot.held]
    alarms += [f"slot_{name}_provider_not_used" for name, slot in parts.slots.items() if _provider(slot)[1]]
    alarms += [f"camera_{name}_files_stay" for name in parts.ledger.strips.name_staying(1)]
    if parts.ledger.purge.clock_in_doubt:
        alarms.append("clock_jumped_ahead")
    if trouble is not None:
        alarms.insert(0, f"ledger_{trouble}")
    if heatmaps.state != "there":
        alarms.append(f"heatmaps_{heatmaps.state}")
    elif not room:
        alarms.append("heatmaps_no_space")
    if depths.outbox_parked:
        alarms.append("outbox_parked")
    if depths.outbox_dropped:
        alarms.append("outbox_dropped")
    alarms = list(dict.fromkeys(alarms))
    ready = sum(slot.current is not None and not slot.held for slot in parts.slots.values())
    return Health(
        agent=parts.config.agent.name,
        ts=utc_text(now),
        ts_ms=now,
        valid_for_s=VALID_FOR_SECONDS,
        status=_status(alarms, ready, parts, trouble),
        alarm_count=len(alarms),
        alarms=",".join(alarms),
        uptime_s=max(0, (now - parts.started_ms) // 1000),
        strips_pending=sum(b.waiting for b in balances) + sum(watch.given_back for watch in parts.watchers.values()),
        strips_oldest_s=_age_seconds(now, depths.oldest_waiting_ms),
        strips_seen_again=parts.ledger.strips.seen_again(),
        strips_vanished=sum(watch.vanished_before_settle for watch in parts.watchers.values()),
        files_ignored=sum(watch.ignored_last_scan for watch in parts.watchers.values()),
        outbox_depth=depths.outbox_pending,
        outbox_oldest_s=_age_seconds(now, depths.oldest_outbox_ms),
        outbox_parked=depths.outbox_parked,
        outbox_dropped=depths.outbox_dropped,
        seen=sum(balance.seen for balance in balances),
        acknowledged=sum(balance.ok + balance.anomalous + balance.invalid for balance in balances),
        skipped=sum(balance.skipped for balance in balances),
        broker_connected=broker.connected,
        broker_protocol=broker.protocol,
        broker_error=broker.last_error,
        delivery=broker.delivery,
        nobody_listening=broker.nobody_listening,
        unheard=broker.unheard,
        cameras_total=len(parts.watchers),
        cameras_reachable=sum(watch.state not in AWAY for watch in parts.watchers.values()),
        cameras=" ".join(f"{name}={watch.state}" for name, watch in parts.watchers.items()),
        slots_total=len(parts.slots),
        slots_ready=ready,
        worker_restarts=sum(slot.losses for slot in parts.slots.values()),
        heatmaps_saved=heatmaps.state == "there" and room,
        heatmap_free_bytes=heatmaps.free_bytes,
        state_free_bytes=_free_bytes(parts.config.agent.state_folder),
        cameras_paused=sum(name in paused for name in parts.watchers),
        thresholds_set=sum(name in parts.ledger.operators.thresholds for name in parts.watchers),
        commands_answered=parts.commands.answered,
        commands_ignored=sum(parts.commands.ignored.values()),
        answers_lost=broker.answers_lost,
    )


def _provider(slot: Slot) -> tuple[str, str]:
    """Return what computes, and why it is not what was asked for; both "" without a worker."""
    loaded = slot.current.facts if slot.current is not None else None
    return (loaded.provider, loaded.provider_refused) if loaded is not None else ("", "")


def live_facts(parts: Parts, health: Health) -> dict[str, Any]:
    """Make the part of the status command's answer that only a running service knows."""
    return {
        "health": health.model_dump(by_alias=True),
        "workers": {
            name: {
                "pid": worker.pid if worker is not None else None,
                "model_sha256": worker.setup.model_sha256 if worker is not None else "",
                "held": slot.held,
                "provider": _provider(slot)[0],
                "provider_refused": _provider(slot)[1],
            }
            for name, slot in parts.slots.items()
            for worker in (slot.current,)
        },
        "heatmaps": {"state": parts.heatmaps.state, "detail": parts.heatmaps.detail},
        "files": dict(parts.file_errors),
        "commands_ignored": dict(parts.commands.ignored),
        "watching": {
            name: {
                "state": watch.state,
                "detail": watch.detail,
                "error": watch.error,
                "waiting": watch.waiting,
                "ignored": watch.ignored_last_scan,
                "linked_folders": [show_name(path) for path in watch.linked_folders],
            }
            for name, watch in parts.watchers.items()
        },
    }


def changed(before: Health | None, now: Health) -> bool:
    """Say whether subscribers should hear of it before the minute is over."""
    if before is None:
        return True
    keys = ("status", "alarms", "cameras", "slots_ready", "delivery", "broker_connected", "heatmaps_saved")
    return any(getattr(before, key) != getattr(now, key) for key in keys)


def _status(
    alarms: list[str], ready: int, parts: Parts, trouble: Reason | None
) -> Literal["ok", "degraded", "failing"]:
    if ready < len(parts.slots) or trouble is not None:
        return "failing"
    told = (messages.explain(alarm, parts.watchers, parts.slots) for alarm in alarms)
    return "degraded" if any(alarm.priority != "low" for alarm in told) else "ok"


def _age_seconds(now: int, since_ms: int) -> float:
    return max(0.0, (now - since_ms) / 1000) if since_ms else NEVER_SECONDS


def _free_bytes(folder: Path) -> int:
    try:
        return free_bytes(folder)
    except OSError:
        return 0


class Reporter:
    """Publishes the health when it changes, at the least each minute, and tells which alarms came and went."""

    def __init__(self, config: Config, ledger: Ledger, publisher: Ways) -> None:
        self._publisher = publisher
        self.alarms = AlarmTeller(config, ledger)
        self._published: Health | None = None
        self._look_at = self._publish_at = 0.0  # monotonic

    def step(self, parts: Callable[[], Parts], now: float, *, settled: bool) -> None:
        """Look, once a second. Alarms are told from when the service has `settled`: not while models load at a start.

        `now` is monotonic seconds. What the ledger cannot do now is only logged and done at the next look.
        """
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            asked = parts()
            taken = take_health(asked)
            if now >= self._publish_at or changed(self._published, taken):
                self._publish_at = now + PUBLISH_SECONDS
                self._published = taken
                self._publish(taken)
            starting = {f"camera/{name}" for name, watch in asked.watchers.items() if watch.state == "starting"}
            names = [*filter(None, taken.alarms.split(","))]
            if settled and self.alarms.follow(names, starting, asked.drift):
                self._publisher.wake()
        except Retry as error:
            log.error("health: %s", error)  # noqa: TRY400 - the stack tells nothing

    def _publish(self, taken: Health) -> None:
        self._publisher.set_state(messages.STATE_HEALTH, messages.encode(taken))
        sdnotify.status(
            f"{taken.status}{': ' + taken.alarms if taken.alarms else ''}; {taken.strips_pending} strips wait, "
            f"{taken.outbox_depth} messages wait, {taken.acknowledged} acknowledged"
        )
