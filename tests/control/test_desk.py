"""The desk: one at a time, only what is allowed, none twice, and everything told."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agent.control import desk as desk_module
from agent.control.commands import carry_out, fingerprint, handle
from agent.control.context import Who
from agent.control.desk import QUEUE, CommandDesk
from agent.ledger import NewCommand, open_ledger, purge
from agent.messages import Fault
from tests.control.desks import ALL, events, everything, order, revisions

if TYPE_CHECKING:
    from agent.control.context import Context


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.seconds


def strips(context: Context) -> list[str]:
    """Return the strips' ids."""
    return [strip["strip_id"] for strip in context.ledger.report.list_strips(state=None, camera=None, limit=100)][::-1]


def test_a_repeated_retry_retries_once(box: Context) -> None:
    """Whoever hears no answer asks again with the same id, and gets the same answer, byte for byte."""
    desk = CommandDesk(box)
    ids = strips(box)[:2]
    asked = order("retry", strip_ids=ids)
    first, again = desk.ask(asked), desk.ask(asked)
    assert first is not None
    assert first == again
    assert (first.ok, first.count, json.loads(first.result)["retried"]) == (True, 2, ids)
    assert revisions(box) == [2, 2, 1]
    assert [event["command"] for event in events(box)] == ["retry"]


def test_after_ten_minutes_an_id_is_a_new_one(box: Context) -> None:
    """Clients that count from 1 after each start must not be locked out for ever."""
    clock = Clock()
    desk = CommandDesk(box, clock=clock)
    assert desk.ask(order("pause", camera="top")) is not None
    clock.seconds += 599
    refused = desk.ask(order("resume", camera="top"))
    assert refused is not None
    assert refused.error == Fault.ID_USED
    assert "top" in box.ledger.operators.paused
    clock.seconds += 2
    answer = desk.ask(order("resume", camera="top"))
    assert answer is not None
    assert answer.ok
    assert "top" not in box.ledger.operators.paused


def test_another_senders_id_is_another_one(box: Context) -> None:
    """Two panels that both begin with 1 do not get each other's answers."""
    desk = CommandDesk(box)
    one = desk.ask(order("pause", by="desk7", camera="top"))
    other = desk.ask(order("pause", by="desk8", camera="side"))
    assert one is not None
    assert other is not None
    assert (one.ok, other.ok) == (True, True)
    assert set(box.ledger.operators.paused) == {"top", "side"}


@pytest.mark.parametrize("different", [{"camera": "side"}, {"camera": "top", "surplus": 1}])
def test_an_id_that_means_something_else_now_is_refused(box: Context, different: dict[str, Any]) -> None:
    """It is neither done, nor answered as if it had been."""
    desk = CommandDesk(box)
    desk.ask(order("pause", camera="top"))
    answer = desk.ask(order("pause", **different))
    assert answer is not None
    assert (answer.ok, answer.error, answer.id) == (False, "id_used", "1")
    assert set(box.ledger.operators.paused) == {"top"}
    assert len(events(box)) == 1


def test_nothing_is_done_again_after_a_restart(box: Context) -> None:
    """The ledger remembers it."""
    asked = order("retry", strip_ids=strips(box)[:1])
    before = CommandDesk(box).ask(asked)
    ledger = open_ledger(box.ledger.database.path)
    after = CommandDesk(replace(box, ledger=ledger)).ask(asked)
    ledger.database.close()
    assert before == after
    assert revisions(box) == [2, 1, 1]


def test_what_a_kill_interrupted_is_told_and_not_done_again(box: Context) -> None:
    """Whether it was done nobody can say: then it is said that nobody can."""
    asked = order("retry", strip_ids=strips(box)[:1])
    what = fingerprint(asked.name, asked.arguments)
    box.ledger.commands.begin(NewCommand("mqtt", "hmi", "1", what, "retry", "{}"), 0)
    desk = CommandDesk(box)
    assert [(event["ok"], event["error"], event["id"]) for event in events(box)] == [(False, "interrupted", "1")]
    answer = desk.ask(asked)
    assert answer is not None
    assert (answer.ok, answer.error) == (False, "interrupted")
    assert revisions(box) == [1, 1, 1]
    CommandDesk(box)
    assert len(events(box)) == 1, "it is told once"


@pytest.mark.parametrize(("age_ms", "done"), [(0, True), (60_000, True), (60_001, False), (-3_600_000, True)])
def test_a_command_that_is_too_old_does_nothing(box: Context, age_ms: int, *, done: bool) -> None:
    """A message that was kept somewhere for hours must not pause a camera. It is counted and not answered."""
    desk = CommandDesk(box, wall_ms=lambda: 1_800_000_000_000)
    answer = desk.ask(order("pause", ts_ms=1_800_000_000_000 - age_ms, camera="top"))
    assert (answer is not None) == done
    assert ("top" in box.ledger.operators.paused) == done
    assert desk.status().ignored == ({} if done else {"expired": 1})


