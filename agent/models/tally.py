"""What the active model of a slot did since it became active; the strip's journey counts, the keeper judges."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.models.probation import Counted

if TYPE_CHECKING:
    from agent.models.slot_record import SlotRecord
    from agent.supervision import WorkerHandle
    from agent.wire import Failed, Judged

COUNTS_SAVED_EVERY = 10  # strips; a fault is saved at once


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of one model, and how much of it is in the slot's file."""

    sha256: str
    counted: Counted = field(default_factory=Counted)
    saved: Counted = field(default_factory=Counted)


class Tally:
    """For any thread. It belongs to one model: what another one did never counts."""

    def __init__(self, record: SlotRecord) -> None:
        self._record = record
        counted = Counted.from_counts(record.state.probation_counts)
        self._counts = _Counts(record.state.active, counted, counted)
        self._lock = threading.Lock()

    @property
    def counted(self) -> Counted:
        """What the active model did."""
        counts = self._counts
        return counts.counted if counts.sha256 == self._record.state.active else Counted()

    def begin(self, sha256: str) -> None:
        """Begin anew, with a model that has become active."""
        with self._lock:
            self._counts = _Counts(sha256)

    def count(self, worker: WorkerHandle, answer: Judged | Failed | None) -> None:
        """Count what a worker answered (None: it was lost), if it is the active model's."""
        with self._lock:
            sha256, counts = worker.setup.model_sha256, self._counts
            if sha256 != self._record.state.active:
                return
            if counts.sha256 != sha256:
                counts = _Counts(sha256)
            if answer is None:
                counted = counts.counted.with_lost_worker(worker.jobs[0].strip_id if worker.jobs else "")
            else:
                counted = counts.counted.with_answer(answer)
            self._counts = replace(counts, counted=counted)

    @property
    def is_worth_saving(self) -> bool:
        """Whether so much was counted that a restart should not forget it."""
        counted, saved = self.counted, self._counts.saved
        return counted.faults > saved.faults or counted.judged >= saved.judged + COUNTS_SAVED_EVERY

    def save(self) -> None:
        """Remember how far probation has come. Raises Retry."""
        counts = self._counts
        if counts.sha256 != self._record.state.active or not self._record.state.on_probation:
            return
        if counts.counted != counts.saved:
            self._record.save_counts(counts.counted)
            with self._lock:
                self._counts = replace(self._counts, saved=counts.counted)
