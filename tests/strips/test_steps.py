"""The strip's journey step by step, called by hand: no threads, no processes, a clock that stands still."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import Blame, Reason, Retry
from agent.heatmap_names import heatmap_stem
from tests.strips.bench import Bench, FakeWorker, dies, failed, judged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.wire import Job, Judged


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a bench with a worker."""
    bench = Bench(tmp_path)
    bench.start_worker()
    yield bench
    bench.ledger.database.close()


class Refuses:
    """A ledger's method that refuses a number of calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.times = 0
        method: Callable[..., Any] = getattr(owner, name)

        def refuse_or_do(*args: Any, **kwargs: Any) -> Any:
            if self.times:
                self.times -= 1
                raise Retry(Reason.NO_SPACE, "the disk is full", Blame.BOX)
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, refuse_or_do)


# -- turns and lanes ---------------------------------------------------------------------------------------------------


def test_cameras_take_turns(bench: Bench) -> None:
    """A camera with many strips keeps no other waiting; each camera's own come by their times."""
    bench.begin("t1.tif", "t2.tif", "t3.tif")
    bench.begin("s1.tif", "s2.tif", camera="side")
    bench.step(5)
    assert bench.workers[0].given == ["t1.tif", "s1.tif", "t2.tif", "s2.tif", "t3.tif"]
    assert bench.shown == [
        ("top", "t1.tif"),
        ("side", "s1.tif"),
        ("top", "t2.tif"),
        ("side", "s2.tif"),
        ("top", "t3.tif"),
    ]


def test_lanes_live_then_retried_then_backlog(bench: Bench) -> None:
    """A live strip is judged before retried ones of either camera, these before what was there at the first scan."""
    bench.begin("done.tif")
    bench.step()
    bench.begin("old.tif", backlog=True)
    assert bench.ledger.strips.retry([1]) == {}
    bench.begin("live.tif", camera="side")
    bench.step(3)
    assert [file for _, file in bench.shown[1:]] == ["live.tif", "done.tif", "old.tif"]
    assert bench.rows()["done.tif"]["revision"] == 2


def test_a_live_strip_is_judged_promptly_while_a_thousand_retried_ones_wait(bench: Bench) -> None:
    """`strips retry --model` must not stop a line: a live strip waits for what the worker holds already, no more."""
    names = [f"{number:04}.tif" for number in range(1000)]
    bench.begin(*names)
    bench.step(1000)
    assert bench.ledger.strips.retry(range(1, 1001)) == {}
    bench.step(10)
    bench.begin("live.tif")
    bench.step(3)
    assert "live.tif" in [file for _, file in bench.shown[-3:]]
    bench.step(1000)
    assert [file for _, file in bench.shown[1000:] if file != "live.tif"] == names
    assert bench.ledger.report.audit().balanced


def test_of_one_mtime_names_come_as_people_count(bench: Bench) -> None:
    """A camera that numbers its files, on a file system that knows whole seconds: `img_9` before `img_10`."""
    bench.begin("img_10.tif", "img_9.tif", "img_11.tif", "img_8.tif", "img_12.tif", mtime_ns=5)
    bench.step(5)
    assert bench.workers[0].given == [f"img_{number}.tif" for number in (8, 9, 10, 11, 12)]


def test_a_camera_that_is_away_keeps_nobody_waiting(bench: Bench) -> None:
    """Its strips wait; the others go on, and it has its turn when it is back."""
    bench.begin("t1.tif")
    bench.begin("s1.tif", camera="side")
    bench.folders["top"].away = True
    assert bench.step(2) == [True, False]
    assert bench.shown == [("side", "s1.tif")]
    bench.folders["top"].away = False
    bench.step()
    assert bench.shown[1:] == [("top", "t1.tif")]


def test_a_worker_is_never_given_more_than_two(bench: Bench) -> None:
    """One that it is at, and one so that it never waits for the ledger; the rest is on the disk."""
    bench.begin("1.tif", "2.tif", "3.tif")
    bench.answers["1.tif"] = lambda _: None
    bench.step(3)
    assert bench.workers[0].given == ["1.tif", "2.tif"]
    assert bench.journey.holds_strips


