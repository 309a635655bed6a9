"""A damaged ledger stops nothing: what can be read is brought over, the rest is found again in the cameras' folders."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.ledger import Ledger, NewResult, open_ledger
from agent.records import FileIdentity, SettledFile
from tests.faults.judging import Written, health, strip_of
from tests.faults.reliability import Row, tell
from tests.helpers.box import Box, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
Damage = Callable[["Path"], None]


def _change(change: Callable[[bytearray], bytes | bytearray | None]) -> Damage:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        path.write_bytes(change(data) or data)

    return damage


def _overwrite(place: float, content: bytes) -> Damage:
    """Write over the file at a byte, or at a part (0..1) of it rounded to a page."""

    def change(data: bytearray) -> None:
        offset = place if isinstance(place, int) else int(len(data) * place) // PAGE * PAGE
        data[offset : offset + len(content)] = content

    return _change(change)


def _damage_root(table: str) -> Damage:
    """Make the first page of a table or an index unreadable."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        _overwrite((page - 1) * PAGE, random.Random(1).randbytes(PAGE))(path)  # noqa: S311 - any bytes will do

    return damage


def _swap_pages(data: bytearray) -> None:
    half = len(data) // 2 // PAGE * PAGE
    data[half : half + PAGE], data[-PAGE:] = data[-PAGE:], data[half : half + PAGE]


