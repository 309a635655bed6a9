"""A worker of its own, at the lowest priority, that judges strips once more; nothing that the service has is used."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.oneshot import LOST, POLL_SECONDS, started
from agent.errors import Reason, Retry
from agent.records import Strip
from agent.wire import Failed, Job, Judged, Setup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import Config
    from agent.ledger import Said
    from agent.strips.whereabouts import Found
    from agent.supervision import WorkerHandle
    from agent.wire import Loaded

LOWEST_PRIORITY = 19  # nice value: what a live worker leaves over
PATIENCE = 10  # times the service's deadlines, as whatever is live goes first
MOST_LOSSES = 3


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model: its file, and the sha256 that this has to have."""

    file: Path
    sha256: str


class Rescorer:
    """Judges one strip after the other, with one thread. It starts another worker where one is lost, a few times."""

    def __init__(self, model: Chosen, config: Config, folder: Path, *, pictures: bool) -> None:
        """Write pictures, if any, below `folder`. Raises Reject where the model is refused, Retry, OSError."""
        setup = Setup.of(config, model.file.absolute(), model.sha256, "candidate")
        save = {"png": "all" if pictures else "none", "tiff": "none", "min_free_gib": 0.0}
        self._setup = replace(
            setup,
            lock_file=str(model.file.absolute()),  # a service that starts waits for workers that hold its own lock
            heatmap_folder=str(folder.absolute()),
            heatmaps=setup.heatmaps | save,
            threads=1,
        )
        self._trial_seconds = PATIENCE * config.models.trial.seconds
        self._strip_seconds = PATIENCE * config.inference.deadline_seconds
        self._losses = 0
        self._yields = False  # it has been told to go first when memory runs out
        self._worker, self.facts = self._start()

    def judge(self, said: Said, found: Found, threshold: float) -> Judged | Failed:
        """Judge a strip; the worker's being lost on it is an answer, up to MOST_LOSSES times. Raises Reject, Retry."""
        strip = Strip(said.row, said.strip_id, said.camera, found.path, found.identity, 0, said.revision, said.seen_ms)
        try:
            self._worker.send(Job(strip, found.folder, threshold))
            answer = None
            while answer is None:
                answer = self._worker.poll(POLL_SECONDS, self._strip_seconds)
        except Retry as lost:
            self._losses += 1
            if self._losses >= MOST_LOSSES or Reason(lost.reason) not in LOST:
                raise
            self._worker.close(0.0)
            self._worker, self.facts = self._start()
            return Failed(said.strip_id, lost.reason, lost.detail, lost.blame.value, model_fault=True, digest="")
        if not self._yields:
            self._yields = True
            _be_the_first_to_go(self._worker.pid)
        return answer

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def _start(self) -> tuple[WorkerHandle, Loaded]:
        self._yields = False
        return started(self._setup, self._trial_seconds, nice=LOWEST_PRIORITY)


def _be_the_first_to_go(pid: int) -> None:
    """Have the kernel end it before any live worker where memory runs out; with its first strip it took a live rank."""
    with suppress(OSError):  # it has just ended
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


@contextmanager
def rescorer(model: Chosen, config: Config, folder: Path, *, pictures: bool = False) -> Iterator[Rescorer]:
    """Have a Rescorer, which is closed at the end. Raises as it does."""
    opened = Rescorer(model, config, folder, pictures=pictures)
    try:
        yield opened
    finally:
        opened.close()
