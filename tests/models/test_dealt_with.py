"""What was dealt with stays dealt with, whatever happens to the files of the inbox."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Reason, Reject
from agent.models import dealt_with
from agent.models.dealt_with import DealtWith
from agent.models.inbox_folder import list_inbox
from agent.models.slot_state import NEVER_AGAIN, Dealt, Fate
from tests.helpers.examples import ON_DISK
from tests.helpers.pushing import make_manifest, put_manifest
from tests.models.bench import Bench, fault, loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REFUSALS = 105  # more than are remembered (slot_state.py)
UNLABELLED = {"labelled": False, "model_id": "", "version": 0}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a bench; nothing has an order of versions on it."""
    bench = Bench(tmp_path)
    yield bench
    bench.journey.close()
    bench.ledger.database.close()


def push(bench: Bench, name: str) -> str:
    """Push a model whose bytes are its name; return its digest once it is active."""
    bench.push(name, name.encode(), loaded(**UNLABELLED))
    bench.step()
    assert bench.events()[-1] == f"activated {name}"
    return bench.journey.state.active


def reopen(bench: Bench, folder: Path) -> Bench:
    """Start again on the same folder."""
    bench.journey.close()
    bench.ledger.database.close()
    again = Bench(folder)
    again.answers = bench.answers
    return again


def chmod(bench: Bench) -> None:
    """Change every ctime."""
    for path in bench.inbox.iterdir():
        path.chmod(0o640)


def touch(bench: Bench) -> None:
    """Change every mtime, the oldest model's to the newest."""
    for number, path in enumerate(sorted(bench.inbox.iterdir(), reverse=True)):
        os.utime(path, (2_000_000_000 + number, 2_000_000_000 + number))


def copy_the_inbox(bench: Bench) -> None:
    """Put a copy of the folder in its place: other inodes, other ctimes."""
    aside = bench.inbox.with_name("aside")
    shutil.copytree(bench.inbox, aside)
    shutil.rmtree(bench.inbox)
    aside.rename(bench.inbox)


def rename_all(bench: Bench) -> None:
    """Give every file another name."""
    for path in list(bench.inbox.iterdir()):
        path.rename(path.with_name(f"again-{path.name}"))


def take_away_and_back(bench: Bench) -> None:
    """Unmount the share, and mount it again."""
    aside = bench.inbox.with_name("aside")
    bench.inbox.rename(aside)
    bench.step()
    bench.inbox.mkdir()
    bench.step()
    bench.inbox.rmdir()
    aside.rename(bench.inbox)


EVENTS_OF_THE_FOLDER = [chmod, touch, copy_the_inbox, rename_all, take_away_and_back]


@pytest.mark.parametrize("happens", EVENTS_OF_THE_FOLDER, ids=lambda happens: str(happens.__name__))
def test_an_older_model_never_takes_over_by_itself(bench: Bench, happens: Callable[[Bench], None]) -> None:
    """Neither one that was active before, nor one that stood behind, where no version tells which is newer."""
    push(bench, "1.onnx")
    bench.push("2.onnx", b"2.onnx", loaded(**UNLABELLED))
    bench.push("3.onnx", b"3.onnx", loaded(**UNLABELLED))
    os.utime(bench.inbox / "2.onnx", (1_000_000_000, 1_000_000_000))
    bench.step(20)
    active = bench.journey.state.active
    assert bench.events() == ["activated 1.onnx", "activated 3.onnx", "superseded 2.onnx"]
    happens(bench)
    bench.step(40)
    assert bench.journey.state.active == active
    assert [event for event in bench.events()[3:] if not event.startswith("unchanged")] == []


def test_a_change_of_rights_is_not_told_at_all(bench: Bench) -> None:
    """The same name, size and time with the same bytes is the same push."""
    push(bench, "1.onnx")
    push(bench, "2.onnx")
    for _ in range(3):
        chmod(bench)
        bench.step(20)
    assert bench.events() == ["activated 1.onnx", "activated 2.onnx"]