def test_whoever_gives_way_to_strips_is_told_before_the_worker_gets_one_and_when_it_holds_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the worker is lost, and where the ledger does not answer."""
    send = FakeWorker.send
    told: list[bool] = []

    def note_and_send(worker: FakeWorker, job: Job) -> None:
        told.append(bench.at_work)
        send(worker, job)

    monkeypatch.setattr(FakeWorker, "send", note_and_send)
    bench.answers["1.tif"] = lambda _: None
    bench.begin("1.tif", "2.tif")
    bench.step()
    assert (told, bench.at_work) == ([True, True], True)
    bench.answers["1.tif"] = judged
    bench.step()
    assert bench.at_work
    bench.step()
    assert not bench.at_work
    bench.answers["3.tif"] = dies()
    bench.begin("3.tif")
    bench.step()
    assert (told, bench.at_work) == ([True] * 3, False)
    del bench.answers["3.tif"]
    refuses = Refuses(monkeypatch, bench.ledger.strips, "commit")
    refuses.times = 1
    bench.step()
    assert (refuses.times, told, bench.at_work) == (0, [True] * 4, False)


def test_the_threshold_goes_with_the_strip(bench: Bench) -> None:
    """A strip is judged by the threshold that its message tells."""
    asked: list[Job] = []

    def remember(job: Job) -> Judged:
        asked.append(job)
        return judged(job)

    bench.begin("1.tif")
    bench.answers["1.tif"] = remember
    bench.step()
    assert [job.threshold for job in asked] == [0.5]


# -- attempts ----------------------------------------------------------------------------------------------------------


def test_a_strip_that_costs_two_workers_is_invalid_and_the_others_come_in_between(bench: Bench) -> None:
    """The second attempt is made alone, at the end of the queue."""
    bench.begin("bad.tif", "2.tif", "3.tif")
    bench.answers["bad.tif"] = dies()
    bench.step(2)
    assert bench.rows()["bad.tif"]["attempts"] == 1
    bench.step(3)
    assert bench.results() == [("2.tif", "ok"), ("3.tif", "ok"), ("bad.tif", "worker_crashed")]
    assert bench.workers[1].given == ["2.tif", "3.tif", "bad.tif"]
    assert bench.judged.count(None) == 2


def test_the_second_strip_of_a_lost_worker_costs_nothing(bench: Bench) -> None:
    """It never began."""
    bench.begin("bad.tif", "second.tif")
    bench.answers["bad.tif"] = dies()
    bench.step()
    assert bench.rows()["second.tif"] == {"state": "waiting", "attempts": 0, "revision": 1, "half_written": 0}
    bench.step()
    assert bench.results() == [("second.tif", "ok")]


def test_three_strips_in_a_row_hold_the_slot_and_lose_no_attempt_of_the_third(bench: Bench) -> None:
    """The model or the box is to blame then: strips wait, the worker is given none, and later they are judged."""
    names = ["1.tif", "2.tif", "3.tif", "4.tif"]
    bench.begin(*names)
    bench.answers.update(dict.fromkeys(names, dies()))
    bench.step(5)
    assert bench.slot.held
    assert bench.slot.held_model == "1" * 64
    assert bench.results() == []
    assert {row["state"] for row in bench.rows().values()} == {"waiting"}
    assert bench.step(2) == [False, False]
    bench.slot.hold_is_over()
    bench.answers.clear()
    bench.step(8)
    assert sorted(bench.results()) == [(name, "ok") for name in names]


def test_an_idle_worker_that_ended_is_reported_and_blames_nothing(bench: Bench) -> None:
    """Killed from outside: another one takes the next strip, which has all its attempts."""
    bench.step()
    bench.workers[0].lives = False
    bench.begin("1.tif")
    bench.step(2)
    assert bench.slot.losses == 1
    assert bench.results() == [("1.tif", "ok")]


def test_a_worker_killed_for_lack_of_memory_costs_no_attempt(bench: Bench) -> None:
    """The strip waits for the box."""
    bench.begin("1.tif")
    bench.answers["1.tif"] = dies(Reason.KILLED)
    bench.step(2)
    assert bench.rows()["1.tif"]["attempts"] == 0
    assert bench.judged == []
    bench.answers.clear()
    bench.now += 10
    bench.step()
    assert bench.results() == [("1.tif", "ok")]


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_a_half_written_strip_waits_and_is_invalid_in_the_end(bench: Bench) -> None:
    """It is looked at again with growing pauses until checks.incomplete_seconds are over; others pass."""
    bench.begin("half.tif", "good.tif")
    bench.answers["half.tif"] = failed(Reason.INCOMPLETE, "file")
    bench.step(4)
    assert bench.results() == [("good.tif", "ok")]
    assert bench.rows()["half.tif"]["half_written"]
    looks = 0
    while len(bench.results()) == 1:
        bench.now += 1
        looks += bench.step()[0]
        assert bench.now < 200
    assert bench.results()[1] == ("half.tif", "incomplete")
    assert bench.now >= 100 + bench.config.checks.incomplete_seconds
    assert 10 < looks < 40


def test_a_strip_waits_for_the_box_for_ever_and_an_alarm_says_so(bench: Bench) -> None:
    """No space, no memory: no attempt is counted, nothing is published, and when the box can it is judged."""
    bench.begin("1.tif")
    bench.answers["1.tif"] = failed(Reason.NO_MEMORY, "box")
    for _ in range(200):
        bench.now += 10
        bench.step()
    assert bench.results() == []
    assert bench.journey.alarms() == ["slot_default_strips_wait_for_the_box"]
    bench.answers.clear()
    bench.now += 10
    bench.step()
    assert bench.results() == [("1.tif", "ok")]
    assert bench.journey.alarms() == []


def test_a_file_is_called_vanished_only_by_its_folder(bench: Bench) -> None:
    """Another file system, or none, may show in the folder's place: then the strip waits."""
    bench.begin("1.tif")
    bench.answers["1.tif"] = failed(Reason.FILE_VANISHED)
    bench.step(2)
    assert bench.results() == []
    bench.folders["top"].gone = True
    bench.now += 10
    bench.step()
    assert bench.results() == [("1.tif", "file_vanished")]


