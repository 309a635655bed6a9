"""A strip's journey on the bench: workers that answer as told, folders that are as told, a clock that stands still."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.config import Config
from agent.errors import Blame, Reason, Retry
from agent.ledger import open_ledger
from agent.records import FileIdentity, HeatmapFiles, Judgement, SettledFile
from agent.strips.folder import CameraFolder
from agent.strips.journey import StripJourney
from agent.strips.leftovers import Leftovers
from agent.supervision import Slot, WorkerHandle
from agent.wire import Failed, Job, Judged, Loaded, Setup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOADED = Loaded(
    labelled=True, model_id="m", version=1, height=976, width=176, golden="passed", golden_difference=0.0,
    threshold=None, load_ms=1.0, run_ms=50.0, cpu_ms=50.0,
)  # fmt: skip
JUDGEMENT = Judgement(
    score=0.1, threshold=0.5, anomalous=False, anomaly_area_px=0, defect_count=0, peak_row=0, peak_col=0,
    rescaled=False, inference_ms=1.0, digest="d", heatmaps=HeatmapFiles(),
)  # fmt: skip

Answer = Judged | Failed | Retry | None


class FakeWorker(WorkerHandle):
    """A worker without a process: what it says of a strip is looked up by the strip's file."""

    @property
    def pid(self) -> int:
        """It has none."""
        return 1

    def __init__(self, config: Config, folder: Path, answers: dict[str, Callable[[Job], Answer]], name: str) -> None:
        # Nothing of the real one's: there is no process.
        self.setup = Setup.of(config, folder / f"{name}.onnx", name, "worker")
        self.facts = LOADED
        self.lives = True
        self.closed = False
        self.given: list[str] = []
        self._answers = answers
        self._jobs = deque()

    @property
    def alive(self) -> bool:
        """As told."""
        return self.lives

    @property
    def hangs(self) -> bool:
        """It never does."""
        return False

    def send(self, job: Job) -> None:
        """Take one more strip."""
        self.given.append(job.strip.path)
        self._jobs.append(job)

    def poll(self, timeout_seconds: float, deadline_seconds: float) -> Judged | Failed | None:
        """Answer for the oldest strip as told; `ok` where nothing was said."""
        assert timeout_seconds == 0.0
        assert deadline_seconds > 0
        job = self._jobs[0]
        answer = self._answers.get(job.strip.path, judged)(job)
        if isinstance(answer, Retry):
            raise answer
        if answer is not None:
            self._jobs.popleft()
        return answer

    def close(self, grace_seconds: float = 5.0) -> None:
        """Remember that it was ended."""
        assert grace_seconds >= 0
        self.closed = True


class FakeFolder(CameraFolder):
    """A folder that is as told."""

    def __init__(self) -> None:
        self.away = self.gone = False
        self.reads = True

    @property
    def is_away(self) -> bool:
        """As told; a folder that does not answer is away as well."""
        return self.away or not self.reads

    def answers(self, path: str) -> bool:
        """As told."""
        assert path
        return self.reads

    def is_gone(self, path: str) -> bool:
        """As told."""
        assert path
        return self.gone


class Bench:
    """A journey on the bench, with two cameras, `top` and `side`."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.now = 100.0
        self.folder = folder
        self._mtime_ns = 10**18
        self.config = Config.model_validate(
            {
                "agent": {"state_folder": str(folder / "state")},
                "cameras": [{"name": name, "folder": str(folder / name)} for name in ("top", "side")],
                "models": {"inbox": str(folder / "inbox")},
                "heatmaps": {"folder": str(folder / "heatmaps")},
                **sections,
            }
        )
        (folder / "state").mkdir(exist_ok=True)
        self.ledger = open_ledger(folder / "state" / "ledger.db")
        self.slot = Slot("default")
        self.folders = {"top": FakeFolder(), "side": FakeFolder()}
        self.leftovers = Leftovers(self.config.heatmap_folder)
        self.answers: dict[str, Callable[[Job], Answer]] = {}  # by the file's name
        self.shown: list[tuple[str, str]] = []  # camera, file of each commit
        self.judged: list[Judged | Failed | None] = []
        self.workers: list[FakeWorker] = []
        self.at_work = False  # as the journey says
        self.journey = StripJourney(
            self.slot,
            self.config,
            self.ledger,
            self.folders,
            self.leftovers,
            committed=self._committed,
            judged=lambda _, answer: self.judged.append(answer),
            begins=lambda: setattr(self, "at_work", True),
            rests=lambda: setattr(self, "at_work", False),
            clock=lambda: self.now,
        )

    def _committed(self, camera: str, captured_ts_ms: int, payload: bytes) -> None:
        message = json.loads(payload)
        assert message["captured_ts_ms"] == captured_ts_ms
        self.shown.append((camera, message["file"]))

    def start_worker(self, model: str = "1" * 64) -> FakeWorker:
        """Offer a worker to the slot, as the model's journey does."""
        self.workers.append(FakeWorker(self.config, self.folder, self.answers, model))
        self.slot.offer(self.workers[-1])
        return self.workers[-1]

    def begin(self, *names: str, camera: str = "top", mtime_ns: int | None = None, **more: bool) -> None:
        """Let files settle; each is newer than the one before it, unless `mtime_ns` is given."""
        self.ledger.strips.begin(
            [
                SettledFile(
                    camera, name, FileIdentity(10, self._next_mtime() if mtime_ns is None else mtime_ns, 1), **more
                )
                for name in names
            ]
        )

    def _next_mtime(self) -> int:
        self._mtime_ns += 10**9
        return self._mtime_ns

    def step(self, times: int = 1) -> list[bool]:
        """Step, without waiting; when the slot has lost its worker, another of the same model is there at once."""
        taken = []
        for _ in range(times):
            self.slot.bell.set()
            taken.append(self.journey.step(0.0))
            if self.slot.current is None and self.slot.incoming is None and self.workers:
                self.start_worker(self.workers[-1].setup.model_sha256)
        return taken

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the ledger's rows by file."""
        with self.ledger.database.reading() as db:
            found = db.execute("SELECT path, state, attempts, revision, half_written FROM strips").fetchall()
        return {
            path.decode(): {"state": state, "attempts": attempts, "revision": revision, "half_written": half}
            for path, state, attempts, revision, half in found
        }

    def results(self) -> list[tuple[str, str]]:
        """Return (file, verdict or reason) of each result, in the order of their numbers."""
        with self.ledger.database.reading() as db:
            found = db.execute(
                "SELECT path, reason, verdict FROM results JOIN strips ON strips.id = strip ORDER BY seq"
            ).fetchall()
        return [(path.decode(), reason or verdict) for path, reason, verdict in found]


def judged(job: Job) -> Judged:
    """Answer that the strip is good."""
    return Judged(job.strip_id, replace(JUDGEMENT, threshold=job.threshold))


def failed(reason: Reason, blame: str = "", *, model_fault: bool = False) -> Callable[[Job], Failed]:
    """Answer that it could not be judged."""
    return lambda job: Failed(job.strip_id, reason, "why", blame, model_fault, "")


def dies(reason: Reason = Reason.WORKER_CRASHED, blame: Blame = Blame.WORKER) -> Callable[[Job], Retry]:
    """Let the worker be lost on it."""
    return lambda _: Retry(reason, "it is gone", blame)
