"""A model's journey on the bench: workers that answer as told, and a clock that stands still."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import Config
from agent.errors import Blame, Reason, Retry
from agent.ledger import open_ledger
from agent.models.journey import ModelJourney
from agent.models.store import Store
from agent.models.trusted_keys import TrustedKeys
from agent.records import HeatmapFiles, Judgement
from agent.supervision import Slot
from agent.wire import Failed, Judged, Loaded

if TYPE_CHECKING:
    from agent.errors import AgentError
    from agent.messages import ModelState
    from agent.wire import Job, Setup

LOADED = Loaded(
    labelled=True, model_id="m", version=1, height=976, width=176, golden="passed", golden_difference=0.0,
    threshold=None, load_ms=1.0, run_ms=50.0, cpu_ms=50.0,
)  # fmt: skip


class FakeWorker:
    """A worker that has already made up its mind."""

    def __init__(self, setup: Setup, answer: Loaded | AgentError) -> None:
        self.setup = setup
        self.answer = answer
        self.facts = answer if isinstance(answer, Loaded) else None
        self.jobs: tuple[Job, ...] = ()
        self.closed = False
        self.hangs = False

    def poll_loaded(self, timeout_seconds: float, deadline_seconds: float) -> Loaded:
        """Answer as told."""
        assert timeout_seconds == 0.0
        assert deadline_seconds > 0
        if isinstance(self.answer, Loaded):
            return self.answer
        raise self.answer

    def close(self, grace_seconds: float = 5.0) -> None:
        """Remember that it was ended."""
        assert grace_seconds >= 0
        self.closed = True


class Bench:
    """A journey on the bench."""

    def __init__(self, folder: Path, **models: Any) -> None:
        self.now = 100.0
        self.answers: dict[bytes, list[Loaded | AgentError]] = {}  # by the model's bytes; the last one stays
        self.workers: list[FakeWorker] = []
        self.states: list[ModelState] = []
        self.inbox = folder / "inbox"
        self.inbox.mkdir(exist_ok=True)
        (folder / "state" / "store" / "slots").mkdir(parents=True, exist_ok=True)
        self.config = Config.model_validate(
            {
                "agent": {"state_folder": str(folder / "state")},
                "cameras": [{"name": "top", "folder": str(folder)}],
                "models": {"inbox": str(self.inbox), "settle_seconds": 0.0, **models},
            }
        )
        self.ledger = open_ledger(folder / "state" / "ledger.db")
        self.slot = Slot("default")
        self.keys = TrustedKeys(self.config.models.trusted_keys)
        self.journey = ModelJourney(
            self.slot,
            self.config,
            self.ledger,
            Store(folder / "state" / "store"),
            self.keys,
            start_worker=self._start,  # type: ignore[arg-type] # it answers like one
            publish_state=lambda _, state: self.states.append(state),
            clock=lambda: self.now,
        )

    def _start(self, setup: Setup) -> FakeWorker:
        answers = self.answers[Path(setup.model_file).read_bytes()]
        self.workers.append(FakeWorker(setup, answers.pop(0) if len(answers) > 1 else answers[0]))
        return self.workers[-1]

    def push(self, name: str, content: bytes, *answers: Loaded | AgentError) -> None:
        """Put a model into the inbox and say what its workers will answer."""
        self.answers[content] = list(answers)
        (self.inbox / name).write_bytes(content)

    def step(self, times: int = 8) -> None:
        """Step, as both journeys would in turn."""
        for _ in range(times):
            self.now += 0.1
            self.journey.inbox.step(0.0)
            self.journey.step(0.0)
            self.slot.adopt()

    @property
    def active(self) -> str:
        """The id of the active model."""
        return self.states[-1].active_model_id

    def events(self) -> list[str]:
        """Give what was told of files, in order."""
        return [f"{event['event']} {event['file']}" for event in self.told()]

    def told(self) -> list[dict[str, Any]]:
        """Give the events in full."""
        with self.ledger.database.reading() as db:
            rows = db.execute("SELECT payload FROM outbox ORDER BY id").fetchall()
        return [json.loads(row[0]) for row in rows]


def loaded(**changes: Any) -> Loaded:
    """Give the answer of a good trial."""
    return Loaded(**{name: getattr(LOADED, name) for name in Loaded.__slots__} | changes)


def box_fault(reason: Reason) -> Retry:
    """Give the answer of a box that cannot."""
    return Retry(reason, "the box cannot", Blame.BOX)


def fault(number: int) -> Failed:
    """Give the answer to a strip at which the model failed."""
    return Failed(str(number), Reason.OUTPUT_NON_FINITE, "NaN", "", model_fault=True, digest="")


def judged() -> Judged:
    """Give the answer to a strip that is fine."""
    judgement = Judgement(0.1, 0.5, False, 0, 0, 0, 0, False, 1.0, "", HeatmapFiles())  # noqa: FBT003 - not anomalous
    return Judged("s", judgement)
