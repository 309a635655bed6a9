"""What operators ask for, and versions: in the order asked, and nothing that is wrong stays for good."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli import show
from agent.cli.oneshot import known_before
from agent.clock import BUILT_MS
from agent.control.commands import handle
from agent.control.context import Context
from agent.errors import Reason, Reject
from agent.models import slot_state
from agent.models.rules import TEN_YEARS_SECONDS, check_plausible
from agent.models.slot_state import MAX_PLAUSIBLE_VERSION, SlotState
from agent.models.store import Store
from tests.models.bench import Bench, box_fault, fault, loaded
from tests.models.test_parts import GOOD, a_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def sha(content: bytes) -> str:
    """Name a model."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a bench with three models, the third active and trusted."""
    bench = Bench(tmp_path)
    for number, name in enumerate((b"one", b"two", b"three"), start=1):
        bench.push(f"{number}.onnx", name, loaded(model_id=name.decode(), version=number))
        bench.step()
    assert bench.active == "three"
    yield bench
    bench.journey.close()
    bench.ledger.database.close()


# In turn


def test_a_rollback_after_an_activation_takes_back_that_activation(bench: Bench) -> None:
    """Whoever asks for both at once means the model that is active in between."""
    assert bench.journey.requests.activate(sha(b"one")) == sha(b"one")
    assert bench.journey.requests.roll_back() == sha(b"three")
    bench.step(20)
    assert bench.active == "three"
    assert [refusal.sha256 for refusal in bench.journey.state.refused.values()] == [sha(b"one")]


def test_a_rollback_of_a_model_that_did_not_come_withdraws_no_other(bench: Bench) -> None:
    """The activation before it fails its trial; the good model stays."""
    bench.answers[b"one"] = [Reject(Reason.MODEL_CRASHED, "it crashed")]
    bench.journey.requests.activate(sha(b"one"))
    bench.journey.requests.roll_back()
    bench.step(20)
    assert bench.active == "three"
    assert "withdrawn" not in [refusal.kind for refusal in bench.journey.state.refused.values()]
    assert bench.states[-1].last_refused_reason == Reason.OPERATOR


def test_two_rollbacks_go_back_twice_and_a_third_has_nowhere_to_go(bench: Bench) -> None:
    """Each withdraws one."""
    assert bench.journey.requests.roll_back() == sha(b"two")
    assert bench.journey.requests.roll_back() == sha(b"one")
    with pytest.raises(LookupError):
        bench.journey.requests.roll_back()
    bench.step(30)
    assert bench.active == "one"
    assert {refusal.sha256 for refusal in bench.journey.state.refused.values()} == {sha(b"two"), sha(b"three")}


def test_a_file_is_never_both_superseded_and_to_be_tried_again(bench: Bench) -> None:
    """One that waits for the box and then stands behind an accepted one waits no longer."""
    bench.push("5.onnx", b"five", box_fault(Reason.NO_MEMORY))
    bench.step()
    assert list(bench.journey.postponed.describe()) == ["5.onnx"]
    bench.push("6.onnx", b"six", loaded(model_id="six", version=6))
    bench.step(20)
    assert bench.active == "six"
    assert "superseded 5.onnx" in bench.events()
    assert bench.journey.postponed.describe() == {}
    bench.now += 1000
    bench.step(20)
    assert bench.active == "six"


# Forgetting


def ask(bench: Bench, command: str, *, runs: bool, **arguments: str) -> dict[str, object]:
    """Ask as the command line does, of a service that runs or does not."""
    journeys = {"default": bench.journey} if runs else {}
    return handle(Context(bench.config, bench.ledger, journeys), {"command": command, **arguments}, "tester")


@pytest.mark.parametrize("runs", [True, False], ids=["while it runs", "while it does not"])
@pytest.mark.parametrize("withdrawn", [True, False], ids=["withdrawn", "refused"])
def test_a_refusal_is_taken_back(bench: Bench, tmp_path: Path, runs: bool, withdrawn: bool) -> None:
    """The file in the inbox is tried again by itself."""
    bench.push(
        "4.onnx", b"four", loaded(model_id="four", version=4) if withdrawn else Reject(Reason.MODEL_CRASHED, "no")
    )
    bench.step()
    if withdrawn:
        worker = bench.slot.current
        assert worker is not None
        for number in range(2):
            bench.journey.keeper.count(worker, fault(number))
        bench.step()
    assert bench.active == "three"
    bench.answers[b"four"] = [loaded(model_id="four", version=4)]
    if not runs:
        bench.journey.close()
    assert ask(bench, "models_forget", runs=runs, digest=sha(b"four")[:12])["sha256"] == sha(b"four")
    if not runs:
        bench.ledger.database.close()
        answers, bench = bench.answers, Bench(tmp_path)
        bench.answers = answers
    bench.step(20)
    assert bench.active == "four"
    assert bench.journey.state.refused == {}


