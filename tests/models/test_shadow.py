"""A slot's shadow on the model's side: how a model becomes it, stays it, and is no longer it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from agent.cli.shadows import shown
from agent.contract.manifest import Manifest, format_manifest, parse_manifest_file
from agent.control.commands import handle
from agent.control.context import Context
from agent.errors import Reason, Reject
from agent.ledger import open_ledger
from agent.models.rebuilding import dealt_before, rebuild
from agent.models.store import Store
from tests.helpers.pushing import make_manifest, put_manifest
from tests.models.bench import Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def sha(content: bytes) -> str:
    """Name a model."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a bench with two models, the second active and trusted."""
    bench = Bench(tmp_path)
    for number, name in enumerate((b"one", b"two"), start=1):
        bench.push(f"{number}.onnx", name, loaded(model_id=name.decode(), version=number))
        bench.step()
    assert bench.active == "two"
    yield bench
    bench.journey.close()
    bench.ledger.database.close()


def push_shadow(bench: Bench, name: str, content: bytes, version: int, answer: object = None) -> None:
    """Push a model whose manifest asks for a shadow."""
    good = loaded(model_id=content.decode(), version=version)
    bench.push(name, content, answer or good)  # type: ignore[arg-type] # what the worker answers
    model = bench.inbox / name
    put_manifest(model, make_manifest(model, version=version, model_id=content.decode(), shadow=True), None)


def shadow_of(bench: Bench) -> str:
    """Give the digest of the shadow; "" without one."""
    shadow = bench.journey.state.shadow
    return shadow.sha256 if shadow else ""


def test_a_manifest_that_asks_for_a_shadow_takes_nobodys_place(bench: Bench) -> None:
    """The file is tried, kept and told of; the active model, the versions and the files behind it are as before."""
    push_shadow(bench, "9.onnx", b"nine", 9)
    bench.push("3.onnx", b"three", loaded(model_id="three", version=3))
    bench.step(20)
    assert (shadow_of(bench), bench.active) == (sha(b"nine"), "three")
    assert bench.events()[2:] == ["shadowed 9.onnx", "activated 3.onnx"]
    assert bench.journey.state.highest_version == 3
    assert bench.journey.record._store.model_path(sha(b"nine")).read_bytes() == b"nine"
    rows = bench.ledger.models.rows("default")
    assert rows[sha(b"nine")]["state"] == "shadow"
    assert bench.workers[2].closed


def test_a_shadow_is_refused_like_any_candidate(bench: Bench) -> None:
    """A model that fails its trial, or an older version, is no shadow."""
    push_shadow(bench, "3.onnx", b"three", 3, Reject(Reason.GOLDEN_MISMATCH, "it differs"))
    bench.step()
    push_shadow(bench, "1b.onnx", b"older", 1)
    bench.step()
    assert shadow_of(bench) == ""
    assert bench.events()[2:] == ["rejected 3.onnx", "rejected 1b.onnx"]


def test_a_shadow_never_becomes_active_by_itself(bench: Bench) -> None:
    """Not without its manifest, not under another name; a manifest that asks for no shadow promotes it."""
    push_shadow(bench, "3.onnx", b"three", 3)
    bench.step()
    (bench.inbox / "3.onnx.manifest.json").unlink()
    bench.step()
    bench.push("copy.onnx", b"three", loaded(model_id="three", version=3))
    bench.step()
    assert (shadow_of(bench), bench.active) == (sha(b"three"), "two")
    model = bench.inbox / "copy.onnx"
    put_manifest(model, make_manifest(model, version=3, model_id="three"), None)
    bench.step()
    assert (shadow_of(bench), bench.active) == ("", "three")
    assert bench.events()[-1] == "activated copy.onnx"


def test_what_an_operator_activates_is_no_shadow_any_more(bench: Bench) -> None:
    """It goes through the trial; one that fails there stays the shadow."""
    push_shadow(bench, "3.onnx", b"three", 3)
    bench.step()
    bench.answers[b"three"] = [Reject(Reason.MODEL_CRASHED, "it crashed")]
    assert bench.journey.requests.activate(sha(b"three")[:9]) == sha(b"three")
    bench.step(20)
    assert (shadow_of(bench), bench.active) == (sha(b"three"), "two")
    bench.answers[b"three"] = [loaded(model_id="three", version=3)]
    bench.journey.requests.activate(sha(b"three"))
    bench.step(20)
    assert (shadow_of(bench), bench.active) == ("", "three")


