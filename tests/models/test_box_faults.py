"""What the box cannot do for a moment bars no other way, and is held against no file, whoever asked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from agent.errors import Blame, Reason, Retry
from tests.models.bench import Bench, box_fault, fault, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.models.probation import Counted


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a bench with two models, the second on probation."""
    bench = Bench(tmp_path)
    for number, name in enumerate(("one", "two"), start=1):
        bench.push(f"{number}.onnx", name.encode(), loaded(model_id=name, version=number))
        bench.step()
        assert bench.active == name
    yield bench
    bench.journey.close()
    bench.ledger.database.close()


def cannot_save(_: Counted) -> None:
    """Do what a full disk does to the slot's file while probation is counted."""
    raise Retry(Reason.NO_SPACE, "the store is full", Blame.BOX)


def test_a_bad_model_is_left_though_its_counts_cannot_be_saved(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts only spare a restart; the way back does not wait for them."""
    monkeypatch.setattr(bench.journey.record, "save_counts", cannot_save)
    worker = bench.slot.current
    assert worker is not None
    for number in range(2):
        bench.journey.keeper.count(worker, fault(number))
    bench.step(20)
    assert bench.active == "one"


@pytest.mark.parametrize("what", ["save_counts", "pass_probation"])
def test_a_lost_worker_is_replaced_though_probation_cannot_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Strips come before records."""
    monkeypatch.setattr(bench.journey.record, what, lambda *_: cannot_save(bench.journey.keeper.tally.counted))
    if what == "pass_probation":
        monkeypatch.setattr("agent.models.keeper.judge_probation", lambda *_: True)
    worker = bench.slot.current
    assert worker is not None
    bench.journey.keeper.count(worker, fault(0))
    bench.slot.stop_current()
    bench.step(40)
    assert bench.slot.current is not None
    assert bench.slot.current is not worker
    assert bench.active == "two"


@pytest.mark.parametrize("reason", [Reason.KILLED, Reason.BOX_BUSY, Reason.NO_MEMORY, Reason.MODEL_TRIAL_TIMEOUT])
def test_a_fault_of_the_box_during_an_operators_trial_is_not_held_against_the_push(
    bench: Bench, reason: Reason
) -> None:
    """The operator is told; the file goes on waiting and gets in when the box can."""
    bench.push("3.onnx", b"three", box_fault(Reason.NO_MEMORY), box_fault(reason), loaded(model_id="three", version=3))
    bench.step()
    assert list(bench.journey.postponed.describe()) == ["3.onnx"]
    bench.journey.requests.activate(hashlib.sha256(b"three").hexdigest())
    bench.step(4)
    assert bench.states[-1].last_refused_reason == reason
    assert list(bench.journey.postponed.describe()) == ["3.onnx"]
    bench.now += 700
    bench.step(20)
    assert bench.active == "three"


def test_a_file_that_is_not_the_one_asked_for_is_judged_by_itself(bench: Bench) -> None:
    """Another one of that name is a new push."""
    bench.push("3.onnx", b"three", box_fault(Reason.NO_MEMORY))
    bench.step()
    bench.journey.requests.activate(hashlib.sha256(b"three").hexdigest())
    bench.push("3.onnx", b"another", loaded(model_id="another", version=3))
    bench.step(20)
    assert bench.active == "another"
