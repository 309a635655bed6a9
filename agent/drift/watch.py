"""Keeps how the last strips of each camera looked, and says what has changed since the model was calibrated.

The reference is what the model's file states of its calibration strips; without that, the camera's own first strips
under the model. All of it is in the ledger: a restart changes nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.contract.measures import Reference, make_reference, off_scale, on_scale, parse_reference
from agent.contract.threshold import DEFAULT_THRESHOLD
from agent.drift.judging import (
    CAUSES,
    EASED,
    OWN_STRIPS,
    WINDOW,
    Cause,
    Finding,
    Moved,
    Sample,
    furthest,
    judge,
    middles,
    shown,
)
from agent.drift.wording import parts, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.records import Judgement, Strip
    from agent.supervision import Slot, WorkerHandle
    from agent.wire import Loaded

FEWEST_OF_A_DAY = 10


@dataclass(frozen=True, slots=True)
class _Told:
    """A finding as it was told when it came: the first of its days (UTC date), and the sentence."""

    finding: Finding
    began: str
    text: str


@dataclass(slots=True)
class _Camera:
    """What is known of a camera under one model."""

    name: str
    model_sha256: str
    stamped: Reference | None
    own: Reference | None
    good_below: float
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=OWN_STRIPS))
    not_compared: int = 0  # strips since the start
    fresh: bool = True  # strips have come since it was judged last
    findings: dict[Cause, _Told] = field(default_factory=dict)
    standing: set[Cause] = field(default_factory=set)

    @property
    def reference(self) -> Reference | None:
        """What its strips are compared with."""
        return self.stamped or self.own


class DriftWatch:
    """Follows all cameras; for any thread."""

    def __init__(self, config: Config, ledger: Ledger, slots: Mapping[str, Slot]) -> None:
        self.config = config  # a reload may set another one, at any time
        self._ledger = ledger
        self._slots = slots
        self._cameras: dict[str, _Camera] = {}
        self._lock = threading.Lock()

    def note(self, strip: Strip, judgement: Judgement, worker: WorkerHandle) -> None:
        """Take in how a strip looks that was committed. Never raises."""
        known = self._cameras.get(strip.camera)
        if known is None or known.model_sha256 != worker.setup.model_sha256 or strip.revision > 1:
            return  # `_follow` reads it from the ledger
        with self._lock:
            known.not_compared += judgement.measures is None
            there = {sample.strip_id for sample in known.samples}  # it may have been read from the ledger just now
            if judgement.measures is not None and strip.strip_id not in there:
                known.samples.append(Sample(strip.strip_id, judgement.measures))
                known.fresh = True

    def alarms(self) -> dict[str, str]:
        """Return the alarms by name, each with what was found. Raises Retry where the ledger cannot."""
        return {
            alarm_name(known.name, cause): told.text
            for known in self._follow()
            for cause, told in known.findings.items()
        }

    def facts(self) -> dict[str, Any]:
        """Return what is known of each camera, as plain JSON values."""
        return {known.name: _facts(known) for known in self._follow()}

    def _follow(self) -> list[_Camera]:
        """Bring all cameras up to now: new models, learned references, what follows from the last strips."""
        if not self.config.drift.enabled:
            return []
        with self._lock:
            for camera in self.config.cameras:
                worker = self._slots[camera.slot].current
                if worker is None or worker.facts is None:
                    continue
                known, sha256 = self._cameras.get(camera.name), worker.setup.model_sha256
                if known is None or known.model_sha256 != sha256:
                    known = self._cameras[camera.name] = self._read(camera.name, sha256, worker.facts)
                if known.fresh:
                    self._judge(known)
                    known.fresh = False
            return [self._cameras[camera.name] for camera in self.config.cameras if camera.name in self._cameras]

    def _read(self, camera: str, model_sha256: str, facts: Loaded) -> _Camera:
        drift = self._ledger.drift
        stamped = parse_reference(facts.reference) if facts.reference else None
        good_below = DEFAULT_THRESHOLD if facts.threshold is None else facts.threshold
        known = _Camera(
            name=camera,
            model_sha256=model_sha256,
            stamped=stamped,
            own=drift.own_reference(camera, model_sha256),
            good_below=good_below if stamped is None else stamped.good_below,
        )
        known.samples.extend(Sample(*row) for row in drift.last(camera, model_sha256, OWN_STRIPS))
        raised = {row.name for row in self._ledger.alarms.raised()}
        known.standing = {cause for cause in CAUSES if alarm_name(camera, cause) in raised}
        return known

    def _judge(self, known: _Camera) -> None:
        if known.own is None and len(known.samples) == OWN_STRIPS:
            stretched = known.stamped is not None and known.stamped.stretched
            looks = [sample.measures for sample in known.samples]
            own = make_reference(looks, stretched=stretched, good_below=known.good_below)
            if own is not None:
                self._ledger.drift.keep_own_reference(known.name, known.model_sha256, own)
                known.own = own
        if known.reference is None:
            return
        found = judge(known.reference, known.own, list(known.samples), known.standing)
        before, known.findings = known.findings, {}
        for finding in found:
            known.findings[finding.cause] = before.get(finding.cause) or self._tell(known, finding)
        known.standing = set(known.findings)

    def _tell(self, known: _Camera, finding: Finding) -> _Told:
        began = self._began(known, finding)
        return _Told(finding, began, sentence(finding, began, of_calibration=known.stamped is not None))

    def _began(self, known: _Camera, finding: Finding) -> str:
        """Return the first of the days, up to now without a break, on which the middle was that far off (UTC date)."""
        moved = finding.moved
        name = "score" if moved.measure == "hot" else moved.measure
        began = datetime.fromtimestamp(now_ms() / 1000, UTC).date().isoformat()
        for day, sketch in reversed(self._ledger.drift.days(known.name, known.model_sha256, name).items()):
            good = on_scale("score", known.good_below)
            if moved.measure == "hot":
                middle: float | None = sketch.share_from(name, good)
            else:
                middle = sketch.middle(name, good if name == "score" else None)
            if sketch.n < FEWEST_OF_A_DAY or middle is None:
                continue
            far = (middle - moved.was) * (1 if moved.change > 0 else -1)
            if far < EASED * moved.limit:
                break
            began = day
        return began


def alarm_name(camera: str, cause: Cause) -> str:
    """Return the alarm's name in `state/health`."""
    return f"camera_{camera}_drift_{cause}"


