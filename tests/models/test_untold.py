"""Once something is in the slot's file it is told, once: whatever the ledger or the disk does in between."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import Blame, Reason, Reject, Retry
from agent.ledger.database import Database
from agent.models.store import Store
from tests.models.bench import Bench, fault, judged, loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOLD = ["activated 1.onnx", "activated 2.onnx", "rolled_back 2.onnx", "rejected 3.onnx", "activated 4.onnx"]


class KilledHere(BaseException):
    """The process ends at this point."""


class Faulty:
    """Lets one call of a method go wrong, the others through; counts them."""

    def __init__(self, number: int, goes_wrong: Callable[[], Any], *, after: bool = False) -> None:
        self.number = number
        self.calls = 0
        self._goes_wrong = goes_wrong
        self._after = after

    def transaction(self, original: Any) -> Any:
        """Stand in for `Database.transaction`."""

        @contextlib.contextmanager
        def transaction(database: Database) -> Iterator[Any]:
            self.calls += 1
            is_it = self.calls == self.number
            if is_it and not self._after:
                self._goes_wrong()
            with original(database) as db:
                yield db
            if is_it and self._after:
                self._goes_wrong()

        return transaction

    def save(self, original: Any) -> Any:
        """Stand in for `Store._save`."""

        def save(*arguments: Any) -> None:
            self.calls += 1
            is_it = self.calls == self.number
            if is_it and not self._after:
                self._goes_wrong()
            original(*arguments)
            if is_it and self._after:
                self._goes_wrong()

        return save


def cannot() -> None:
    """Raise what the ledger or the store raises on a full disk."""
    raise Retry(Reason.NO_SPACE, "the disk is full", Blame.BOX)


def be_killed() -> None:
    """End the process."""
    raise KilledHere


class Life:
    """A slot's life: a good model, one that fails on probation, one that is refused, and a good one again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.bench = self._open()
        self.kills = 0

    def _open(self) -> Bench:
        bench = Bench(self._folder)
        bench.answers = {
            b"one": [loaded(model_id="one", version=1)],
            b"two": [loaded(model_id="two", version=2)],
            b"three": [Reject(Reason.GOLDEN_MISMATCH, "no")],
            b"four": [loaded(model_id="four", version=4)],
        }
        return bench

    def live(self) -> None:
        """Go through all of it; after a kill the life goes on in a new process."""
        self._do(lambda: self._push("1.onnx", b"one"))
        self._do(lambda: self._push("2.onnx", b"two"))
        self._do(self._fail)
        self._do(lambda: self._push("3.onnx", b"three"))
        self._do(lambda: self._push("4.onnx", b"four"))

    def _do(self, what: Callable[[], None]) -> None:
        what()
        self._settle()

    def _settle(self) -> None:
        for _ in range(12):
            self.bench.now += 3.0
            try:
                self.bench.step(2)
            except KilledHere:
                self.kills += 1
                self.bench = self._open()

    def _push(self, name: str, content: bytes) -> None:
        (self.bench.inbox / name).write_bytes(content)

    def _fail(self) -> None:
        worker = self.bench.slot.current
        assert worker is not None
        assert worker.setup.model_sha256 == self.bench.journey.state.active
        assert self.bench.journey.state.on_probation, "the new model is watched"
        self.bench.journey.keeper.count(worker, judged())
        assert self.bench.journey.keeper.tally.counted.judged == 1, "it is watched from its first strip on"
        for number in range(2):
            self.bench.journey.keeper.count(worker, fault(number))
        kills = self.kills
        self._settle()
        if self.kills > kills and self.bench.active == "two":  # killed before it was counted: the strips come again
            self._fail()

    def check(self) -> None:
        """See that everything happened, and was told exactly once."""
        assert self.bench.events() == TOLD
        assert self.bench.active == "four"
        worker = self.bench.slot.current
        assert worker is not None
        assert worker.setup.model_sha256 == self.bench.journey.state.active
        state = self.bench.journey.state
        assert {refusal.file: refusal.reason for refusal in state.refused.values()} == {
            "2.onnx": Reason.PROBATION_FAULTS,
            "3.onnx": Reason.GOLDEN_MISMATCH,
        }
        rows = self.bench.ledger.models.rows("default")
        assert {row["file"]: row["state"] for row in rows.values()} == {
            "1.onnx": "previous",
            "2.onnx": "withdrawn",
            "3.onnx": "rejected",
            "4.onnx": "active",
        }
        untold = json.loads((self._folder / "state/store/slots/default.json").read_bytes())["untold"]
        told = self.bench.ledger.models.told_up_to("default")
        assert all(telling["number"] <= told for telling in untold), "nothing would be told at the next start"

    def close(self) -> None:
        """Leave nothing behind."""
        self.bench.journey.close()
        self.bench.ledger.database.close()


def live_through(folder: Path, owner: Any, name: str, faulty: Faulty) -> Life:
    """Live with one fault."""
    original = getattr(owner, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, getattr(faulty, name.removeprefix("_"))(original))
        life = Life(folder)
        life.live()
    life.check()
    life.close()
    return life


@pytest.mark.parametrize(("owner", "name"), [(Database, "transaction"), (Store, "_save")], ids=["ledger", "slot file"])
@pytest.mark.parametrize(
    ("goes_wrong", "after"), [(cannot, False), (be_killed, False), (be_killed, True)], ids=["full", "killed", "told"]
)
def test_whatever_write_fails_or_is_the_last_one_all_is_told_once_and_no_good_model_goes(
    tmp_path: Path, owner: Any, name: str, goes_wrong: Callable[[], None], after: bool
) -> None:
    """A write that fails, or a kill before or after it, at each point: on the way in, on the way back, at a refusal."""
    healthy = Faulty(0, cannot)
    opening = _writes_of_opening(tmp_path / "opening", owner, name)
    live_through(tmp_path / "healthy", owner, name, healthy)
    assert healthy.calls > opening + 5
    for number in range(opening + 1, healthy.calls + 1):
        life = live_through(tmp_path / str(number), owner, name, Faulty(number, goes_wrong, after=after))
        assert life.kills == (goes_wrong is be_killed)


def _writes_of_opening(folder: Path, owner: Any, name: str) -> int:
    counting = Faulty(0, cannot)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, getattr(counting, name.removeprefix("_"))(getattr(owner, name)))
        Life(folder).close()
    return counting.calls
