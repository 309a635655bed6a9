"""What was said of a model holds when it is looked at, pushed or forgotten once more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.models import dealt_with
from agent.models.dealt_with import DealtWith
from agent.models.inbox_folder import InboxFile
from agent.models.intake import Arrival
from agent.models.papers import Papers
from agent.models.slot_state import Dealt, Fate
from agent.models.trusted_keys import TrustedKeys
from tests.models.bench import Bench, fault, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a bench."""
    bench = Bench(tmp_path)
    yield bench
    bench.journey.close()
    bench.ledger.database.close()


@pytest.mark.parametrize("versions", [(5, 5), (4, 5)], ids=["of the same version", "of a lower version"])
def test_a_file_behind_an_accepted_one_is_superseded_though_the_inbox_was_looked_at_during_the_trial(
    bench: Bench, versions: tuple[int, int]
) -> None:
    """It is neither tried nor refused for its version: what the look found before the decision does not count."""
    for name, version, mtime in (("old", versions[0], 1_000), ("new", versions[1], 2_000)):
        bench.push(f"{name}.onnx", name.encode(), loaded(model_id=name, version=version))
        os.utime(bench.inbox / f"{name}.onnx", (mtime, mtime))
    while bench.journey.inbox.take() is None:
        bench.now += 0.1
        bench.journey.inbox.step(0.0)
    bench.journey.step(0.0)
    bench.now += 0.1
    bench.journey.inbox.step(0.0)  # the look during the trial
    while bench.journey.inbox.take() is not None:
        bench.journey.step(0.0)
    bench.journey.inbox.step(0.0)  # no time has passed: no look since the decision
    bench.step(20)
    assert bench.active == "new"
    assert bench.events() == ["activated new.onnx", "superseded old.onnx"]


def test_a_withdrawn_model_is_still_withdrawn_after_its_file_was_pushed_again(bench: Bench) -> None:
    """The push with which it came in was accepted; that says nothing any more."""
    bench.push("1.onnx", b"one", loaded(model_id="one", version=1))
    bench.step()
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.step()
    worker = bench.slot.current
    assert worker is not None
    for number in range(2):
        bench.journey.keeper.count(worker, fault(number))
    bench.step()
    assert bench.active == "one"
    os.utime(bench.inbox / "2.onnx", (2_000_000_000, 2_000_000_000))
    bench.step()
    assert bench.journey.record.dealt.kind_of(worker.setup.model_sha256) == Fate.WITHDRAWN
    assert bench.active == "one"


@pytest.mark.parametrize("kind", [Fate.ACCEPTED, Fate.PAPERS])
@pytest.mark.parametrize("is_read_again", [False, True], ids=["at once", "after the file was written anew"])
def test_what_is_forgotten_is_tried_again_though_another_model_has_taken_its_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Fate, is_read_again: bool
) -> None:
    """Every push of the forgotten model goes with it; those of the other one stay."""
    monkeypatch.setattr(dealt_with, "LINES_TO_SPARE", -1000)
    known = DealtWith(tmp_path / "default.dealt")
    first, other = (Arrival(InboxFile("m.onnx", None, None), letter * 64) for letter in "ab")
    known.note([Dealt("m.onnx", "1", first.sha256, first.push, kind)])
    known.note([Dealt("m.onnx", "2", other.sha256, other.push, Fate.ACCEPTED)])
    if is_read_again:
        known.write(None)
        known = DealtWith(tmp_path / "default.dealt")
        known.load()
    known.note([Dealt("", "", first.sha256, "", Fate.FORGOTTEN)])
    papers = Papers("default", signature_required=False, trusted_keys=TrustedKeys(()))
    assert [papers.fate(arrival, known, "") for arrival in (first, other)] == ["", Fate.ACCEPTED]
