"""Good models go live by themselves: versions, names, keys, rollbacks, slots, and what an operator asks for."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from tests.helpers.bad_models import never_loads
from tests.helpers.box import unique_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import Signer, make_manifest, push, put, put_manifest
from tests.models.line import Line, Plant, check_results, model_events, model_state, wait_for_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.broker import Broker


def good(version: int, salt: int = 0) -> Callable[[Path], str]:
    """Give the writer of a good model."""
    return lambda path: difference_model(path, version=version, salt=salt)


def bad(version: int, salt: int = 0) -> Callable[[Path], str]:
    """Give the writer of a model that does not reproduce its golden strip."""
    return lambda path: difference_model(path, version=version, salt=salt, golden_shift=0.01)


def signing_box(folder: Path, port: int, *signers: Signer, **models: object) -> Plant:
    """Make a box that takes signed models only."""
    folder.mkdir()
    keys = [str(signer.write_public_key(folder / f"{signer.key_id}.pem")) for signer in signers]
    return Plant(folder, port, models={"require_signature": True, "trusted_keys": keys, **models})


def judging(subscriber: Subscriber) -> set[str]:
    """Name the models that have judged a strip."""
    return {result["model_sha256"] for result in unique_results(subscriber).values()}


def test_pushes_on_a_line_at_work_lose_nothing_and_every_result_names_its_model(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Each new version takes over between two strips; the store keeps as many as configured."""
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side"), models={"keep": 2}) as box:
        box.start()
        with Line(box, strips, 0.2) as line:
            pushed = []
            for version in range(1, 6):
                pushed.append(push(box.inbox / f"v{version}.onnx", good(version)))
                box.wait_until_active(pushed[-1])
                wait_for(lambda sha256=pushed[-1]: sha256 in judging(subscriber), "it judges strips")  # type: ignore[misc]
        found = check_results(box, subscriber, line.names)
        in_turn = list(dict.fromkeys(result["model_sha256"] for result in found))
        assert in_turn == pushed
        assert [result["model_sha256"] for result in found] == sorted(
            (result["model_sha256"] for result in found), key=pushed.index
        )
        assert {path.stem for path in (box.state / "store").glob("*.onnx")} == set(pushed[-2:])
        wait_for(lambda: len(box.workers()) == 1, "the old workers have ended")
        told = "the last one is active"
        wait_for_state(subscriber, told, active_sha256=pushed[4], previous_sha256=pushed[3], golden="passed")
        wait_for(lambda: len(model_events(subscriber, "activated")) >= len(pushed), "all are told")
        assert [event["sha256"] for event in model_events(subscriber, "activated")] == pushed


