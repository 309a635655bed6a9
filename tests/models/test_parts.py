"""The pure parts of the model's journey, as tables."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.config import ModelsSection, Probation
from agent.errors import Blame, Reason, Reject, Retry
from agent.ledger import Changes, ModelRecord, open_ledger
from agent.models import slot_state
from agent.models.dealt_with import DealtWith
from agent.models.intake import NEXT_FILE_SECONDS, Arrivals
from agent.models.postponed import Postponed
from agent.models.probation import Counted, Failing, judge_probation
from agent.models.rebuilding import rebuild
from agent.models.rules import check_states_a_version, decide_box_fault, is_too_slow, pause_seconds
from agent.models.slot_state import Accepted, Fate, Refusal, SlotState
from agent.models.store import Store
from agent.wire import Loaded
from agent.worker.memory import decide_blame
from tests.models.line import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = Accepted("m", 1, 976, 176, "passed", 10.0, 10.0, 1, "m.onnx")


def a_state(*names: str, keep: int = 3) -> SlotState:
    """Give the state after these models became active in turn; versions count from 1."""
    state = SlotState()
    for number, name in enumerate(names, start=1):
        accepted = replace(GOOD, version=number, file=f"{name}.onnx")
        state = slot_state.activate(state, name, accepted, on_probation=False, keep=keep)
    return state


def test_the_store_keeps_as_many_models_as_configured_the_newest() -> None:
    """The active and the previous one are always among them."""
    state = a_state("a", "b", "c", "d", keep=2)
    assert (state.active, state.previous, list(state.accepted)) == ("d", "c", ["c", "d"])
    assert state.highest_version == 4


def test_going_back_twice_reaches_the_model_before_and_the_one_before_that() -> None:
    """Each step withdraws one, whose version holds nothing off any more."""
    refusal = Refusal("withdrawn", "c", "operator", "", "c.onnx", 5)
    state = slot_state.go_back(a_state("a", "b", "c"), "b", 9, "operator", refusal)
    assert (state.active, state.previous, list(state.refused)) == ("b", "a", ["c"])
    state = slot_state.go_back(state, "a", 9, "operator", replace(refusal, sha256="b"))
    assert (state.active, state.previous, state.highest_version) == ("a", "", 1)


def test_a_damaged_model_is_not_withdrawn_and_its_file_is_looked_at_again() -> None:
    """Only the agent's copy is at fault."""
    state = slot_state.go_back(a_state("a", "b"), "a", 9, "store_damaged", None)
    assert (state.active, state.refused) == ("a", {})
    assert [(entry.sha256, entry.kind) for entry in state.unwritten] == [("b", Fate.FORGOTTEN)]


def test_only_the_newest_refusals_are_kept() -> None:
    """A pusher cannot make the slot's file grow for ever."""
    state = SlotState()
    for number in range(250):
        state = slot_state.refuse(state, str(number), Refusal("rejected", "", "r", "d", "f", number))
    assert list(state.refused) == [str(number) for number in range(150, 250)]


def test_a_slots_state_survives_its_file_and_its_ledger(tmp_path: Path) -> None:
    """Written and read again it is the same; made out of the ledger's rows it decides the same."""
    store = Store(tmp_path)
    (tmp_path / "slots").mkdir()
    state = slot_state.refuse(a_state("a", "b"), "x", Refusal("rejected", "x", "r", "d", "f", 1))
    store.save("default", state)
    assert store.load("default").state == state
    ledger = open_ledger(tmp_path / "ledger.db")
    facts = {name: getattr(GOOD, name) for name in ("height", "width", "golden", "run_ms", "cpu_ms")}
    records = [ModelRecord(name, name, "accepted", f"{name}.onnx", "m", number + 1, facts=facts)
               for number, name in enumerate("ab")]  # fmt: skip
    records.append(ModelRecord("x", "x", "rejected", "f", reason="r", detail="d"))
    ledger.models.write(Changes("default", {"a": "previous", "b": "active"}, tuple(records)))
    rebuilt = rebuild(ledger.models.rows("default"))
    ledger.database.close()
    assert (rebuilt.active, rebuilt.previous, rebuilt.highest_version) == ("b", "a", 2)
    assert (list(rebuilt.accepted), list(rebuilt.refused)) == (["a", "b"], ["x"])