DAMAGES: dict[str, Damage] = {
    "the header": _overwrite(0, b"not a database at all"),
    "the first page, zeroed": _overwrite(0, bytes(PAGE)),
    "the schema": _overwrite(100, random.Random(2).randbytes(2000)),  # noqa: S311 - any bytes will do
    "a page in the middle, zeroed": _overwrite(0.5, bytes(PAGE)),
    "a page in the middle, garbage": _overwrite(0.7, random.Random(3).randbytes(PAGE)),  # noqa: S311 - any bytes will do
    "the last eighth, zeroed": _change(lambda data: data[: -len(data) // 8] + bytes(len(data) // 8)),
    "cut in half": _change(lambda data: data[: len(data) // 2]),
    "cut inside a page": _change(lambda data: data[: -PAGE // 2]),
    "two pages swapped": _change(_swap_pages),
    "all of it": _change(lambda data: random.Random(4).randbytes(len(data))),  # noqa: S311 - any bytes will do
    "the strips": _damage_root("strips"),
    "the results": _damage_root("results"),
    "the outbox": _damage_root("outbox"),
    "an index": _damage_root("strips_waiting"),
    "the counters": _damage_root("counters"),
}
UNREADABLE = {"the header", "the first page, zeroed", "the schema", "all of it"}

ACKNOWLEDGED, JUDGED, WAITING = 300, 60, 40


def _file(number: int) -> SettledFile:
    return SettledFile("top", f"{number:05d}.tif", FileIdentity(10, number, 1))


def _fill(path: Path) -> None:
    """Make a ledger with strips in every state; their messages are as large as real ones."""
    ledger = open_ledger(path)
    with closing(ledger.database):
        stream = ledger.database.stream
        ledger.strips.begin([_file(number) for number in range(ACKNOWLEDGED + JUDGED + WAITING)])
        ledger.strips.record_first_scan("top")
        for _ in range(ACKNOWLEDGED + JUDGED):
            strip = ledger.strips.next_waiting("top", 0, ())
            assert strip is not None
            result = NewResult("ok", "", 0.1, "m", 0, "d", "event/strip/top", dispose=False)

            def payload(seq: int, _: int, path: str = strip.path) -> bytes:
                message = {"msg_id": f"{stream}-{seq}", "file": path, "filling": "x" * 900}
                return json.dumps(message).encode()

            ledger.strips.commit(strip, result, payload, 10**6)
        messages = ledger.outbox.next_outbox_messages(0, ACKNOWLEDGED)
        ledger.outbox.acknowledge([message.row for message in messages])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a ledger with strips in every state."""
    path = tmp_path_factory.mktemp("filled") / "ledger.db"
    _fill(path)
    return path.read_bytes()


@pytest.mark.parametrize("what", DAMAGES)
def test_what_can_be_read_of_a_damaged_ledger_is_brought_over(tmp_path: Path, filled: bytes, what: str) -> None:
    """The new ledger balances, sends what waited with the old bytes, and uses no id a second time."""
    path = tmp_path / "ledger.db"
    path.write_bytes(filled)
    with closing(sqlite3.connect(path)) as db:
        (old_stream,) = db.execute("SELECT value FROM meta WHERE key = 'stream'").fetchone()
        waiting = {bytes(row[0]) for row in db.execute("SELECT payload FROM outbox WHERE state = 'pending'")}
    DAMAGES[what](path)
    ledger = open_ledger(path)
    try:
        assert ledger.database.set_aside is not None
        assert ledger.database.set_aside.exists()
        assert ledger.database.stream != old_stream
        audit = ledger.report.audit()
        assert audit.balanced, audit.problems
        assert audit.last_seq == 0
        kept = {message.payload for message in ledger.outbox.next_outbox_messages(0, 1000)}
        assert kept <= waiting
        known = ledger.strips.known([_file(number) for number in range(ACKNOWLEDGED + JUDGED + WAITING)])
        if what in UNREADABLE:
            assert not known
            assert not ledger.strips.camera_was_scanned("top"), "the backlog rule applies"
        elif what in {"an index", "the counters"}:
            assert len(known) == ACKNOWLEDGED + JUDGED + WAITING
            assert kept == waiting
        elif what not in {"the strips", "the outbox"}:
            assert len(known) + len(kept) > 0
        print(f"{what}: {len(known)} strips and {len(kept)} messages of {len(waiting)} kept")  # noqa: T201 - for -s
        _go_on(ledger)
    finally:
        ledger.database.close()
    again = open_ledger(path)
    assert again.database.set_aside is None
    again.database.close()


def _go_on(ledger: Ledger, numbers: range = range(ACKNOWLEDGED + JUDGED + WAITING)) -> None:
    """Find every file again, judge what waits, acknowledge everything: each strip is there once, and it balances."""
    ledger.strips.begin([_file(number) for number in numbers])
    _judge_all(ledger)
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 1000)])
    audit = ledger.report.audit()
    assert audit.balanced, audit.problems
    with ledger.database.reading() as db:
        assert db.execute("SELECT state, count(*) FROM strips GROUP BY state").fetchall() == [("ok", len(numbers))]
    ledger.purge.forget(list(range(1, 10)))
    assert ledger.report.audit().balanced


WAL_DAMAGES: dict[str, tuple[Damage, bool]] = {  # and whether commits are lost that had been flushed
    "untouched": (_change(lambda data: data), False),
    "its header": (_overwrite(0, b"garbage!" * 4), True),
    "its first frame": (_overwrite(32 + 24 + 100, b"garbage"), True),
    "a frame in the middle": (_overwrite(0.5, b"garbage" * 10), True),
    "a page of zeros in the middle": (_overwrite(0.3, bytes(2 * PAGE)), True),
    "torn in the last transaction": (_change(lambda data: data[: -PAGE // 2]), False),
    "its last page damaged": (_change(lambda data: data[:-100] + bytes(100)), False),
}


@pytest.mark.parametrize("what", WAL_DAMAGES)
def test_a_damaged_write_ahead_log_never_makes_an_id_be_used_twice(tmp_path: Path, what: str) -> None:
    """Commits that are missing begin a new stream; a torn last transaction is what a power cut leaves, and is none."""
    path, crashed = tmp_path / "ledger.db", tmp_path / "crashed" / "ledger.db"
    crashed.parent.mkdir()
    ledger = open_ledger(path)
    ledger.strips.begin([_file(number) for number in range(20)])
    _judge_all(ledger)
    for suffix in ("", "-wal"):  # what a kill -9 leaves
        crashed.with_name(f"ledger.db{suffix}").write_bytes(path.with_name(f"ledger.db{suffix}").read_bytes())
    stream = ledger.database.stream
    ledger.database.close()
    damage, lost = WAL_DAMAGES[what]
    damage(crashed.with_name("ledger.db-wal"))
    ledger = open_ledger(crashed)
    assert (ledger.database.stream != stream) is lost
    assert (ledger.database.set_aside is not None) is lost
    _go_on(ledger, range(20))
    ledger.database.close()
    tell(
        Row(
            "Ledger",
            f"write-ahead log after a kill: {what}",
            "no id is ever used for two messages: where flushed commits are missing a new stream begins, with an alarm",
            "20 strips judged, ledger and log copied as a kill leaves them, the log damaged, opened",
            "new stream, balanced" if lost else "the same stream, balanced",
        )
    )


def _judge_all(ledger: Ledger) -> None:
    while (strip := ledger.strips.next_waiting("top", 0, ())) is not None:
        result = NewResult("ok", "", 0.1, "m", 0, "d", "event/strip/top", dispose=False)
        ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"msg_id": seq}).encode(), 10**6)


def test_an_interrupted_replacement_is_finished(tmp_path: Path, filled: bytes) -> None:
    """Power lost between the two renames: the new ledger takes its place at the next start."""
    path = tmp_path / "ledger.db"
    (tmp_path / "ledger.db.new").write_bytes(filled)
    ledger = open_ledger(path)
    assert len(ledger.outbox.next_outbox_messages(0, 1000)) == JUDGED
    ledger.database.close()
    assert not (tmp_path / "ledger.db.new").exists()


def _run_with_damage(folder: Path, damage: Damage, backlog: str | int = "all") -> tuple[int, int]:
    """Let a box publish, stop it, write strips and damage its ledger; return (messages, repeats by strip) after all."""
    with Broker(folder) as broker, Subscriber(broker.port) as subscriber, Box(folder, broker.port) as box:
        box.config["cameras"][0]["backlog"] = backlog
        box.write_config()
        difference_model(box.inbox / "model.onnx", height=128, width=128)
        written: Written = set()

        def write(number: int) -> None:
            for _ in range(number):
                name = f"{len(written):04d}.tif"
                write_strip(box.camera() / name, seed=len(written), height=128, width=128, dtype="uint8")
                written.add(("top", name))

        box.start()
        write(30)
        wait_for_results(subscriber, 30)
        assert box.stop() == 0
        write(5)
        damage(box.state / "ledger.db")
        box.start()
        write(5)
        wait_for(
            lambda: {strip_of(result) for result in unique_results(subscriber).values()} == written,
            "every strip is published",
        )
        wait_for(lambda: box.ask("status")["strips"]["pending"] == 0, "nothing is pending")
        facts = box.audit()
        assert facts["balanced"], facts["problems"]
        results = list(unique_results(subscriber).values())
        newest = [result for result in results if result["stream"] == facts["stream"]]
        assert sorted(result["seq"] for result in newest) == list(range(1, facts["last_seq"] + 1))
        if list(box.state.glob("ledger.db.corrupt.*")):
            wait_for(lambda: "ledger_was_damaged" in health(subscriber).get("alarms", ""), "the alarm")
        assert box.stop() == 0
        return len(results), len(results) - len(written)


@pytest.mark.parametrize(
    "what",
    [
        "a page in the middle, garbage",
        *[pytest.param(what, marks=pytest.mark.soak) for what in DAMAGES if what != "a page in the middle, garbage"],
    ],
)
def test_the_line_goes_on_with_a_damaged_ledger(tmp_path: Path, what: str) -> None:
    """Every strip is published, those of the time while it was off too; scored again is only what was forgotten."""
    messages, again = _run_with_damage(tmp_path, DAMAGES[what])
    if what in {"an index", "the counters"}:
        assert again == 0
    tell(
        Row(
            "Ledger",
            f"damaged while the service was off: {what}",
            "starts with an alarm, goes on; what can be read is kept, the rest is refilled from the cameras' folders",
            "30 strips published, the service stopped, 5 written, the file damaged, started, 5 written",
            f"40 strips, {messages} messages: none lost, {again} scored again under a new stream",
        )
    )


def test_the_line_goes_on_when_the_ledger_was_deleted(tmp_path: Path) -> None:
    """A new ledger, a new stream, and the camera's folder refills it."""
    messages, again = _run_with_damage(tmp_path, lambda path: path.unlink())
    assert (messages, again) == (70, 30)
    tell(
        Row(
            "Ledger",
            "deleted while the service was off",
            "starts with a new stream and is refilled from the cameras' folders by the backlog rule",
            "30 strips published, the service stopped, 5 written, the file deleted, started, 5 written",
            f"40 strips, {messages} messages: none lost, {again} scored again under a new stream",
        )
    )