@pytest.mark.parametrize("lost", ["default.json", "default.dealt", "both", "ledger"])
def test_what_is_remembered_twice_is_not_lost_with_one_of_them(bench: Bench, tmp_path: Path, lost: str) -> None:
    """The slot's file, what is beside it, and the ledger make up for each other."""
    push(bench, "1.onnx")
    push(bench, "2.onnx")
    two = bench.journey.state.active
    slots = tmp_path / "state/store/slots"
    bench.journey.close()
    bench.ledger.database.close()
    for name in ("default.json", "default.dealt"):
        if lost in (name, "both"):
            (slots / name).write_bytes(b"\0damaged")
    if lost == "ledger":
        for path in (tmp_path / "state").glob("ledger.db*"):
            path.unlink()
    again = Bench(tmp_path)
    again.answers = bench.answers
    chmod(again)
    again.step(40)
    assert again.journey.state.active == two
    assert [event for event in again.events() if "activated 1" in event] == ["activated 1.onnx"] * (lost != "ledger")
    again.journey.close()
    again.ledger.database.close()


def test_two_of_one_version_the_one_seen_last_wins_once(bench: Bench) -> None:
    """Equal versions with other bytes, as fp32 and INT8 of one checkpoint may have."""
    bench.push("fp32.onnx", b"fp32", loaded(version=5))
    bench.step()
    bench.push("int8.onnx", b"int8", loaded(version=5))
    bench.step()
    assert bench.events() == ["activated fp32.onnx", "activated int8.onnx"]
    bench.push("fp32-again.onnx", b"fp32", loaded(version=5))
    bench.step()
    touch(bench)
    bench.step(20)
    assert "activated fp32-again.onnx" not in bench.events()
    assert bench.states[-1].active_sha256 == bench.workers[-1].setup.model_sha256
    assert {event.split()[0] for event in bench.events()[2:]} == {"unchanged"}


def test_a_withdrawn_model_stays_out_after_any_number_of_refusals(bench: Bench, tmp_path: Path) -> None:
    """Also after a restart, and after its file was touched."""
    push(bench, "1.onnx")
    one = bench.journey.state.active
    push(bench, "2.onnx")
    worker = bench.slot.current
    assert worker is not None
    for number in range(2):
        bench.journey.keeper.count(worker, fault(number))
    bench.step(12)
    assert bench.journey.state.active == one
    for number in range(REFUSALS):
        bench.push(f"bad{number}.onnx", f"bad{number}".encode(), Reject(Reason.GOLDEN_MISMATCH, "no"))
    bench.step(5 * REFUSALS)
    assert len([event for event in bench.events() if event.startswith("rejected")]) == REFUSALS
    touch(bench)
    bench.step(5 * REFUSALS)
    assert bench.journey.state.active == one
    again = reopen(bench, tmp_path)
    touch(again)
    again.step(5 * REFUSALS)
    assert again.journey.state.active == one
    assert [event for event in again.events() if event == "activated 2.onnx"] == ["activated 2.onnx"]
    again.journey.close()
    again.ledger.database.close()


def test_a_box_that_comes_from_an_earlier_release_knows_what_it_has_seen(bench: Bench, tmp_path: Path) -> None:
    """That one remembered names and times in the slot's file, and no digests of what was superseded."""
    push(bench, "1.onnx")
    push(bench, "2.onnx")
    two = bench.journey.state.active
    bench.push("0.onnx", b"0.onnx", loaded(**UNLABELLED))
    seen = {name: _key(bench, name) for name in ("0.onnx", "1.onnx", "2.onnx")}
    again = as_of_an_earlier_release(bench, tmp_path, seen)
    again.step(20)
    rename_all(again)
    again.step(40)
    assert again.journey.state.active == two
    assert "activated again-0.onnx" not in again.events()
    again.journey.close()
    again.ledger.database.close()


def test_what_an_earlier_release_refused_for_its_papers_is_tried_with_others(bench: Bench, tmp_path: Path) -> None:
    """Not the same push again: neither by itself nor after a chmod, but with another manifest."""
    push(bench, "1.onnx")
    bench.push("2.onnx", b"2.onnx", loaded(version=2))
    manifest = make_manifest(bench.inbox / "2.onnx", version=2, model_id="m", slot="another")
    written = put_manifest(bench.inbox / "2.onnx", manifest, None)
    bench.step()
    assert bench.events()[-1] == "rejected 2.onnx"
    file = next(file for file in list_inbox(bench.inbox, lambda: None) or [] if file.name == "2.onnx")
    bench = as_of_an_earlier_release(bench, tmp_path, {"1.onnx": _key(bench, "1.onnx"), "2.onnx": file.key})
    bench.step(20)
    chmod(bench)
    bench.step(20)
    assert bench.events().count("rejected 2.onnx") == 1
    assert bench.active != "m"
    written.unlink()
    put_manifest(bench.inbox / "2.onnx", replace(manifest, slot="default"), None)
    bench.step(20)
    assert bench.active == "m"
    bench.journey.close()
    bench.ledger.database.close()