def test_nothing_is_swept_while_one_slots_wishes_are_unknown(tmp_path: Path) -> None:
    """A damaged slot file must not cost a model."""
    store = Store(tmp_path)
    (tmp_path / "slots").mkdir()
    store.save("default", a_state("a"))
    (tmp_path / "slots" / "side.json").write_text("{")
    for name in "ab":
        store.model_path(name).write_bytes(b"")
    assert store.sweep() == []
    store.save("side", a_state("b"))
    store.model_path("c").write_bytes(b"")
    assert store.sweep() == ["c"]


def test_a_candidate_gets_its_name_before_a_slot_file_names_it(tmp_path: Path) -> None:
    """Whatever a slot's file names is there; a box that cannot rename says so and has changed nothing."""
    store = Store(tmp_path)
    (tmp_path / "slots").mkdir()
    with pytest.raises(Retry) as caught:
        store.accept("default", "a", a_state("a"), is_candidate=True)
    assert caught.value.blame is Blame.BOX
    assert store.load("default").state == SlotState()
    store.candidate_path("default").write_bytes(b"model")
    store.accept("default", "a", a_state("a"), is_candidate=True)
    assert store.model_path("a").read_bytes() == b"model"


@pytest.mark.parametrize(
    "changes",
    [
        {"active": 5},
        {"active": "../../x"},
        {"previous": "f" * 64},
        {"version_floor": 1 << 80},
        {"tellings": -1},
        {"probation_counts": {"judged": "many"}},
        {"accepted": []},
        {"refused": {"a": 1}},
    ],
)
def test_a_slots_file_that_contradicts_itself_is_a_damaged_one(tmp_path: Path, changes: dict[str, object]) -> None:
    """It is JSON of the right keys: later it would end the service at each start, instead of being made anew once."""
    store = Store(tmp_path)
    (tmp_path / "slots").mkdir()
    store.save("default", a_state("a"))
    assert not store.load("default").problem
    file = tmp_path / "slots" / "default.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    assert store.load("default").problem
    file.write_text("[" * 200_000)
    assert store.load("default").problem


@pytest.mark.parametrize(
    ("found_ms", "before_ms", "too_slow"),
    [(100.0, 10.0, True), (49.0, 10.0, False), (100.0, 0.0, False), (19.0, 1.0, False), (21.0, 1.0, True)],
)
def test_slow_is_what_somebody_waits_for(found_ms: float, before_ms: float, too_slow: bool) -> None:
    """Five times; a few milliseconds are noise, and without a comparison nothing is slow."""
    assert is_too_slow(found_ms, before_ms, 5.0) is too_slow


def test_faults_of_the_box_stay_faults_of_the_box() -> None:
    """Only those that a model may be behind change sides, and only at the third time."""
    for reason in (Reason.NO_MEMORY, Reason.NO_SPACE, Reason.IO_ERROR):
        assert decide_box_fault(Retry(reason, "", Blame.BOX), 1000) is None
    killed = Retry(Reason.KILLED, "", Blame.BOX)
    assert decide_box_fault(killed, 2) is None
    assert isinstance(decide_box_fault(killed, 3), Reject)
    starved = decide_box_fault(Retry(Reason.MODEL_TRIAL_TIMEOUT, "", Blame.BOX), 3)
    assert starved is not None
    assert starved.reason is Reason.MODEL_TRIAL_TIMEOUT
    assert [pause_seconds(times) for times in (1, 2, 3, 10, 1000)] == [10, 20, 40, 600, 600]


@pytest.mark.parametrize(
    ("labelled", "active_version", "refused"),
    [(False, 1, True), (False, 0, False), (False, None, False), (True, 1, False)],
)
def test_a_file_that_states_no_version_displaces_none_that_does(
    labelled: bool, active_version: int | None, refused: bool
) -> None:
    """It goes in where nothing is active, or only its like."""
    loaded = Loaded(labelled, "", 0, 976, 176, "none", 0.0, None, 1.0, 1.0, 1.0)
    active = None if active_version is None else replace(GOOD, version=active_version)
    if not refused:
        check_states_a_version(loaded, None, active)
        return
    with pytest.raises(Reject, match="states no version"):
        check_states_a_version(loaded, None, active)