def test_a_file_that_does_not_come_costs_no_attempt_and_its_camera_is_away(bench: Bench) -> None:
    """A share that hangs blames neither strip nor model; the other camera's strips go on."""
    bench.begin("1.tif")
    bench.begin("s1.tif", camera="side")
    bench.answers["1.tif"] = dies(Reason.UNREADABLE, Blame.BOX)
    bench.folders["top"].reads = True
    bench.step()
    bench.folders["top"].reads = False
    bench.now += 10
    bench.step(2)
    assert bench.results() == [("s1.tif", "ok")]
    assert bench.judged.count(None) == 0
    assert bench.rows()["1.tif"]["attempts"] == 0
    bench.folders["top"].reads = True
    bench.answers.clear()
    bench.now += 10
    bench.step()
    assert bench.results()[1:] == [("1.tif", "ok")]


# -- what the ledger refuses -------------------------------------------------------------------------------------------


def test_an_answer_is_recorded_although_no_further_strip_can_be_had(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger refuses while the next strip is looked for: the answer in hand is not lost, no strip stays in work."""
    bench.begin("1.tif")
    refuses = Refuses(monkeypatch, bench.ledger.strips, "next_waiting")

    def answer(job: Job) -> Judged:
        refuses.times = 1
        return judged(job)

    bench.answers["1.tif"] = answer
    bench.step()
    assert bench.results() == [("1.tif", "ok")]
    assert not bench.journey.holds_strips


@pytest.mark.parametrize("name", ["next_again", "next_waiting", "commit", "put_back", "mark_half_written"])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    "answer",
    [judged, dies(), failed(Reason.INCOMPLETE, "file"), failed(Reason.NOT_A_TIFF), dies(Reason.KILLED)],
    ids=["judged", "dies", "incomplete", "rejected", "killed"],
)
def test_whatever_the_ledger_refuses_no_strip_is_stuck(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, times: int, answer: Any
) -> None:
    """A few refusals of any call, with any answer: every strip has a result in the end, and the books balance."""
    refuses = Refuses(monkeypatch, bench.ledger.strips, name)
    names = ["1.tif", "2.tif", "3.tif"]
    bench.begin(*names)
    bench.answers["2.tif"] = answer
    refuses.times = times
    for number in range(60):
        if number == 20:
            bench.answers.clear()
        with contextlib.suppress(Retry):
            bench.step()
        bench.now += 2
    assert sorted(file for file, _ in bench.results()) == names
    assert not bench.journey.holds_strips
    assert bench.ledger.report.audit().balanced


def test_a_commit_that_the_ledger_refuses_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strip waits, on the disk as before, and has one result in the end."""
    refuses = Refuses(monkeypatch, bench.ledger.strips, "commit")
    refuses.times = 1
    bench.begin("1.tif")
    assert bench.step(2) == [True, False]
    assert bench.results() == []
    bench.now += 10
    bench.step()
    assert bench.results() == [("1.tif", "ok")]


def test_what_an_attempt_cost_is_not_forgotten_while_the_ledger_refuses(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strip that kills its worker while the disk is full does not kill one after the other for nothing."""
    refuses = Refuses(monkeypatch, bench.ledger.strips, "put_back")
    bench.begin("bad.tif")
    bench.answers["bad.tif"] = dies()
    refuses.times = 1
    bench.step()
    assert bench.step(3) == [False, False, False]
    assert bench.rows()["bad.tif"]["attempts"] == 0
    bench.now += 10
    bench.step()
    assert bench.rows()["bad.tif"]["attempts"] == 1
    bench.step()
    assert bench.results() == [("bad.tif", "worker_crashed")]
    assert len(bench.workers) == 3


# -- workers that come and go ------------------------------------------------------------------------------------------


def test_the_answer_of_a_retired_worker_counts(bench: Bench) -> None:
    """It finishes what it holds, is given no more, and then the new one takes over."""
    bench.begin("1.tif", "2.tif", "3.tif")
    bench.step()
    old, new = bench.workers[0], bench.start_worker("2" * 64)
    assert bench.step(2) == [True, True]
    assert (old.given, new.given) == (["1.tif", "2.tif", "3.tif"], [])
    bench.begin("4.tif")
    bench.step()
    assert new.given == ["4.tif"]
    with bench.ledger.database.reading() as db:
        models = [model for (model,) in db.execute("SELECT model_sha256 FROM results ORDER BY seq")]
    assert models == ["1" * 64] * 3 + ["2" * 64]
    bench.slot.end_retired()
    assert old.closed


def test_nothing_is_given_once_the_service_stops(bench: Bench) -> None:
    """What the worker holds is finished."""
    bench.begin("1.tif", "2.tif", "3.tif")
    bench.answers["1.tif"] = lambda _: None
    bench.step()
    bench.journey.stop_feeding()
    bench.answers.clear()
    assert bench.step(3) == [True, True, False]
    assert not bench.journey.holds_strips
    assert bench.rows()["3.tif"]["state"] == "waiting"


# -- what lost workers leave -------------------------------------------------------------------------------------------


def test_heatmaps_of_a_lost_worker_whose_strip_is_refused_are_removed(bench: Bench) -> None:
    """It had written all of them and died before it could say so: no result names them, so nobody would remove them."""
    bench.begin("bad.tif", mtime_ns=10**18)
    strip = bench.ledger.strips.next_waiting("top", 0, ())
    assert strip is not None
    stem = heatmap_stem("top", 10**18, "bad.tif", strip.strip_id, 1)
    left = [bench.config.heatmap_folder / (stem + suffix) for suffix in (".tiff", ".png", ".json")]
    other = left[0].with_name("other.tiff")
    left[0].parent.mkdir(parents=True)
    for file in (*left, other):
        file.touch()
    bench.answers["bad.tif"] = dies()
    bench.step()
    bench.leftovers.step(0.0)
    assert all(file.exists() for file in left)  # the second attempt may write just the same
    bench.step()
    assert bench.results() == [("bad.tif", "worker_crashed")]
    bench.leftovers.step(0.0)
    assert not any(file.exists() for file in left)
    assert other.exists()
