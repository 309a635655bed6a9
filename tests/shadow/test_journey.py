"""The shadow's journey step by step: a worker that answers as told, a real ledger, and a clock that stands still."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped] # it brings no types
import pytest

from agent import messages
from agent.errors import Blame, Reason, Retry
from agent.ledger import NewResult, purge
from agent.ledger.strips import LIVE
from agent.models.store import Store
from agent.records import FileIdentity, HeatmapFiles, Judgement, SettledFile
from agent.shadow.brake import Brake
from agent.shadow.journey import BOX_PAUSE_SECONDS, ShadowJourney
from agent.shadow.notes import WRITE_SECONDS
from agent.shadow.rules import FIRST_PAUSE_SECONDS, STRIKES
from agent.wire import Failed, Judged, Loaded
from tests.models.bench import Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.wire import Job, Setup

ONE, TWO = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two"))


class Worker:
    """A shadow's worker: it loads at once, and says what it is told to."""

    hangs = False
    pid = os.getpid()  # it waits for no processor to speak of
    starved_seconds = 0.0

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.facts: Loaded | None = None
        self.alive = True
        self.sent: list[Job] = []
        self.answer: Judged | Failed | Retry | None = None
        self.opens = False
        self.stands = False
        self.deadline = 0.0

    def poll_loaded(self, _: float, deadline_seconds: float) -> None:
        """Open the model, then load it."""
        self.deadline = deadline_seconds
        if self.opens and not self.stands:
            self.facts = loaded(threshold=0.4, provider_refused="cuda: no device")
        self.opens = True

    def stand_still(self) -> None:
        """Be stopped."""
        self.stands = True

    def go_on(self) -> None:
        """Be no longer stopped."""
        self.stands = False

    def send(self, job: Job) -> None:
        """Take a strip."""
        self.sent.append(job)

    def poll(self, _: float, deadline_seconds: float) -> Judged | Failed | None:
        """Answer."""
        self.deadline = deadline_seconds
        if self.stands:
            return None
        if isinstance(self.answer, Retry):
            self.alive = False
            raise self.answer
        return self.answer

    def close(self, grace_seconds: float) -> None:
        """End."""
        assert grace_seconds >= 0
        self.alive = False


class Folder:
    """A camera's folder."""

    is_away = False


class Shadow:
    """The shadow's journey of a bench with two models, of which the second is active."""

    def __init__(self, folder: Path, **models: Any) -> None:
        self.bench = Bench(folder, **models)
        for number, name in enumerate((b"one", b"two"), start=1):
            self.bench.push(f"{number}.onnx", name, loaded(model_id=name.decode(), version=number))
            self.bench.step()
        self.workers: list[Worker] = []
        self.published: list[dict[str, Any] | None] = []
        self.busy = False
        self.brake = Brake(clock=lambda: self.bench.now)
        self.folder = Folder()
        self.strips = 0
        self.journey = ShadowJourney(
            self.bench.journey,
            self.bench.config,
            self.bench.ledger,
            Store(self.bench.config.agent.state_folder / "store"),
            {"top": self.folder},  # type: ignore[dict-item] # it answers like one
            self.brake,
            start_worker=self._start,  # type: ignore[arg-type] # the same
            is_busy=lambda: self.busy,
            publish=self._publish,
            clock=lambda: self.bench.now,
        )

    def _start(self, setup: Setup) -> Worker:
        self.workers.append(Worker(setup))
        return self.workers[-1]

    def _publish(self, topic: str, payload: bytes) -> None:
        assert topic == messages.shadow_state_topic("default")
        self.published.append(json.loads(payload) if payload else None)

    def choose(self, sha256: str = ONE, *, events: bool = False) -> None:
        """Choose a shadow."""
        self.bench.journey.requests.shadow(sha256, events=events)
        self.bench.step()

    def step(self, times: int = 3, *, seconds: float = 0.0) -> None:
        """Let time go by, then step."""
        self.bench.now += seconds
        for _ in range(times):
            self.journey.step(0.0)

    def wait(self) -> None:
        """Have a strip wait to be judged."""
        self.strips += 1
        file = SettledFile("top", f"{self.strips}.tif", FileIdentity(10, self.strips, 1))
        self.bench.ledger.strips.begin([file])

    def judge(self, verdict: str = "ok", score: float = 0.1) -> None:
        """Have the strip that waits judged by the active model."""
        ledger = self.bench.ledger
        strip = ledger.strips.next_waiting("top", LIVE, ())
        assert strip is not None
        result = NewResult(verdict, "", score, TWO, 0, "d", "event/strip/top", dispose=False)
        ledger.strips.commit(strip, result, lambda seq, _: b'{"seq": %d}' % seq, 10**6)

    def drop(self) -> None:
        """Have a strip come and be judged."""
        self.wait()
        self.judge()

    def found(self, key: str) -> Any:
        """Look up how the two compare, once that is written down."""
        self.step(2)  # it takes the answer, which took no time
        self.step(4, seconds=WRITE_SECONDS)
        return getattr(self.bench.ledger.shadow.comparison("default", ONE, TWO), key)

    def close(self) -> None:
        """End it all."""
        self.journey.close()
        self.bench.journey.close()
        self.bench.ledger.database.close()


