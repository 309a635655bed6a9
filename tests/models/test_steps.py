"""The journey step by step, called by hand: workers that answer as told, and a clock that stands still."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli import show
from agent.errors import Reason, Reject
from tests.helpers.models import difference_model
from tests.models.bench import Bench, box_fault, fault, judged, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a bench with a good model."""
    bench = Bench(tmp_path)
    bench.push("1.onnx", b"one", loaded(model_id="one", version=1))
    bench.step()
    assert bench.active == "one"
    yield bench
    bench.journey.close()
    bench.ledger.database.close()


@pytest.mark.parametrize("reason", [Reason.NO_MEMORY, Reason.NO_SPACE, Reason.IO_ERROR, Reason.STORE_DAMAGED])
def test_what_the_box_cannot_do_is_tried_again_and_never_held_against_the_file(bench: Bench, reason: Reason) -> None:
    """However often it happens; each time it waits longer, and the file gets in when the box can."""
    faults = [box_fault(reason) for _ in range(6)]
    bench.push("2.onnx", b"two", *faults, loaded(model_id="two", version=2))
    for _ in range(6):
        bench.step()
        assert bench.active == "one"
        assert list(bench.journey.postponed.describe()) == ["2.onnx"]
        assert "slot_default_postponed" in bench.journey.alarms()
        bench.now += 700
    bench.step()
    assert bench.active == "two"
    assert bench.journey.alarms() == []
    assert bench.events() == ["activated 1.onnx", "activated 2.onnx"]


@pytest.mark.parametrize(
    ("reason", "becomes"),
    [(Reason.KILLED, Reason.MODEL_NEEDS_TOO_MUCH_MEMORY), (Reason.BOX_BUSY, Reason.MODEL_TOO_SLOW)],
)
def test_a_doubtful_fault_is_the_models_when_it_comes_back_three_times(
    bench: Bench, reason: Reason, becomes: Reason
) -> None:
    """A killed candidate or a busy box may be chance; three times in a row it is not."""
    bench.push("2.onnx", b"two", box_fault(reason))
    for _ in range(2):
        bench.step()
        assert bench.events() == ["activated 1.onnx"]
        bench.now += 700
    bench.step()
    assert bench.states[-1].last_refused_reason == becomes
    assert bench.active == "one"
    assert all(worker.closed for worker in bench.workers[1:])


def test_a_refused_model_is_told_with_its_id_and_version_where_the_file_states_them(
    bench: Bench, tmp_path: Path
) -> None:
    """In the ledger, in the event and in what `models list` shows; else by the file's name and its digest."""
    difference_model(tmp_path / "bad.onnx", model_id="line-3", version=12)
    refusal = Reject(Reason.GOLDEN_MISMATCH, "by 0.4")
    bench.push("2.onnx", (tmp_path / "bad.onnx").read_bytes(), refusal)
    bench.step()
    bench.push("3.onnx", b"states nothing", refusal)
    bench.step()
    rows = {row["file"]: row for row in bench.ledger.models.list_models()}
    assert (rows["2.onnx"]["model_id"], rows["2.onnx"]["version"]) == ("line-3", 12)
    told = [event for event in bench.told() if event["event"] == "rejected"]
    assert [(event["model_id"], event["version"]) for event in told] == [("line-3", 12), ("", 0)]
    listed = show.models({"slots": {}, "models": bench.ledger.models.list_models(), "postponed": {}})
    assert "line-3 version 12  2.onnx" in listed
    assert f"{rows['3.onnx']['sha256'][:12]}  default  rejected   3.onnx  golden_mismatch" in listed
    assert "version 0" not in listed


def test_a_file_that_waits_for_the_box_lets_the_others_pass(bench: Bench) -> None:
    """The newest is tried first, but does not block the inbox."""
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.push("3.onnx", b"three", box_fault(Reason.NO_MEMORY))
    bench.step()
    assert bench.active == "two"
    assert list(bench.journey.postponed.describe()) == ["3.onnx"]


def test_a_model_that_seems_slow_is_compared_by_the_processors_time(bench: Bench) -> None:
    """By the clock alone a busy box would refuse good models."""
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2, run_ms=400.0, cpu_ms=60.0),
               loaded(model_id="two", version=2, run_ms=60.0, cpu_ms=60.0))  # fmt: skip
    bench.step()
    assert list(bench.journey.postponed.describe()) == ["2.onnx"]
    bench.now += 700
    bench.step()
    assert bench.active == "two"
    bench.push("3.onnx", b"three", loaded(model_id="three", version=3, run_ms=400.0, cpu_ms=400.0))
    bench.step()
    assert (bench.active, bench.states[-1].last_refused_reason) == ("two", Reason.MODEL_TOO_SLOW)


def test_a_model_that_loads_no_longer_makes_room_for_an_earlier_one_after_a_second_try(tmp_path: Path) -> None:
    """At the start, for example after an update of onnxruntime."""
    bench = Bench(tmp_path)
    bench.push("1.onnx", b"one", loaded(model_id="one", version=1))
    bench.step()
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.step()
    bench.journey.close()
    again = Bench(tmp_path)
    again.answers = {b"one": [loaded(model_id="one")], b"two": [Reject(Reason.GOLDEN_MISMATCH, "no longer")]}
    again.step(12)
    assert again.active == "one"
    assert again.states[-1].last_refused_reason == Reason.GOLDEN_MISMATCH
    assert again.journey.alarms() == ["slot_default_golden_mismatch"]
    assert [worker.setup.model_sha256 == again.journey.state.active for worker in again.workers] == [False, False, True]