def _facts(known: _Camera) -> dict[str, Any]:
    reference = known.reference
    source = "calibration" if known.stamped else "first strips" if known.own else "none"
    measures: dict[str, Any] = {}
    furthest_now: dict[Cause, Moved] = {}
    if reference is not None:
        furthest_now = furthest(reference, known.own, list(known.samples))
        for name, moved in middles(reference, list(known.samples)[-WINDOW:], 1).items():
            was, found = shown(moved)
            ends = [off_scale(name, moved.was + side * moved.limit) for side in (-1, 1)]
            measures[name] = {
                "reference": _short(was),
                "now": _short(found),
                "limit_low": _short(ends[0]),
                "limit_high": _short(ends[1]),
            }
    return {
        "model_sha256": known.model_sha256,
        "good_below": known.good_below,
        "reference": source,
        "reference_strips": reference.strips if reference else 0,
        "strips": min(len(known.samples), WINDOW),
        "learned": OWN_STRIPS if known.own else len(known.samples),
        "learns": OWN_STRIPS,
        "not_compared": known.not_compared,
        "changed": {cause: told.text for cause, told in known.findings.items()},
        "moved": {
            cause: parts(told.finding.newest, of_calibration=known.stamped is not None)
            for cause, told in known.findings.items()
        },
        "began": {cause: told.began for cause, told in known.findings.items()},
        "examples": {cause: list(told.finding.examples) for cause, told in known.findings.items()},
        "furthest": {
            cause: {"measure": moved.measure, "deviation": _short(moved.deviation)}
            for cause, moved in furthest_now.items()
        },
        "measures": measures,
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