@pytest.fixture
def shadow(tmp_path: Path) -> Iterator[Shadow]:
    """Make a shadow that is ready to score."""
    shadow = Shadow(tmp_path)
    shadow.choose()
    shadow.step(4)
    yield shadow
    shadow.close()


def judged(score: float, threshold: float = 0.4) -> Judged:
    """Give a worker's judgement."""
    said = Judgement(score, threshold, score >= threshold, 0, 0, 0, 0, False, 5.0, "d", HeatmapFiles())  # noqa: FBT003
    return Judged("", said)


def test_the_worker_is_a_shadow_and_publishes_nothing(shadow: Shadow) -> None:
    """One thread, no heatmaps, the threshold of its own model."""
    [worker] = shadow.workers
    setup = worker.setup
    assert (setup.role, setup.threads, setup.model_sha256) == ("shadow", 1, ONE)
    assert (setup.heatmaps["png"], setup.heatmaps["tiff"]) == ("none", "none")
    shadow.drop()
    shadow.step()
    assert [job.threshold for job in worker.sent] == [0.4]
    worker.answer = judged(0.6)
    outbox = shadow.bench.ledger.report.depths().outbox_pending
    assert shadow.found("to_anomalous") == 1
    assert shadow.bench.ledger.report.depths().outbox_pending == outbox