@pytest.mark.parametrize(
    ("used_kib", "box_kib", "blamed"),
    [
        (100, 5000, Reason.MODEL_NEEDS_TOO_MUCH_MEMORY),
        (100, 500, Reason.NO_MEMORY),
        (990, 20, Reason.MODEL_NEEDS_TOO_MUCH_MEMORY),
    ],
)
def test_memory_is_the_models_matter_only_where_the_box_had_enough(used_kib: int, box_kib: int, blamed: Reason) -> None:
    """The limit was 1000 KiB."""
    found = decide_blame("load", limit_kib=1000, used_kib=used_kib, box_kib=box_kib, said="bad_alloc")
    assert found.reason is blamed
    assert isinstance(found, Retry) == (blamed is Reason.NO_MEMORY)


LIMITS = Probation(strips=20, max_faults=1, max_latency_ratio=5.0, max_anomalous_rate=0.5)


@pytest.mark.parametrize(
    ("counted", "verdict"),
    [
        (Counted(), False),
        (Counted(judged=19, inference_ms=(1.0,) * 19), False),
        (Counted(judged=20, inference_ms=(1.0,) * 20), True),
        (Counted(judged=19, faults=1, inference_ms=(1.0,) * 19), True),
        (Counted(faults=1), False),
        (Counted(faults=2), Reason.PROBATION_FAULTS),
        (Counted(judged=9, anomalous=9), False),
        (Counted(judged=10, anomalous=5), False),
        (Counted(judged=10, anomalous=6), Reason.PROBATION_ANOMALOUS_RATE),
        (Counted(judged=10, inference_ms=(51.0,) * 10), Reason.PROBATION_LATENCY),
        (Counted(judged=10, inference_ms=(49.0,) * 10), False),
        (Counted(judged=10, inference_ms=(51.0,) * 4 + (1.0,) * 6), False),
    ],
)
def test_probation_is_a_table(counted: Counted, verdict: bool | Reason) -> None:
    """The model before it took 10 ms; rates and medians count from ten strips on."""
    found = judge_probation(counted, LIMITS, 10.0)
    assert (found.reason if isinstance(found, Failing) else found) == verdict


def test_what_probation_has_counted_survives_a_restart() -> None:
    """Times are measured anew; strips and faults are not forgotten."""
    counted = Counted(judged=7, anomalous=3, faults=1, last_fault="x", inference_ms=(1.0,))
    again = Counted.from_counts(counted.to_counts())
    assert (again.judged, again.anomalous, again.faults) == (7, 3, 1)


def _explained() -> Iterator[str]:
    yield from re.findall(r"^### `(\w+)`$", (DOCS / "reasons.md").read_text(), re.MULTILINE)


def test_every_reason_is_explained_once() -> None:
    """Strips' and models' reasons alike."""
    explained = list(_explained())
    assert sorted(explained) == sorted(set(explained)) == sorted(Reason)


class _Bell(threading.Event):
    """Notes for how long it was to be waited for, and does not wait."""

    waits: float | None = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once."""
        self.waits = timeout
        return True


def test_an_inbox_in_which_nothing_settles_is_looked_at_once_in_a_settle_time(tmp_path: Path) -> None:
    """An idle box rests; while a file is on its way there are four looks."""
    now = 0.0
    models, dealt = ModelsSection(settle_seconds=1.0), DealtWith(tmp_path / "default.dealt")
    inbox = Arrivals(tmp_path, models, tmp_path / "copy", dealt, Postponed(), clock=lambda: now, arrived=lambda: None)
    inbox.bell = bell = _Bell()
    waits: list[float] = []

    def step() -> None:
        nonlocal now
        inbox.step(60.0)
        assert bell.waits is not None
        waits.append(bell.waits)
        now += bell.waits

    step()
    (tmp_path / "a.onnx").touch()
    while inbox.take() is None:
        step()
    step()
    assert waits == [1.0, *(0.25,) * 4, NEXT_FILE_SECONDS, 1.0]
