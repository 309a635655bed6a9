"""An edge node stepped by hand, with a real ledger behind it whose results a test commits."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import messages
from agent.clock import now_ms
from agent.config import Config
from agent.ledger import Ledger, NewResult
from agent.ledger.strips import LIVE
from agent.records import FileIdentity, SettledFile
from agent.sparkplug.node import EdgeNode
from agent.ways import NAMES, camera_facts
from tests.helpers.sparkplug import GROUP, NODE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

STALL_SECONDS = 3.0
PATIENT_SECONDS = 600.0  # a busy machine is not taken for a dead broker


def make_config(port: int, cameras: tuple[str, ...] = ("top",), **mqtt: Any) -> Config:
    """Make the configuration of an edge node at the broker of this port."""
    sparkplug = {"group": GROUP, **mqtt.pop("sparkplug", {})}
    folders = [{"name": name, "folder": f"/srv/cameras/{name}"} for name in cameras]
    values = {"host": "127.0.0.1", "port": port, "payload": "sparkplug", "sparkplug": sparkplug, **mqtt}
    return Config.model_validate({"agent": {"name": NODE}, "cameras": folders, "mqtt": values})


class Bench:
    """An edge node and the ledger that feeds it; `restart` puts a new node in the place of the old one."""

    def __init__(
        self,
        ledger: Ledger,
        config: Config,
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
        stall_seconds: float = PATIENT_SECONDS,
    ) -> None:
        """`file` remembers bdSeq, `clock` is monotonic seconds; what is not confirmed so long ends the connection."""
        self.ledger = ledger
        self.config = config
        self._file = file
        self._clock = clock
        self._wall_ms = wall_ms
        self._stall_seconds = stall_seconds
        self.outbox = ledger.outbox.seen_by("sparkplug", NAMES[config.mqtt.payload])
        self._strips = 0
        self.node = self._make()

    def _make(self) -> EdgeNode:
        return EdgeNode(
            self.config,
            self.outbox,
            facts=partial(camera_facts, self.config, self.ledger),
            clock=self._clock,
            wall_ms=self._wall_ms,
            jitter=lambda: 0.0,
            stall_seconds=self._stall_seconds,
            file=self._file,
        )

    def restart(self) -> None:
        """Put a new node in the place of the old one."""
        self.node = self._make()

    def commit(self, number: int = 1, camera: str = "top", verdict: str = "ok") -> list[int]:
        """Bring so many strips to a result, and tell the node; returns their `seq`."""
        files = []
        for _ in range(number):
            self._strips += 1
            files.append(SettledFile(camera, f"{self._strips}.tif", FileIdentity(10, self._strips, 1)))
        self.ledger.strips.begin(files)
        seqs = []
        for _ in range(number):
            strip = self.ledger.strips.next_waiting(camera, LIVE, ())
            assert strip is not None
            payloads: list[bytes] = []

            def payload(seq: int, ts_ms: int, file: str = strip.path, made: list[bytes] = payloads) -> bytes:
                made.append(result(self.ledger.database.stream, seq, ts_ms, camera, file, verdict))
                return made[0]

            topic = messages.strip_event_topic(camera)
            new = NewResult(
                verdict, "not_a_tiff" if verdict == "invalid" else "", 0.1, "m", 0, "d", topic, dispose=False
            )
            seq = self.ledger.strips.commit(strip, new, payload, 10**6)
            assert seq is not None
            seqs.append(seq)
            self.node.set_state(messages.last_strip_topic(camera), payloads[0])
        self.node.wake()
        return seqs

    def waiting(self) -> int:
        """Count what the broker is not known to have."""
        return self.ledger.report.depths().outbox_pending

    def step_until(self, condition: Callable[[], object], what: str) -> None:
        """Step by hand until `condition` holds."""
        step_until([lambda: self.node.step(0.02)], condition, what)

    def drain(self) -> None:
        """Step until the broker has everything."""
        self.step_until(lambda: self.waiting() == 0, "the outbox is empty")

    def set_health(self, **values: Any) -> None:
        """Give the node a health; `cameras` as in the message."""
        self.node.set_state(messages.STATE_HEALTH, health(self.config, **values))


def step_until(
    steps: Sequence[Callable[[], object]], condition: Callable[[], object], what: str, seconds: float = 150.0
) -> None:
    """Do these by hand, over and over, until `condition` holds; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        for step in steps:
            step()


def result(stream: str, seq: int, ts_ms: int, camera: str, file: str, verdict: str) -> bytes:
    """Make the message of a result."""
    judged = verdict != "invalid"
    return messages.encode(
        messages.StripResult.model_validate(
            {
                "schema": "strip-result/1", "msg_id": f"{stream}-{seq}", "stream": stream, "seq": seq, "revision": 1,
                "ts": messages.utc_text(ts_ms), "ts_ms": ts_ms, "agent": NODE, "camera": camera,
                "strip_id": f"{seq:016x}", "part_id": "PCB 4711 ß", "file": file, "captured_ts_ms": ts_ms - 1000,
                "score": 0.75 if judged else -1.0, "threshold": 0.5, "verdict": verdict,
                "verdict_code": messages.VERDICT_CODES[verdict], "reason": "" if judged else "not_a_tiff",
                "quality": 192 if judged else 0, "anomaly_area_px": 120 if judged else 0,
                "defect_count": 2 if judged else 0, "peak_row": 370 if judged else -1,
                "peak_col": 0 if judged else -1, "rescaled": False, "replayed": False,
                "model_id": "unet", "model_version": 1795570711, "model_sha256": "", "inference_ms": 509.0,
                "total_ms": 700.0, "heatmap_path": "", "heatmap_sha256": "", "preview_path": "", "preview_url": "",
                "heatmap_state": "by_rule",
            }
        )
    )  # fmt: skip


def health(config: Config, **values: Any) -> bytes:
    """Make the message of a health."""
    empty: dict[Any, Any] = {int: 0, float: 0.0, bool: True}
    fields = messages.Health.model_fields.items()
    found: dict[str, Any] = {name: empty.get(field.annotation, "") for name, field in fields}
    now = now_ms()
    cameras = " ".join(f"{camera.name}=events" for camera in config.cameras)
    found |= {"schema_": "health/1", "agent": NODE, "ts": messages.utc_text(now), "ts_ms": now, "status": "ok"}
    found |= {"valid_for_s": 150, "cameras": cameras, "broker_protocol": "5", "delivery": "verified", **values}
    return json.dumps(found).encode()


__all__ = ["Bench", "health", "make_config", "result", "step_until"]