def test_what_it_says_is_published_only_where_that_was_asked_for(
    shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opinion once, through the outbox, as its schema says; old ones are forgotten but for the newest."""
    shadow.choose(events=True)
    shadow.step(4)
    for number in range(2):
        shadow.workers[-1].answer = judged(0.1 + 0.5 * number)
        shadow.drop()
        shadow.step()
        assert shadow.found("compared") == number + 1
    ledger = shadow.bench.ledger
    queued = [message for message in ledger.outbox.next_outbox_messages(0, 100) if "shadow" in message.topic]
    assert {message.topic for message in queued} == {"event/shadow/default"}
    events = [json.loads(message.payload) for message in queued]
    for event in events:
        jsonschema.validate(event, messages.schemas()["shadow-event/1"])
    stream = ledger.database.stream
    assert [(event["msg_id"], event["result_msg_id"]) for event in events] == [
        (f"{stream}-s{number}", f"{stream}-{number}") for number in (1, 2)
    ]
    assert [(event["verdict"], event["shadow_verdict"]) for event in events] == [("ok", "ok"), ("ok", "anomalous")]
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 100)])
    monkeypatch.setattr(purge, "COMMANDS_KEPT", 1)
    ledger.purge.forget_events(0)
    with ledger.database.reading() as db:
        assert db.execute("SELECT count(*) FROM outbox WHERE topic GLOB 'event/shadow/*'").fetchone() == (1,)


def test_nothing_is_judged_while_a_strip_waits_or_a_worker_is_at_one(shadow: Shadow) -> None:
    """Live strips go first, and so does a rest after each strip of its own."""
    [worker] = shadow.workers
    shadow.drop()
    shadow.wait()
    shadow.step(seconds=100)
    assert worker.sent == []
    shadow.judge()
    shadow.busy = True
    shadow.step(seconds=100)
    assert worker.sent == []
    shadow.busy = False
    shadow.step()
    assert len(worker.sent) == 1
    worker.answer = judged(0.1)
    shadow.step(1, seconds=1.0)
    shadow.step(seconds=2.9)  # it took a second and rests for three
    assert len(worker.sent) == 1
    shadow.step(1, seconds=0.2)
    assert len(worker.sent) == 2


def test_it_stands_still_while_a_worker_is_at_a_strip_and_none_of_that_time_counts(shadow: Shadow) -> None:
    """Whatever slot the strip is of; neither against its deadline nor for the length of its rest."""
    [worker] = shadow.workers
    shadow.drop()
    shadow.step()
    deadline = worker.deadline
    for slot in ("default", "other"):
        shadow.brake.put_on(slot)
    worker.answer = judged(0.1)
    shadow.step(seconds=40)
    shadow.brake.release("default")
    shadow.step(seconds=60)
    assert (worker.stands, worker.deadline) == (True, deadline + 100)
    shadow.brake.release("other")
    shadow.drop()
    shadow.step(seconds=1.0)
    assert (worker.stands, worker.deadline) == (False, deadline + 100)
    shadow.step(seconds=2.9)  # it took a second and rests for three
    assert len(worker.sent) == 1
    shadow.step(seconds=0.2)
    assert len(worker.sent) == 2
    shadow.step()
    assert worker.deadline == deadline


def test_while_it_loads_it_stands_still_as_well_once_it_surely_ends_with_the_supervisor(tmp_path: Path) -> None:
    """That is certain when it opens the model; the time in which it stood is no part of what it may take to load."""
    shadow = Shadow(tmp_path)
    shadow.choose()
    shadow.brake.put_on("default")
    shadow.step(1)
    [worker] = shadow.workers
    assert not worker.stands
    shadow.step(seconds=50)
    assert (worker.stands, worker.facts) == (True, None)
    shadow.brake.release("default")
    shadow.step()
    assert (worker.stands, worker.facts is not None) == (False, True)
    assert worker.deadline == shadow.bench.config.models.trial.seconds + 50
    shadow.close()
    assert not worker.stands


def test_the_state_names_what_computes_and_what_cannot(shadow: Shadow) -> None:
    """Once the worker has loaded the model, and no longer than it is there."""
    told = [state and (state["state"], state["provider"], state["provider_refused"]) for state in shadow.published]
    assert told == [("starting", "", ""), ("scoring", "cpu", "cuda: no device")]
    assert shadow.bench.slot.shadow_facts is not None
    shadow.bench.journey.requests.end_shadow()
    shadow.bench.step()
    shadow.step()
    assert shadow.bench.slot.shadow_facts is None


def test_what_is_gone_is_missed_plainly(shadow: Shadow) -> None:
    """The file vanished before it was read, or its folder is away: no word about the model."""
    shadow.drop()
    shadow.step()
    shadow.workers[0].answer = Failed("", Reason.FILE_VANISHED, "gone", "", model_fault=False, digest="")
    shadow.step()
    shadow.folder.is_away = True
    shadow.drop()
    assert shadow.found("missed") == 2
    assert shadow.found("compared") == 0


def test_a_fault_of_its_model_is_counted_and_costs_no_worker(shadow: Shadow) -> None:
    """An output that is not finite is what it says of the strip."""
    shadow.drop()
    shadow.step()
    shadow.workers[0].answer = Failed("", Reason.OUTPUT_NON_FINITE, "NaN", "", model_fault=True, digest="")
    assert shadow.found("invalid") == 1
    assert len(shadow.workers) == 1


@pytest.mark.parametrize("reason", [Reason.WORKER_CRASHED, Reason.WORKER_TIMEOUT, Reason.KILLED, Reason.NO_MEMORY])
def test_three_lost_workers_switch_it_off_with_the_reason(shadow: Shadow, reason: Reason) -> None:
    """Each time after a longer pause; a leak that fails at every strip counts as well."""
    lost: Any = Retry(reason, "it is gone", Blame.WORKER)
    if reason is Reason.NO_MEMORY:
        lost = Failed("", reason, "it is gone", "box", model_fault=False, digest="")
    for number in range(STRIKES):
        assert len(shadow.workers) == number + 1
        shadow.drop()
        shadow.workers[-1].answer = lost
        shadow.step(5)
        shadow.step(1, seconds=FIRST_PAUSE_SECONDS * 3**number - 0.1)
        assert len(shadow.workers) == number + 1
        shadow.step(3, seconds=0.2)
    assert len(shadow.workers) == STRIKES
    shadow.bench.step()
    shadow.step()
    state = shadow.bench.journey.state.shadow
    assert state is not None
    assert (state.reason, state.detail) == (reason, "3 times; the last time: it is gone")
    assert shadow.bench.ledger.shadow.comparison("default", ONE, TWO).compared == STRIKES - 3 * (
        reason is Reason.KILLED
    )
    assert shadow.journey.alarms() == ["slot_default_shadow_off"]
    assert shadow.published[-1] is not None
    assert shadow.published[-1]["state"] == "off"
    assert not shadow.bench.slot.shadow_is_there
    shadow.choose()
    shadow.step(4)
    assert (len(shadow.workers), shadow.journey.alarms()) == (STRIKES + 1, [])


def test_a_worker_that_was_starved_or_told_to_end_is_no_strike(shadow: Shadow) -> None:
    """The box is to blame; the strip is missed."""
    for number in range(5):
        shadow.drop()
        shadow.workers[-1].starved_seconds = 1e6 if number % 2 == 0 else 0.0
        blame = Blame.WORKER if number % 2 == 0 else Blame.BOX
        shadow.workers[-1].answer = Retry(Reason.WORKER_TIMEOUT, "too late", blame)
        shadow.step(5)
        shadow.step(3, seconds=1000)
        assert len(shadow.workers) == number + 2
    assert shadow.found("missed") == 5


def test_an_error_that_nobody_expected_costs_the_shadow_and_not_the_service(
    shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged and switched off; `step` raises nothing."""
    monkeypatch.setattr(shadow.bench.ledger.shadow.__class__, "newest_seq", lambda _: 1 // 0)
    shadow.step()
    shadow.bench.step()
    shadow.step()
    state = shadow.bench.journey.state.shadow
    assert state is not None
    assert "ZeroDivisionError" in state.detail
    assert not shadow.workers[0].alive


def test_a_ledger_that_does_not_answer_loses_no_opinion(shadow: Shadow, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written down the next time, once."""
    shadow.drop()
    shadow.step()
    shadow.workers[0].answer = judged(0.1)
    shadow.step()
    record = shadow.bench.ledger.shadow.__class__.record

    def fail(*_: object) -> None:
        raise Retry(Reason.NO_SPACE, "full", Blame.BOX)

    monkeypatch.setattr(shadow.bench.ledger.shadow.__class__, "record", fail)
    assert shadow.found("compared") == 0
    monkeypatch.setattr(shadow.bench.ledger.shadow.__class__, "record", record)
    shadow.step(seconds=BOX_PAUSE_SECONDS)
    assert shadow.found("compared") == 1


def test_another_shadow_begins_anew_and_none_clears_the_topic(shadow: Shadow) -> None:
    """The worker of the one before ends, the strip that it was at is left; what was said stays."""
    shadow.drop()
    shadow.step()
    shadow.bench.journey.requests.end_shadow()
    shadow.bench.step()
    shadow.step()
    assert shadow.published[-1] is None
    assert not shadow.workers[0].alive
    shadow.choose()
    shadow.step(4)
    shadow.drop()
    shadow.step()
    assert [job.strip.path for job in shadow.workers[1].sent] == ["2.tif"]


def test_after_a_restart_it_goes_on_with_the_strip_that_it_was_at(shadow: Shadow) -> None:
    """What was not written down is judged again, and counted once."""
    shadow.drop()
    shadow.drop()
    shadow.step()
    shadow.workers[0].answer = judged(0.1)
    shadow.step(1)
    shadow.step(1, seconds=1)
    shadow.journey.close()
    again = ShadowJourney(
        shadow.bench.journey,
        shadow.bench.config,
        shadow.bench.ledger,
        Store(shadow.bench.config.agent.state_folder / "store"),
        {"top": shadow.folder},  # type: ignore[dict-item] # it answers like one
        shadow.brake,
        start_worker=shadow._start,  # type: ignore[arg-type] # the same
        is_busy=lambda: False,
        publish=lambda *_: None,
        clock=lambda: shadow.bench.now,
    )
    shadow.journey = again
    shadow.step(4)
    assert [job.strip.path for job in shadow.workers[1].sent] == ["2.tif"]
    shadow.workers[1].answer = judged(0.1)
    assert shadow.found("compared") == 2


def test_with_little_memory_it_makes_room_for_a_trial(tmp_path: Path) -> None:
    """Its worker ends as soon as a model is to be tried, and comes back with its strip afterwards."""
    shadow = Shadow(tmp_path, switch="stop_first")
    shadow.choose()
    shadow.step(4)
    shadow.drop()
    shadow.step()
    assert shadow.bench.slot.shadow_is_there
    shadow.bench.push("3.onnx", b"three", loaded(model_id="three", version=3))
    shadow.bench.step()
    assert shadow.bench.journey.trial_goes_on
    shadow.step()
    assert not shadow.workers[0].alive
    assert not shadow.bench.slot.shadow_is_there
    assert shadow.published[-1] is not None
    assert shadow.published[-1]["state"] == "waiting"
    shadow.bench.step(12)
    assert shadow.bench.active == "three"
    shadow.step(4)
    assert [job.strip.path for job in shadow.workers[1].sent] == ["1.tif"]
    shadow.close()