@pytest.mark.parametrize(
    "name", [*ALL, "models_forget", "strips_list", "unpublished", "looking_back", "nonsense", "", "\x1b[2J"]
)
def test_what_is_not_listed_is_not_done(box: Context, name: str) -> None:
    """Also what only the command line has, and over any way that brings commands to the desk."""
    closed = box.config.model_copy(update={"mqtt": box.config.mqtt.model_copy(update={"commands": []})})
    before = everything(box)
    answer = CommandDesk(replace(box, config=closed)).ask(order(name, camera="top", strip_ids=[]))
    assert answer is not None
    assert (answer.ok, answer.error) == (False, "not_allowed")
    assert everything(box) == before


def test_too_many_are_refused_and_not_done(box: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be remembered could be done twice."""
    monkeypatch.setattr(desk_module, "CHANGES_REMEMBERED", 4)
    clock = Clock()
    desk = CommandDesk(box, clock=clock)
    for number in range(4):
        desk.ask(order("pause", str(number), camera="top"))
    box.ledger.operators.resume("top")
    refused = desk.ask(order("pause", "4", camera="top"))
    assert refused is not None
    assert refused.error == "too_many"
    assert not box.ledger.operators.paused
    clock.seconds += 601
    answer = desk.ask(order("pause", "5", camera="top"))
    assert answer is not None
    assert answer.ok


def test_many_of_one_command_leave_room_for_another(box: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may only have folders read cannot keep a camera from being paused."""
    monkeypatch.setattr(desk_module, "CHANGES_REMEMBERED", 2)
    desk = CommandDesk(box)
    for number in range(5):
        desk.ask(order("rescan", str(number)))
    answer = desk.ask(order("pause", "p", camera="top"))
    assert answer is not None
    assert answer.ok


def test_commands_and_their_events_do_not_fill_the_disk(box: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest stay, whatever their age; what waits for the broker stays, too."""
    monkeypatch.setattr(purge, "COMMANDS_KEPT", 3)
    desk = CommandDesk(box)
    for number in range(8):
        desk.ask(order("pause" if number % 2 == 0 else "resume", str(number), camera="top"))
    waiting = [message for message in box.ledger.outbox.next_outbox_messages(0, 100) if "command" in message.topic]
    box.ledger.outbox.acknowledge([message.row for message in waiting[:6]])
    box.ledger.purge.forget_events(0)
    assert [row[3] for row in everything(box)["commands"]] == ["5", "6", "7"]
    kept = [row[4:6] for row in everything(box)["outbox"] if row[1] == "event/command"]
    assert len(events(box)) == 2
    assert len(kept) == 5


def test_what_only_reads_is_remembered_for_a_while(box: Context) -> None:
    """The same answer; beyond the last few it is read again, which changes nothing."""
    desk = CommandDesk(box)
    first = desk.ask(order("status", "first"))
    box.ledger.operators.pause("top", "somebody")
    assert desk.ask(order("status", "first")) == first
    for number in range(desk_module.READS_REMEMBERED + 1):
        desk.ask(order("status", str(number)))
    later = desk.ask(order("status", "first"))
    assert later is not None
    assert "somebody" in later.result
    assert events(box) == []


def test_a_ledger_that_cannot_be_written_does_nothing(box: Context) -> None:
    """What cannot be remembered is not done; when the disk is well again, it is, with a new id."""
    desk = CommandDesk(box)
    with box.ledger.database.reading() as db:
        db.execute("PRAGMA query_only = ON")
    answer = desk.ask(order("pause", camera="top"))
    with box.ledger.database.reading() as db:
        db.execute("PRAGMA query_only = OFF")
    assert answer is not None
    assert (answer.ok, answer.error) == (False, "unavailable")
    assert not box.ledger.operators.paused
    assert events(box) == []
    again = desk.ask(order("pause", camera="top"))
    assert again is not None
    assert again.ok


def test_the_queue_is_bounded_and_what_it_cannot_take_is_counted(box: Context) -> None:
    """A flood costs neither memory nor the service; what waits is done in order."""
    desk = CommandDesk(box)
    done: list[int] = []
    taken = [desk.submit(partial(done.append, number)) for number in range(QUEUE + 10)]
    assert taken == [True] * QUEUE + [False] * 10
    for _ in range(QUEUE + 5):
        desk.step(0.0)
    assert done == list(range(QUEUE))
    assert desk.status().ignored == {"queue_full": 10}


def test_who_may_give_one_command_cannot_keep_the_others_waiting(box: Context) -> None:
    """Rights are given by topic: a flood of one command delays another by one of its kind, not by all of them."""
    desk = CommandDesk(box)
    done: list[str] = []
    for number in range(QUEUE):
        desk.submit(partial(done.append, f"status {number}"), "status")
    desk.submit(partial(done.append, "rollback"), "rollback")
    for _ in range(3):
        desk.step(0.0)
    assert done == ["status 0", "rollback", "status 1"]


def test_a_job_that_fails_ends_nothing(box: Context) -> None:
    """Whatever somebody managed to send: it is logged and counted, and the next one is served."""
    desk = CommandDesk(box)
    answers: list[object] = []

    def bug() -> None:
        raise ZeroDivisionError

    desk.submit(bug)
    desk.submit(lambda: answers.append(desk.ask(order("status"))))
    desk.step(0.0)
    desk.step(0.0)
    assert len(answers) == 1
    assert desk.status().ignored == {"failed": 1}


def test_a_submitted_job_wakes_the_desk(box: Context) -> None:
    """Nobody waits for a poll."""
    desk = CommandDesk(box)
    served = threading.Event()
    thread = threading.Thread(target=desk.step, args=(120.0,))
    thread.start()
    desk.submit(served.set)
    assert served.wait(60)
    thread.join()


def test_a_long_list_is_cut_and_says_so(box: Context) -> None:
    """An answer has a limit; `count` still tells how many there were."""
    desk = CommandDesk(box)
    ids = [f"{number:016x}" for number in range(3000)]
    answer = desk.ask(order("retry", strip_ids=ids))
    assert answer is not None
    assert len(answer.result) <= 1 << 15
    found = json.loads(answer.result)
    assert found["cut"] is True
    assert 100 < len(found["refused"]) < 3000
    [event] = events(box)
    assert len(event["arguments"]) <= 2048
    assert json.loads(event["arguments"])["cut"] is True


def test_old_commands_are_forgotten_and_open_ones_are_not(box: Context) -> None:
    """The ledger does not grow for ever."""
    desk = CommandDesk(box)
    desk.ask(order("pause", camera="top"))
    box.ledger.commands.begin(NewCommand("mqtt", "hmi", "2", "", "retry", "{}"), 0)
    box.ledger.purge.forget_events(1 << 60)
    assert [row[3] for row in everything(box)["commands"]] == ["2"]


def test_results_are_kept_only_for_who_asks_again(box: Context) -> None:
    """They may be long; who, what and outcome stay."""
    row = box.ledger.commands.begin(NewCommand("mqtt", "hmi", "1", "", "retry", "{}"), 0)
    with box.ledger.database.transaction() as db:
        db.execute("UPDATE commands SET ended_ms = 1, result = 'long' WHERE id = ?", (row,))
    box.ledger.commands.begin(NewCommand("mqtt", "hmi", "2", "", "retry", "{}"), 600_000)
    kept = box.ledger.commands.show(row)
    assert kept is not None
    assert (kept.ending.result, kept.asked.sender, kept.asked.command) == ("", "hmi", "retry")


def test_who_asks_is_recorded_whichever_way_it_came(box: Context) -> None:
    """Over MQTT by name, from the command line by the system's user."""
    CommandDesk(box).ask(order("pause", "a", by="desk7", camera="top"))
    handle(box, {"command": "resume", "camera": "top"}, "root")
    told = [(event["command"], event["by"], event["way"], event["id"]) for event in events(box)]
    assert told == [("pause", "desk7", "mqtt", "a"), ("resume", "root", "command_line", "")]


@pytest.mark.parametrize("text", ["", "\x1b[2J\ud800\n", "x" * 5000])
def test_whatever_a_sender_calls_itself_is_recorded(box: Context, text: str) -> None:
    """Over other ways than MQTT too: a name that could not be told must not stop the event, or the next start."""
    outcome = carry_out(box, "pause", {"camera": "top"}, Who(text, "sparkplug", text))
    assert outcome.fault is None
    [event] = events(box)
    assert event["by"].isprintable()
    assert 0 < len(event["by"]) < 1500
    CommandDesk(box)
    assert len(events(box)) == 1


def test_a_damaged_ledger_keeps_what_operators_have_set(box: Context) -> None:
    """A paused camera must not run again, nor a threshold go, because of a broken page elsewhere."""
    desk = CommandDesk(box)
    desk.ask(order("pause", "a", camera="top"))
    desk.ask(order("set_threshold", "b", camera="side", value=0.7))
    path = box.ledger.database.path
    box.ledger.database.close()
    with sqlite3.connect(path) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'strips'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    ledger = open_ledger(path)
    assert ledger.database.set_aside is not None, "it was found damaged"
    assert set(ledger.operators.paused) == {"top"}
    assert ledger.operators.thresholds["side"].value == 0.7
    assert len(ledger.commands.asked_since(0, 10)) == 2
    ledger.database.close()