def test_a_box_without_memory_at_the_start_keeps_its_model_and_tries_again(tmp_path: Path) -> None:
    """Nothing is withdrawn for it."""
    bench = Bench(tmp_path)
    bench.push("1.onnx", b"one", loaded(model_id="one", version=1))
    bench.step()
    bench.journey.close()
    again = Bench(tmp_path)
    again.answers = {b"one": [box_fault(Reason.NO_MEMORY), loaded(model_id="one")]}
    again.step()
    assert again.slot.current is None
    assert again.active == "one"
    again.now += 60
    again.step()
    assert again.slot.current is not None


def test_a_newer_push_during_probation_takes_the_place_of_the_way_back(bench: Bench) -> None:
    """The failing model is withdrawn, and both reasons are told."""
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.step()
    bench.answers[b"one"] = [box_fault(Reason.NO_MEMORY)]  # the way back is barred for now
    worker = bench.slot.current
    assert worker is not None
    for number in range(2):
        bench.journey.keeper.count(worker, fault(number))
    bench.step()
    assert bench.active == "two"
    bench.push("3.onnx", b"three", loaded(model_id="three", version=3))
    bench.now += 60
    bench.step()
    assert bench.active == "three"
    assert [event for event in bench.events() if "rolled_back" in event] == ["rolled_back 2.onnx"]
    assert bench.states[-1].last_refused_reason == Reason.PROBATION_FAULTS


def test_without_an_earlier_model_a_failing_one_stays_and_both_reasons_are_told(bench: Bench) -> None:
    """A box that judges badly says so; a box that judges nothing would hide it."""
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.step()
    bench.answers[b"one"] = [Reject(Reason.MODEL_CRASHED, "it crashed")]
    worker = bench.slot.current
    assert worker is not None
    for number in range(2):
        bench.journey.keeper.count(worker, fault(number))
    bench.step(20)
    assert bench.active == "two"
    assert bench.events()[-1] == "rolled_back 2.onnx"
    assert not bench.states[-1].on_probation
    row = bench.ledger.models.rows("default")[worker.setup.model_sha256]
    assert (row["state"], row["reason"]) == ("active", Reason.PROBATION_FAULTS)


def test_answers_of_the_old_worker_do_not_count_for_the_new_model(bench: Bench) -> None:
    """Between the record and the swap the old one still answers."""
    old = bench.slot.current
    assert old is not None
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.step()
    bench.journey.keeper.count(old, None)
    bench.journey.keeper.count(old, judged())
    assert bench.journey.keeper.tally.counted.judged == bench.journey.keeper.tally.counted.faults == 0


def test_the_last_words_of_the_old_model_are_not_held_against_the_new_one(bench: Bench) -> None:
    """The old worker may die of a strip after the new model has been recorded."""
    old = bench.slot.current
    assert old is not None
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.step()
    bench.slot.hold("three strips in a row", old.setup.model_sha256)
    bench.step()
    assert (bench.active, bench.slot.held) == ("two", "")
    bench.slot.hold("three strips in a row", bench.journey.state.active)
    bench.step()
    assert bench.active == "one"
    assert bench.states[-1].last_refused_reason == Reason.LOST_WORKERS


def test_a_strip_that_ends_every_worker_is_one_fault(bench: Bench) -> None:
    """A poisoned strip must not withdraw a good model."""
    worker: Any = bench.slot.current
    worker.jobs = (type("J", (), {"strip_id": "poison"}),)
    for _ in range(5):
        bench.journey.keeper.count(worker, None)
    assert bench.journey.keeper.tally.counted.faults == 1


def test_many_files_of_many_names_leave_no_trace_when_they_are_gone(bench: Bench) -> None:
    """What is remembered does not grow with what was ever pushed."""
    for number in range(30):
        path = bench.inbox / f"junk{number}.onnx"
        path.write_bytes(b"")
        bench.step(3)
        path.unlink()
    bench.step()
    assert len(bench.journey.state.refused) == 30
    assert not bench.journey.state.unwritten


def test_what_changes_under_our_hands_is_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file replaced while it is being copied is neither accepted nor refused."""
    real_fsync = os.fsync

    def replace_meanwhile(descriptor: int) -> None:
        real_fsync(descriptor)
        bench.push("2.new", b"two", loaded(model_id="two", version=2))
        (bench.inbox / "2.new").rename(bench.inbox / "2.onnx")
        monkeypatch.setattr(os, "fsync", real_fsync)

    bench.push("2.onnx", b"half of it", Reject(Reason.MODEL_UNREADABLE, "never tried"))
    monkeypatch.setattr(os, "fsync", replace_meanwhile)
    bench.step(12)
    assert bench.active == "two"
    assert bench.events() == ["activated 1.onnx", "activated 2.onnx"]


def test_a_name_too_long_for_a_manifest_is_refused(bench: Bench) -> None:
    """No manifest can stand beside it: that is no fault of the box, which would try again for ever."""
    name = "x" * 240 + ".onnx"
    bench.push(name, b"good", loaded())
    bench.step()
    assert bench.events()[-1] == f"rejected {name}"
    assert not bench.journey.postponed