def as_of_an_earlier_release(bench: Bench, folder: Path, seen: dict[str, str]) -> Bench:
    """Start again with what the first release would have left: names and times in the slot's file, and no digests."""
    bench.journey.close()
    bench.ledger.database.close()
    slots = folder / "state/store/slots"
    fields = json.loads((slots / "default.json").read_bytes())
    fields["seen"] = seen
    for later in ("untold", "unwritten", "tellings"):
        del fields[later]
    (slots / "default.json").write_text(json.dumps(fields))
    (slots / "default.dealt").unlink()
    again = Bench(folder)
    again.answers = bench.answers
    return again


def _key(bench: Bench, name: str) -> str:
    found = (bench.inbox / name).stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} / -"


# The file


ENTRIES = st.lists(
    st.builds(
        Dealt,
        st.sampled_from(["", "a.onnx", "b.onnx", "\udcff\n.onnx"]),
        st.sampled_from(["1 2 3 / -", "1 2 4 / -"]),
        st.sampled_from(["", *(letter * 64 for letter in "abc")]),
        st.sampled_from(["", *(letter * 64 for letter in "def")]),
        st.sampled_from([str(fate) for fate in Fate]),
    ),
    max_size=30,
)


def knowledge(known: DealtWith) -> list[object]:
    """Give all that can be asked."""
    names = ["a.onnx", "b.onnx", "\udcff\n.onnx"]
    return [
        *((entry.key, entry.kind, entry.sha256) if (entry := known.of_name(name)) else None for name in names),
        *(known.kind_of(letter * 64) for letter in "abcdef"),
    ]


@ON_DISK
@given(first=ENTRIES, second=ENTRIES, spare=st.sampled_from([0, 1000]))
def test_the_file_read_again_knows_the_same(
    tmp_path_factory: pytest.TempPathFactory, first: list[Dealt], second: list[Dealt], spare: int
) -> None:
    """Whether lines were added or it was written anew."""
    path = tmp_path_factory.mktemp("dealt") / "default.dealt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dealt_with, "LINES_TO_SPARE", spare)
        known = DealtWith(path)
        for entries in (first, second):
            known.note(entries)
            known.write(None)
    again = DealtWith(path)
    again.load()
    assert knowledge(again) == knowledge(known)
    assert again.problem == ""


def test_a_line_torn_by_a_power_cut_costs_that_line(tmp_path: Path) -> None:
    """The next one begins on a line of its own, and the start says what it could not read."""
    path = tmp_path / "default.dealt"
    known = DealtWith(path)
    known.note([Dealt("a.onnx", "1", "a" * 64, "", Fate.ACCEPTED)])
    known.write(None)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    known.note([Dealt("b.onnx", "1", "b" * 64, "", Fate.ACCEPTED)])
    known.write(None)
    again = DealtWith(path)
    again.load()
    assert (again.kind_of("a" * 64), again.kind_of("b" * 64)) == ("accepted", "accepted")
    assert "line 2" in again.problem


def test_what_was_active_once_outlives_any_number_of_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory is bounded: refusals go first, they would be found again."""
    monkeypatch.setattr(dealt_with, "DIGESTS_KEPT", 50)
    monkeypatch.setattr(dealt_with, "NAMES_KEPT", 20)
    monkeypatch.setattr(dealt_with, "LINES_TO_SPARE", 10)
    path = tmp_path / "default.dealt"
    known = DealtWith(path)
    kept = [Dealt(f"{fate}.onnx", "1", f"{fate:>064}", "", fate) for fate in (*NEVER_AGAIN, Fate.SUPERSEDED)]
    known.note(kept)
    for number in range(500):
        known.note([Dealt(f"{number}.onnx", "1", f"{number:064}", "", Fate.REJECTED)])
        known.write(())
    again = DealtWith(path)
    again.load()
    for memory in (known, again):
        assert [memory.kind_of(entry.sha256) for entry in kept] == [entry.kind for entry in kept]
    assert len(path.read_bytes().splitlines()) < 200