def test_the_shadows_file_outlives_what_is_kept(bench: Bench) -> None:
    """`models.keep` removes other models, and the shadow's own file only once it is taken away."""
    push_shadow(bench, "3.onnx", b"three", 3)
    bench.step()
    for number in range(4, 9):
        bench.push(f"{number}.onnx", b"model %d" % number, loaded(version=number))
        bench.step()
    store = bench.journey.record._store
    kept = {path.stem for path in store.folder.glob("*.onnx")}
    assert kept == {sha(b"three"), *(sha(b"model %d" % number) for number in (6, 7, 8))}
    assert bench.journey.requests.end_shadow() == sha(b"three")
    bench.step()
    assert not store.model_path(sha(b"three")).exists()
    assert bench.ledger.models.rows("default")[sha(b"three")]["state"] == "was_shadow"
    with pytest.raises(LookupError, match="no shadow"):
        bench.journey.requests.end_shadow()


def test_an_earlier_model_as_shadow_can_come_back_as_the_active_one(bench: Bench) -> None:
    """Chosen by the beginning of its digest; a rollback to it ends its being a shadow."""
    assert bench.journey.requests.shadow(sha(b"one")[:10]) == sha(b"one")
    bench.step()
    assert shadow_of(bench) == sha(b"one")
    assert bench.ledger.models.rows("default")[sha(b"one")]["state"] == "previous"
    bench.journey.requests.roll_back()
    bench.step(20)
    assert (shadow_of(bench), bench.active) == ("", "one")


def test_what_is_no_shadow_is_refused_with_words(bench: Bench) -> None:
    """A digest that is not in the store, the active one, and one that is not clear."""
    ask = bench.journey.requests.shadow
    with pytest.raises(LookupError, match="no model in the store has a digest that begins with 'ffff'"):
        ask("ffff")
    with pytest.raises(LookupError, match="is active"):
        ask(sha(b"two"))
    with pytest.raises(LookupError, match="more than one model"):
        ask("")


def test_why_a_shadow_was_switched_off_survives_a_restart(bench: Bench, tmp_path: Path) -> None:
    """In the slot's file; chosen again it begins anew."""
    push_shadow(bench, "3.onnx", b"three", 3)
    bench.step()
    bench.journey.requests.end_shadow(sha(b"three"), Reason.WORKER_TIMEOUT, "3 times")
    bench.step()
    state = Store(tmp_path / "state" / "store").load("default").state
    assert state == bench.journey.state
    assert state.shadow is not None
    assert (state.shadow.reason, state.shadow.detail) == ("worker_timeout", "3 times")
    bench.journey.requests.end_shadow(sha(b"two"), Reason.WORKER_TIMEOUT, "said of one that it is not any more")
    bench.journey.requests.shadow(sha(b"three"))
    bench.step()
    assert bench.journey.state.shadow is not None
    assert bench.journey.state.shadow.reason == ""


def test_the_ledger_knows_the_shadow_of_a_slot_whose_file_is_damaged(bench: Bench) -> None:
    """And that its file has been dealt with; one that was a shadow once was never accepted."""
    push_shadow(bench, "7.onnx", b"seven", 7)
    bench.step()
    push_shadow(bench, "8.onnx", b"eight", 8)
    bench.step()
    rows = bench.ledger.models.rows("default")
    state = rebuild(rows)
    assert state.shadow is not None
    assert (state.shadow.sha256, state.active) == (sha(b"eight"), sha(b"two"))
    assert state.highest_version == 2
    assert {entry.kind for entry in dealt_before(rows) if entry.sha256 in (sha(b"seven"), sha(b"eight"))} == {"shadow"}


def test_a_new_ledger_learns_of_the_shadow(bench: Bench, tmp_path: Path) -> None:
    """As of all models that are kept."""
    push_shadow(bench, "3.onnx", b"three", 3)
    bench.step()
    bench.ledger.database.close()
    (tmp_path / "state" / "ledger.db").unlink()
    again = Bench(tmp_path)
    again.answers = bench.answers
    again.step()
    assert again.ledger.models.rows("default")[sha(b"three")]["state"] == "shadow"
    again.ledger.database.close()
    bench.ledger = open_ledger(tmp_path / "other.db")