def test_nothing_is_forgotten_of_the_active_model_or_of_one_that_nobody_knows(bench: Bench) -> None:
    """The answer says so."""
    for digest, said in ((sha(b"three"), "is active"), (sha(b"other"), "nothing was said")):
        answer = ask(bench, "models_forget", runs=True, digest=digest)
        assert not answer["ok"]
        assert said in str(answer["error"])


def test_verify_says_what_the_box_has_said_of_a_file_before(bench: Bench) -> None:
    """Refused, withdrawn, active now or before; nothing of one unknown or forgotten."""
    bench.push("bad.onnx", b"bad", Reject(Reason.MODEL_CRASHED, "it crashed"))
    bench.step()
    said = {"slot": "default", "kind": "rejected", "reason": Reason.MODEL_CRASHED, "detail": "it crashed"}
    assert known_before(bench.config, sha(b"bad")) == [said]
    assert [before["kind"] for before in known_before(bench.config, sha(b"three"))] == ["active"]
    assert [before["kind"] for before in known_before(bench.config, sha(b"one"))] == ["accepted"]
    assert known_before(bench.config, sha(b"unknown")) == []
    shown = show.verified({"file": "bad.onnx", "good": False, "reason": "r", "detail": "d", "before": [said]})
    assert "slot default: was rejected before (model_crashed: it crashed)" in shown
    (bench.inbox / "bad.onnx").unlink()
    bench.journey.requests.forget(sha(b"bad"))
    bench.step()
    assert known_before(bench.config, sha(b"bad")) == []


# Versions