def test_of_several_files_the_highest_version_wins_and_the_others_are_superseded(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """One that is refused makes room for the next; those behind the accepted one are not tried."""
    signer = Signer()
    box = signing_box(tmp_path / "box", broker.port, signer)
    push(box.inbox / "b7.onnx", good(7), signer, version=7)
    push(box.inbox / "a9.onnx", bad(9), signer, version=9)
    eight = push(box.inbox / "z8.onnx", good(8), signer, version=8)
    with box:
        box.start()
        box.wait_until_active(eight)
        wait_for(lambda: model_events(subscriber, "superseded"), "the older one is told")
        told = {(event["event"], event["file"]) for event in model_events(subscriber)}
        assert told == {("rejected", "a9.onnx"), ("activated", "z8.onnx"), ("superseded", "b7.onnx")}
        row = box.model("b7.onnx")
        assert row is not None
        assert row["state"] == "superseded"


def test_keys_are_changed_without_a_gap(tmp_path: Path, broker: Broker) -> None:
    """While the old and the new key are trusted, models of both are taken."""
    old, new = Signer(), Signer()
    with signing_box(tmp_path / "box", broker.port, old, new) as box:
        box.start()
        box.wait_until_active(push(box.inbox / "1.onnx", good(1), old, version=1))
        box.wait_until_active(push(box.inbox / "2.onnx", good(2), new, version=2))


def test_only_a_signed_rollback_goes_below_the_highest_version(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """After it the highest version that was ever accepted still counts."""
    signer = Signer()
    with signing_box(tmp_path / "box", broker.port, signer) as box:
        box.start()
        box.wait_until_active(push(box.inbox / "5.onnx", good(5), signer, version=5))
        push(box.inbox / "3.onnx", good(3), signer, version=3)
        wait_for(lambda: model_state(subscriber).get("last_refused_file") == "3.onnx", "3 is refused")
        path = put(box.inbox / "3-again.onnx", good(3))
        manifest = make_manifest(path, version=3, rollback=True)
        put_manifest(path, manifest, signer)
        box.wait_until_active(manifest.sha256)
        push(box.inbox / "4.onnx", good(4), signer, version=4)
        wait_for(lambda: model_state(subscriber)["last_refused_file"] == "4.onnx", "4 is refused")
        assert model_state(subscriber)["last_refused_reason"] == "version_too_low"
        assert box.active() == manifest.sha256
        box.wait_until_active(push(box.inbox / "6.onnx", good(6), signer, version=6))


def test_an_unsigned_rollback_is_none(tmp_path: Path, broker: Broker, subscriber: Subscriber) -> None:
    """Where signatures are not required, a manifest alone gives nobody the right to go back."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        five = push(box.inbox / "5.onnx", good(5))
        box.wait_until_active(five)
        path = box.inbox / "3.onnx"
        put(box.folder / "3.onnx", good(3))
        put_manifest(path, make_manifest(box.folder / "3.onnx", version=3, rollback=True), None)
        put(path, good(3))
        wait_for(lambda: model_state(subscriber).get("last_refused_reason") == "version_too_low", "3 is refused")
        assert box.active() == five


def test_a_file_without_metadata_works_in_the_scale_that_it_takes(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Nobody has to configure anything. It has no golden strip, and the status says so."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        sha256 = push(box.inbox / "m.onnx", lambda path: difference_model(path, version=None, scale="gray8"))
        box.wait_until_active(sha256)
        with Line(box, strips, 0.05) as line:
            wait_for(lambda: len(line.names) >= 6, "some strips")
        found = check_results(box, subscriber, line.names)
        assert {result["file"] for result in found if result["verdict"] == "anomalous"} == set(line.names[::3])
        wait_for_state(subscriber, "there is no golden strip", active_sha256=sha256, golden="none")
        assert "golden strip none" in box.cli("status").stdout


def test_a_file_without_metadata_never_takes_the_place_of_a_version_by_itself(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """Nobody can say that it is newer; an operator may."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        one = push(box.inbox / "1.onnx", good(1))
        box.wait_until_active(one)
        unlabelled = push(box.inbox / "m.onnx", lambda path: difference_model(path, version=None))
        wait_for(lambda: model_state(subscriber).get("last_refused_file") == "m.onnx", "it is refused")
        assert model_state(subscriber)["last_refused_reason"] == "version_too_low"
        assert box.active() == one
        assert box.cli("models", "activate", unlabelled[:10]).returncode == 0
        box.wait_until_active(unlabelled)


def test_an_operator_goes_back_and_forth(tmp_path: Path, broker: Broker, subscriber: Subscriber) -> None:
    """`models rollback` withdraws the active model; `models activate` takes a withdrawn or refused one all the same."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        one = push(box.inbox / "1.onnx", good(1))
        box.wait_until_active(one)
        assert box.cli("models", "rollback").returncode == 1
        two = push(box.inbox / "2.onnx", good(2))
        box.wait_until_active(two)
        assert box.cli("models", "rollback").returncode == 0
        box.wait_until_active(one)
        wait_for(lambda: model_events(subscriber, "rolled_back"), "it is told")
        (event,) = model_events(subscriber, "rolled_back")
        assert (event["sha256"], event["reason"], event["active_sha256"]) == (two, "operator", one)
        assert event["return_detail"]
        row = box.model(two)
        assert row is not None
        assert row["state"] == "withdrawn"
        push(box.inbox / "2b.onnx", good(2))
        wait_for(lambda: model_events(subscriber, "unchanged"), "the withdrawn bytes are not taken again")
        assert box.active() == one
        assert box.cli("models", "activate", two[:10]).returncode == 0
        box.wait_until_active(two)
        assert box.cli("models", "activate", "00").returncode == 1
        refused = push(box.inbox / "bad.onnx", bad(3))
        wait_for(lambda: model_state(subscriber)["last_refused_file"] == "bad.onnx", "it is refused")
        assert box.cli("models", "activate", refused[:10]).returncode == 0
        wait_for(lambda: len(model_events(subscriber, "rejected")) == 2, "it goes through the trial, and fails again")
        assert box.active() == two
        lower = push(box.inbox / "low.onnx", good(1, salt=5))
        wait_for(lambda: model_state(subscriber)["last_refused_file"] == "low.onnx", "it is refused")
        assert box.cli("models", "activate", lower[:10]).returncode == 0
        box.wait_until_active(lower)


def test_an_operator_cannot_activate_what_nobody_signed(tmp_path: Path, broker: Broker, subscriber: Subscriber) -> None:
    """Commands come over the network as well: they do not replace a signature."""
    signer = Signer()
    with signing_box(tmp_path / "box", broker.port, signer) as box:
        box.start()
        one = push(box.inbox / "1.onnx", good(1), signer, version=1)
        box.wait_until_active(one)
        unsigned = push(box.inbox / "2.onnx", good(2))
        wait_for(lambda: model_state(subscriber).get("last_refused_reason") == "manifest_missing", "it is refused")
        assert box.cli("models", "activate", unsigned).returncode == 0
        wait_for(lambda: len(model_events(subscriber, "rejected")) == 2, "it is refused again")
        assert {event["reason"] for event in model_events(subscriber, "rejected")} == {"manifest_missing"}
        assert box.active() == one


def test_with_stop_first_there_is_never_more_than_one_worker(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Strips wait during a trial, and after a refusal the active model comes back."""
    with Plant(tmp_path / "box", broker.port, models={"switch": "stop_first"}) as box:
        box.start()
        with Line(box, strips, 0.1) as line:
            one = push(box.inbox / "1.onnx", good(1))
            box.wait_until_active(one)
            wait_for(lambda: one in judging(subscriber), "it judges strips")
            push(box.inbox / "2.onnx", bad(2))
            most = 1

            def refused() -> bool:
                nonlocal most
                most = max(most, len(box.workers()))
                return model_state(subscriber).get("last_refused_file") == "2.onnx"

            wait_for(refused, "it is refused")
            box.wait_until_active(one)
            three = push(box.inbox / "3.onnx", good(3))
            box.wait_until_active(three)
            wait_for(lambda: three in judging(subscriber), "it judges strips")
        assert most == 1
        found = check_results(box, subscriber, line.names)
        assert list(dict.fromkeys(result["model_sha256"] for result in found)) == [one, three]


def test_slots_have_inboxes_of_their_own_and_share_a_file_in_the_store(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """What one slot forgets the other may still need."""
    box = Plant(tmp_path / "box", broker.port, cameras=("top", "side"), models={"keep": 2})
    box.config["cameras"][1]["slot"] = "side"
    box.write_config()
    (box.inbox / "side").mkdir()
    with box:
        box.start()
        shared = push(box.inbox / "1.onnx", good(1))
        assert push(box.inbox / "side" / "1.onnx", good(1)) == shared
        wait_for(lambda: box.active() == box.active("side") == shared, "both slots have it")
        others = [push(box.inbox / f"{version}.onnx", good(version)) for version in (2,)]
        box.wait_until_active(others[-1])
        others.append(push(box.inbox / "3.onnx", good(3)))
        box.wait_until_active(others[-1])
        assert box.active("side") == shared
        assert {path.stem for path in (box.state / "store").glob("*.onnx")} == {shared, *others}
        with Line(box, strips, 0.05) as line:
            wait_for(lambda: len(line.names) >= 8, "some strips")
        found = check_results(box, subscriber, line.names)
        models = {result["camera"]: result["model_sha256"] for result in found}
        assert models == {"top": others[-1], "side": shared}


def test_a_box_that_cannot_try_a_model_tries_again(tmp_path: Path, broker: Broker, subscriber: Subscriber) -> None:
    """A full disk is not held against the file: nothing is decided until there is space."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        one = push(box.inbox / "1.onnx", good(1))
        box.wait_until_active(one)
        blocker = box.state / "store" / "slots" / "default.candidate"
        blocker.mkdir()  # the copy cannot be written
        (blocker / "x").touch()
        two = push(box.inbox / "2.onnx", good(2))
        wait_for(lambda: "slot_default_postponed" in box.ask("status")["health"]["alarms"], "the alarm")
        assert json.loads(box.cli("models", "list", "--json").stdout)["postponed"]["default"].keys() == {"2.onnx"}
        assert "2.onnx could not be tried" in box.cli("models", "list").stdout
        (blocker / "x").unlink()
        blocker.rmdir()
        box.wait_until_active(two)
        wait_for(lambda: "postponed" not in box.ask("status")["health"]["alarms"], "the alarm is over")
        assert not model_events(subscriber, "rejected")


def test_a_candidate_that_the_kernel_kills_is_the_models_fault_only_the_third_time(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """Memory that ran out may be anybody's; the active model's worker is not touched."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        one = push(box.inbox / "1.onnx", good(1))
        box.wait_until_active(one)
        active = box.ask("status")["workers"]["default"]["pid"]
        push(box.inbox / "2.onnx", never_loads)
        killed: set[int] = set()

        def candidates() -> list[int]:
            return [worker.pid for worker in box.workers() if worker.pid not in {active, *killed}]

        for _ in range(3):
            assert not model_events(subscriber, "rejected")
            wait_for(candidates, "a candidate is at work")
            (candidate,) = candidates()
            killed.add(candidate)
            os.kill(candidate, signal.SIGKILL)
        wait_for(lambda: model_events(subscriber, "rejected"), "it is refused")
        (event,) = model_events(subscriber, "rejected")
        assert event["reason"] == "model_needs_too_much_memory"
        status = box.ask("status")
        assert (status["workers"]["default"]["pid"], box.active()) == (active, one)