def test_a_trial_that_needs_all_memory_waits_for_the_shadow_to_go(tmp_path: Path) -> None:
    """With `stop_first` no candidate is started while the shadow's worker is there."""
    bench = Bench(tmp_path, switch="stop_first")
    bench.push("1.onnx", b"one", loaded(model_id="one", version=1))
    bench.step()
    bench.slot.shadow_is_there = True
    bench.push("2.onnx", b"two", loaded(model_id="two", version=2))
    bench.step()
    assert bench.journey.trial_goes_on
    assert (len(bench.workers), bench.slot.current is not None) == (1, True)
    bench.slot.shadow_is_there = False
    bench.step()
    assert bench.active == "two"
    bench.journey.close()
    bench.ledger.database.close()


def test_commands_answer_with_and_without_a_service(bench: Bench) -> None:
    """Both ways the same words; without a service the choice is written down for its start."""
    live = Context(bench.config, bench.ledger, {"default": bench.journey})
    offline = Context(bench.config, bench.ledger, {})
    assert handle(live, {"command": "shadow"}, "me")["shadow"]["sha256"] == ""
    for context in (live, offline):
        assert "is active" in handle(context, {"command": "set_shadow", "digest": sha(b"two")}, "me")["error"]
        assert "has no shadow" in handle(context, {"command": "set_shadow", "digest": ""}, "me")["error"]
        assert "no slot" in handle(context, {"command": "set_shadow", "slot": "x"}, "me")["error"]
    done = handle(offline, {"command": "set_shadow", "digest": sha(b"one")[:8]}, "me")
    assert done == {"ok": True, "slot": "default", "sha256": sha(b"one"), "on": True}
    told = handle(offline, {"command": "shadow"}, "me")
    assert (told["shadow"]["model_id"], told["active"]["model_id"], told["worst"]) == ("one", "two", [])
    assert handle(offline, {"command": "status"}, "me")["models"]["default"]["shadow_sha256"] == sha(b"one")
    assert handle(offline, {"command": "set_shadow"}, "me")["on"] is False


def test_a_withdrawn_model_can_be_the_shadow_as_the_refusal_says(bench: Bench) -> None:
    """Its file is not in the store any more, and a push alone is not taken: what was said against it goes first."""
    bench.journey.requests.roll_back()
    bench.step(20)
    assert bench.active == "one"
    with pytest.raises(
        LookupError, match=rf"was withdrawn \(operator\): `strip-agent models forget {sha(b'two')[:12]}`"
    ):
        bench.journey.requests.shadow(sha(b"two")[:8], events=False)
    bench.journey.requests.forget(sha(b"two"))
    push_shadow(bench, "2.onnx", b"two", 2)
    bench.step(20)
    assert (bench.active, shadow_of(bench)) == ("one", sha(b"two"))


def test_a_provider_that_cannot_compute_a_shadow_is_named(bench: Bench) -> None:
    """As it is for the active model: the scores are right, the time says nothing of that provider."""
    bench.journey.requests.shadow(sha(b"one"), events=False)
    bench.step()
    context = Context(bench.config, bench.ledger, {"default": bench.journey})
    refused = "cuda: onnxruntime here has no CUDAExecutionProvider"
    for loaded_by, provider, why in ((None, "", ""), (loaded(provider_refused=refused), "cpu", refused)):
        bench.slot.shadow_facts = loaded_by
        told = handle(context, {"command": "shadow"}, "me")
        assert (told["shadow"]["provider"], told["shadow"]["provider_refused"]) == (provider, why)
        assert ("ON THE CPU, as it cannot be computed by cuda: " in shown(told)) is bool(why)
        assert ("nothing compared yet; its model is not loaded; 0 more wait" in shown(told)) is not bool(why)


def test_manifests_without_a_shadow_are_what_they_were() -> None:
    """Earlier boxes refuse a key that they do not know, so it stands there only when it is wanted."""
    plain = Manifest("a" * 64, 5, "m", 1, "default", "2026-11-22T00:00:00Z", rollback=False)
    assert "shadow" not in json.loads(format_manifest(plain))
    for value, good in ((True, True), (False, True), ("yes", False), (1, False)):
        text = json.dumps(json.loads(format_manifest(plain)) | {"shadow": value})
        content = json.dumps({"manifest": text, "signature": "", "key_id": ""}).encode()
        if good:
            assert parse_manifest_file(content).manifest.shadow is value
        else:
            with pytest.raises(Reject, match="shadow is not of type bool"):
                parse_manifest_file(content)