@pytest.mark.parametrize(
    ("version", "plausible"),
    [
        (1, True),
        (20_261_128, True),
        (202_611_281_200, True),
        (BUILT_MS // 1000 + TEN_YEARS_SECONDS, True),
        (BUILT_MS // 1000 + TEN_YEARS_SECONDS + 1, False),
        (9_999_999_999, False),
        (MAX_PLAUSIBLE_VERSION, True),
        (MAX_PLAUSIBLE_VERSION + 1, False),
        (2**53 - 1, False),
    ],
)
@pytest.mark.parametrize("clock_ms", [0, BUILT_MS])
def test_a_version_far_ahead_is_implausible(version: int, plausible: bool, clock_ms: int) -> None:
    """Ten years for what looks like seconds; a clock that was never set is not believed."""
    if plausible:
        check_plausible(version, clock_ms)
        return
    with pytest.raises(Reject) as caught:
        check_plausible(version, clock_ms)
    assert caught.value.reason is Reason.VERSION_IMPLAUSIBLE


def test_an_implausible_version_is_refused_and_poisons_nothing(bench: Bench) -> None:
    """Neither by a push nor when an operator wants it all the same."""
    bench.push("9.onnx", b"nine", loaded(model_id="nine", version=2**53 - 1))
    bench.step()
    assert (bench.active, bench.states[-1].last_refused_reason) == ("three", Reason.VERSION_IMPLAUSIBLE)
    bench.journey.requests.activate(sha(b"nine"))
    bench.step(20)
    assert bench.active == "nine"
    bench.push("4.onnx", b"four", loaded(model_id="four", version=4))
    bench.step()
    assert bench.active == "four"


def test_a_withdrawn_model_does_not_hold_later_ones_off(bench: Bench) -> None:
    """The highest version is that of a model that nobody has withdrawn."""
    bench.push("900.onnx", b"900", loaded(model_id="900", version=900))
    bench.step()
    assert bench.active == "900"
    bench.journey.requests.roll_back()
    bench.step(20)
    bench.push("4.onnx", b"four", loaded(model_id="four", version=4))
    bench.step()
    assert bench.active == "four"


def test_a_withdrawn_model_keeps_its_name_and_version(bench: Bench) -> None:
    """In the list of models, and in the event that tells of its going."""
    bench.push("900.onnx", b"900", loaded(model_id="nine", version=900))
    bench.step()
    bench.journey.requests.roll_back()
    bench.step(20)
    with bench.ledger.database.reading() as db:
        (payload,) = db.execute("SELECT payload FROM outbox ORDER BY id DESC LIMIT 1").fetchone()
    event = json.loads(payload)
    assert (event["event"], event["model_id"], event["version"]) == ("rolled_back", "nine", 900)
    listed: Any = ask(bench, "models_list", runs=True)["models"]
    [row] = [row for row in listed if row["sha256"] == sha(b"900")]
    assert (row["state"], row["model_id"], row["version"]) == ("withdrawn", "nine", 900)


@pytest.mark.parametrize("runs", [True, False], ids=["while it runs", "while it does not"])
def test_an_operator_resets_the_highest_version(bench: Bench, tmp_path: Path, runs: bool) -> None:
    """Only the active model's counts from then on."""
    bench.push("900.onnx", b"900", loaded(model_id="900", version=900))
    bench.step()
    bench.journey.requests.activate(sha(b"three"))
    bench.step(20)
    assert bench.journey.state.highest_version == 900
    if not runs:
        bench.journey.close()
    assert ask(bench, "models_forget", runs=runs)["ok"]
    bench.step(1)
    state = Store(tmp_path / "state/store").load("default").state
    assert (state.highest_version, state.active) == (3, sha(b"three"))
    if runs:
        bench.push("4.onnx", b"four", loaded(model_id="four", version=4))
        bench.step()
        assert bench.active == "four"


def test_models_that_are_no_longer_kept_still_hold_older_ones_off() -> None:
    """Unless they were withdrawn; the store keeps only a few."""
    state = SlotState()
    for name, version in (("a", 9), ("b", 1), ("c", 2), ("d", 3)):
        facts = replace(GOOD, version=version)
        state = slot_state.activate(state, name, facts, on_probation=False, keep=2)
    assert (list(state.accepted), state.highest_version) == (["c", "d"], 9)
    assert slot_state.forget_highest_version(state).highest_version == 3
    assert a_state("a", "b", "c").highest_version == 3


@pytest.mark.parametrize(("highest", "floor"), [(900, 900), (1, 0), (2**53 - 1, 0)])
def test_the_highest_version_of_an_earlier_release_is_kept_unless_it_is_implausible(
    tmp_path: Path, highest: int, floor: int
) -> None:
    """That one remembered only the number."""
    store = Store(tmp_path)
    (tmp_path / "slots").mkdir()
    store.save("default", a_state("a"))
    path = tmp_path / "slots/default.json"
    fields = json.loads(path.read_bytes())
    del fields["version_floor"]
    path.write_text(json.dumps(fields | {"highest_version": highest}))
    assert store.load("default").state.version_floor == floor


# Names


def test_results_name_a_model_as_its_manifest_does_where_the_file_itself_does_not(bench: Bench) -> None:
    """`state/model` and a strip's result agree, after a restart too."""
    bench.answers[b"plain"] = [loaded(labelled=False, model_id="", version=0)]
    (bench.inbox / "plain.onnx").write_bytes(b"plain")
    inner = {
        "sha256": sha(b"plain"), "size": 5, "model_id": "line7", "version": 42, "slot": "default",
        "created": "2026-11-28T00:00:00Z", "rollback": False,
    }  # fmt: skip
    outer = {"manifest": json.dumps(inner), "signature": "", "key_id": ""}
    (bench.inbox / "plain.onnx.manifest.json").write_text(json.dumps(outer))
    bench.step(20)
    assert (bench.states[-1].active_model_id, bench.states[-1].active_version) == ("line7", 42)
    worker = bench.slot.current
    assert worker is not None
    assert worker.facts is not None
    assert (worker.facts.model_id, worker.facts.version) == ("line7", 42)
    bench.slot.lose(worker)
    bench.step()
    reloaded = bench.slot.current
    assert reloaded not in (None, worker)
    assert reloaded is not None
    assert reloaded.facts is not None
    assert (reloaded.facts.model_id, reloaded.facts.version) == ("line7", 42)


def test_the_state_of_a_slot_says_whose_it_is_and_when(bench: Bench) -> None:
    """As every other message does."""
    state = bench.states[-1]
    assert state.agent == bench.config.agent.name
    assert abs(state.ts_ms - bench.journey.state.accepted[sha(b"three")].since_ms) < 600_000
