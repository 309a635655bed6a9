"""What is known of the box: the newest of each state that the JSON way would retain, as metrics."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agent import messages
from agent.sparkplug.metrics import (
    agent_metrics,
    camera_metrics,
    device_controls,
    event_metric,
    health_metrics,
    model_metrics,
    node_controls,
    strip_metrics,
)
from agent.watching.status import AWAY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from agent.sparkplug.payload import Metric

_REMOVED = "removed"  # not in the configuration any more; its results may still wait


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """What the ledger knows of a camera: acknowledged strips by verdict, and what operators have set."""

    ok: int = 0
    anomalous: int = 0
    invalid: int = 0
    operators_threshold: float | None = None  # over the configuration's
    paused: bool = False


class Known:
    """`set` may be called from any thread, all else from one."""

    def __init__(self, version: str, started_ms: int, slots: Sequence[str], may_write: Collection[str]) -> None:
        """`may_write` names the metrics that hosts may write."""
        self._version = version
        self._started_ms = started_ms
        self._slots = slots
        self._lock = threading.Lock()
        self._payloads: dict[str, bytes] = {}  # by topic, as docs/messages.md has them
        self._unread: set[str] = set()
        self._states: dict[str, dict[str, Any]] = {}  # the same, decoded
        self._may_write = may_write
        self.facts: Mapping[str, CameraFacts] = {}

    def set(self, topic: str, payload: bytes) -> bool:
        """Take a new state; returns whether it is another one."""
        with self._lock:
            if not payload or self._payloads.get(topic) == payload:  # what may be cleared becomes no metric
                return False
            self._payloads[topic] = payload
            self._unread.add(topic)
            return True

    def look(self) -> bool:
        """Take in what was set; returns whether anything was."""
        with self._lock:
            news = {topic: payload for topic, payload in self._payloads.items() if topic in self._unread}
            self._unread = set()
        self._states |= {topic: json.loads(payload) for topic, payload in news.items()}
        return bool(news)

    def node(self, now_ms: int) -> tuple[Metric, ...]:
        """Make all metrics of the node, as they are now."""
        found = [*agent_metrics(self._version, messages.utc_text(self._started_ms), now_ms)]
        found += health_metrics(self._states.get(messages.STATE_HEALTH), now_ms)
        for slot in self._slots:
            found += model_metrics(slot, self._states.get(messages.model_state_topic(slot)), now_ms)
        return tuple(found)

    def node_birth(self, now_ms: int) -> tuple[Metric, ...]:
        """Make what the node's birth lists: also what only events bring."""
        return (*self.node(now_ms), event_metric(None, now_ms), *node_controls(self._may_write, now_ms))

    def camera(self, name: str, now_ms: int) -> tuple[Metric, ...]:
        """Make the metrics of a camera itself, as they are now."""
        facts = asdict(self.facts.get(name, CameraFacts()))
        seen = {"state": self._camera_state(name), "reachable": self.is_reachable(name)}
        return camera_metrics(facts | seen, now_ms)

    def camera_birth(self, name: str, now_ms: int) -> tuple[Metric, ...]:
        """Make what a device's birth lists: the camera, and its newest result."""
        newest = self._states.get(messages.last_strip_topic(name))
        controls = device_controls(self._may_write, now_ms)
        return (*strip_metrics(newest, now_ms), *self.camera(name, now_ms), *controls)

    def is_reachable(self, camera: str) -> bool:
        """Say whether the camera's folder is there, as far as is known."""
        return self._camera_state(camera) not in (*AWAY, _REMOVED)

    def _camera_state(self, name: str) -> str:
        health = self._states.get(messages.STATE_HEALTH)
        pairs = (pair.split("=") for pair in ("" if health is None else health["cameras"]).split())
        return next((state for camera, state in pairs if camera == name), "starting" if health is None else _REMOVED)
