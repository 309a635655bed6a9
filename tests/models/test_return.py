"""A model that turns bad goes back by itself, and a box that starts finds a model that was accepted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.bad_models import kills_on_bright, nan_on_bright
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import push
from tests.helpers.strips import encode, make_pixels
from tests.models.launch import POINTS
from tests.models.line import Line, Plant, check_results, model_events, model_state

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.broker import Broker, Subscriber


@pytest.fixture(scope="session")
def bright_strips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Make good strips with one very bright pixel in the target."""
    folder = tmp_path_factory.mktemp("bright")
    paths = [folder / f"{number}.tif" for number in range(3)]
    for number, path in enumerate(paths):
        pixels = make_pixels(seed=number)
        pixels[0, 100, 50] = 250
        path.write_bytes(encode(pixels))
    return paths


def two_models(box: Plant, second: Any) -> tuple[str, str]:
    """Start a box and push a good model and then the one that `second` writes."""
    box.start()
    one = push(box.inbox / "1.onnx", lambda path: difference_model(path, version=1))
    box.wait_until_active(one)
    two = push(box.inbox / "2.onnx", second)
    box.wait_until_active(two)
    assert box.slot()["on_probation"]
    return one, two


def check_return(box: Plant, subscriber: Subscriber, bad: str, good: str, reason: str) -> dict[str, Any]:
    """See that the good model is back, and that both why and how are recorded everywhere."""
    box.wait_until_active(good)
    wait_for(lambda: model_events(subscriber, "rolled_back"), "it is told")
    (event,) = model_events(subscriber, "rolled_back")
    assert (event["sha256"], event["reason"], event["active_sha256"]) == (bad, reason, good)
    assert event["detail"]
    assert "scores again" in event["return_detail"]
    row = box.model(bad)
    assert row is not None
    assert (row["state"], row["reason"], row["facts"]["return_detail"]) == ("withdrawn", reason, event["return_detail"])
    expected = {"active_sha256": good, "last_refused_sha256": bad, "on_probation": False}
    wait_for(lambda: expected.items() <= model_state(subscriber).items(), "the state says the same")
    wait_for(lambda: f"slot_default_{reason}" in box.ask("status")["health"]["alarms"], "the alarm")
    assert reason in box.cli("models", "list").stdout
    return event


def test_a_model_that_gives_nan_for_some_strips_goes_back_and_its_strips_are_named(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path], bright_strips: list[Path]
) -> None:
    """What it judged can be judged again by the model that is back."""
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side")) as box:
        one, two = two_models(box, lambda path: nan_on_bright(path, 2))
        with Line(box, [strips[1], strips[2], bright_strips[0]], 0.1) as line:
            event = check_return(box, subscriber, two, one, "probation_faults")
        assert "output_non_finite" in event["detail"]
        found = check_results(box, subscriber, line.names)
        by_two = {result["strip_id"] for result in found if result["model_sha256"] == two}
        assert len(by_two) >= 2
        of_two = ("strips", "list", "--model", two[:12], "--limit", "1000", "--json")
        named = json.loads(box.cli(*of_two).stdout)["strips"]
        assert {strip["strip_id"] for strip in named} == by_two
        assert box.cli("strips", "retry", "--model", two[:12]).returncode == 0
        box.wait_until_published(len(line.names))
        assert not json.loads(box.cli(*of_two).stdout)["strips"]
        assert {strip["state"] for strip in box.ask("strips_list", limit=1000)["strips"]} == {"ok"}
        box.audit()


def test_a_model_that_calls_nearly_everything_anomalous_goes_back(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Where a limit is configured; the count goes on where a restart interrupted it."""
    models = {"probation": {"strips": 30, "max_anomalous_rate": 0.5}}
    with Plant(tmp_path / "box", broker.port, models=models) as box:
        one, two = two_models(box, lambda path: difference_model(path, version=2, gain=30.0))
        with Line(box, strips[1:3], 0.05, most=8) as line:
            wait_for(lambda: len(line.names) == 8, "some strips")
        box.wait_until_published(8)
        assert box.stop() == 0
        assert box.active_on_disk() == two
        box.start()
        with Line(box, strips[1:3], 0.05, first=len(line.names)) as more:
            wait_for(lambda: len(more.names) >= 4, "fewer than a rate needs, without the first ones")
            event = check_return(box, subscriber, two, one, "probation_anomalous_rate")
        assert "strips anomalous" in event["detail"]
        check_results(box, subscriber, line.names + more.names)


def test_a_model_that_kills_its_worker_goes_back_and_no_strip_is_lost(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, bright_strips: list[Path]
) -> None:
    """One strip that ends every worker is one fault; two different ones are the model's."""
    with Plant(tmp_path / "box", broker.port) as box:
        one, two = two_models(box, lambda path: kills_on_bright(path, 2))
        with Line(box, bright_strips, 0.1) as line:
            check_return(box, subscriber, two, one, "probation_faults")
        found = check_results(box, subscriber, line.names)
        assert {result["model_sha256"] for result in found if result["verdict"] == "ok"} == {one}


def test_three_strips_in_a_row_that_cost_a_worker_bring_the_previous_model_back(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path], bright_strips: list[Path]
) -> None:
    """After probation too; none of the strips is invalid for it."""
    models = {"probation": {"strips": 2}}
    with Plant(tmp_path / "box", broker.port, models=models, inference={"max_attempts": 10}) as box:
        one, two = two_models(box, lambda path: kills_on_bright(path, 2))
        with Line(box, strips[1:3], 0.05) as line:
            wait_for(lambda: model_events(subscriber, "probation_passed"), "probation is over")
        assert box.active() == two
        with Line(box, bright_strips, 0.05, first=len(line.names), most=9) as more:
            check_return(box, subscriber, two, one, "lost_workers")
        found = check_results(box, subscriber, line.names + more.names)
        assert {result["verdict"] for result in found} == {"ok"}


def test_without_a_previous_model_the_strips_are_held_and_a_push_heals_it(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, bright_strips: list[Path]
) -> None:
    """Nothing is lost while nothing can be judged."""
    with Plant(tmp_path / "box", broker.port, inference={"max_attempts": 10}) as box:
        box.start()
        box.wait_until_active(push(box.inbox / "1.onnx", lambda path: kills_on_bright(path, 1)))
        with Line(box, bright_strips, 0.05) as line:
            wait_for(lambda: "slot_default_held" in box.ask("status")["health"]["alarms"], "the slot holds")
        wait_for(lambda: "HELD" in box.cli("status").stdout, "people are told")
        two = push(box.inbox / "2.onnx", lambda path: difference_model(path, version=2))
        box.wait_until_active(two)
        found = check_results(box, subscriber, line.names)
        assert {(result["verdict"], result["model_sha256"]) for result in found} == {("ok", two)}
        wait_for(lambda: "held" not in box.ask("status")["health"]["alarms"], "the alarm is over")


# Start


def damage(box: Plant, sha256: str) -> None:
    """Change one byte in the middle of a kept model."""
    path = box.state / "store" / f"{sha256}.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_active_model_makes_room_for_the_previous_one(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """The alarm says so, and the same file pushed again heals it."""
    with Plant(tmp_path / "box", broker.port) as box:
        one, two = two_models(box, lambda path: difference_model(path, version=2))
        box.kill()
        (box.inbox / "2.onnx").unlink()
        damage(box, two)
        box.start()
        box.wait_until_active(one)
        wait_for(lambda: model_events(subscriber, "rolled_back"), "it is told")
        (event,) = model_events(subscriber, "rolled_back")
        assert (event["sha256"], event["reason"]) == (two, "store_damaged")
        wait_for(lambda: "slot_default_store_damaged" in box.ask("status")["health"]["alarms"], "the alarm")
        push(box.inbox / "again.onnx", lambda path: difference_model(path, version=2))
        box.wait_until_active(two)
        wait_for(lambda: "store_damaged" not in box.ask("status")["health"]["alarms"], "the alarm is over")


def test_with_all_models_gone_the_service_accounts_for_strips_and_a_push_heals_it(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """It stays up, strips wait, the status says why."""
    with Plant(tmp_path / "box", broker.port) as box:
        one, two = two_models(box, lambda path: difference_model(path, version=2))
        box.kill()
        for number, sha256 in enumerate((one, two)):
            (box.inbox / f"{number + 1}.onnx").unlink()
            (box.state / "store" / f"{sha256}.onnx").unlink()
        box.start()
        with Line(box, strips, 0.05) as line:
            wait_for(lambda: len(line.names) >= 5, "some strips")
        wait_for(lambda: box.ask("status")["strips"]["waiting"] == len(line.names), "they are accounted for")
        wait_for(lambda: "slot_default_store_damaged" in box.ask("status")["health"]["alarms"], "the alarm")
        wait_for(lambda: "slot_default_no_model" in box.ask("status")["health"]["alarms"], "the other alarm")
        push(box.inbox / "2.onnx", lambda path: difference_model(path, version=2))
        box.wait_until_active(two)
        check_results(box, subscriber, line.names)


def test_a_damaged_model_heals_from_the_inbox_where_its_file_still_is(tmp_path: Path, broker: Broker) -> None:
    """Nobody has to push it again."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        one = push(box.inbox / "1.onnx", lambda path: difference_model(path, version=1))
        box.wait_until_active(one)
        box.kill()
        damage(box, one)
        box.start()
        box.wait_until_active(one)


def test_without_its_ledger_a_box_still_knows_its_models(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """The active one, the highest version and what was refused."""
    with Plant(tmp_path / "box", broker.port) as box:
        _, two = two_models(box, lambda path: difference_model(path, version=7))
        refused = push(box.inbox / "bad.onnx", lambda path: difference_model(path, version=8, golden_shift=0.1))
        wait_for(lambda: model_state(subscriber).get("last_refused_sha256") == refused, "it is refused")
        wait_for(lambda: refused in box.slot_file.read_text(), "that is remembered")
        box.kill()
        for path in box.state.glob("ledger.db*"):
            path.unlink()
        box.start()
        box.wait_until_active(two)
        rows = {row["sha256"]: row["state"] for row in box.ask("models_list")["models"]}
        assert rows[refused] == "rejected"
        assert rows[two] == "active"
        push(box.inbox / "bad2.onnx", lambda path: difference_model(path, version=8, golden_shift=0.1))
        wait_for(lambda: model_events(subscriber, "unchanged"), "the refused bytes are known")
        push(box.inbox / "old.onnx", lambda path: difference_model(path, version=6, salt=1))
        wait_for(lambda: model_state(subscriber)["last_refused_reason"] == "version_too_low", "so is the version")
        assert box.active() == two


def test_without_its_own_file_a_slot_is_made_anew_out_of_the_ledger(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """Each of the two remembers what decides."""
    with Plant(tmp_path / "box", broker.port) as box:
        one, two = two_models(box, lambda path: difference_model(path, version=7))
        refused = push(box.inbox / "bad.onnx", lambda path: difference_model(path, version=8, golden_shift=0.1))
        wait_for(lambda: model_state(subscriber).get("last_refused_sha256") == refused, "it is refused")
        wait_for(lambda: refused in box.slot_file.read_text(), "that is remembered")
        box.kill()
        box.slot_file.write_text('{"active": "')
        box.start()
        box.wait_until_active(two)
        assert box.slot()["previous_sha256"] == one
        wait_for(lambda: "slot_default_state_damaged" in box.ask("status")["health"]["alarms"], "the alarm")
        push(box.inbox / "bad2.onnx", lambda path: difference_model(path, version=8, golden_shift=0.1))
        wait_for(lambda: model_events(subscriber, "unchanged"), "the refused bytes are known")
        push(box.inbox / "old.onnx", lambda path: difference_model(path, version=6, salt=1))
        wait_for(lambda: model_state(subscriber)["last_refused_reason"] == "version_too_low", "so is the version")


# Killed


def _kill_at(box: Plant, points: list[str], subscriber: Subscriber, strips: list[Path]) -> None:
    """Push a good, a refused and a failing model with a kill at each point; see after each that the box is sound."""
    box.start()
    box.wait_until_active(push(box.inbox / "first.onnx", lambda path: difference_model(path, version=1)))
    accepted = [box.active()]
    assert box.process is not None
    with Line(box, strips, 0.2) as line:
        for number, point in enumerate(points):
            bad = "refus" in point
            box.arm(point)
            version = number + 2

            def write(path: Path, version: int = version, bad: bool = bad) -> str:
                return difference_model(path, version=version, golden_shift=0.1 if bad else 0.0)

            sha256 = push(box.inbox / f"{point}.onnx", write)
            wait_for(lambda: box.process is not None and box.process.poll() is not None, f"killed at {point}")
            assert not box.arm_file.exists()
            assert box.active_on_disk() in (accepted[-1], sha256)
            box.start()
            if bad:
                wait_for(
                    lambda sha256=sha256: model_state(subscriber).get("last_refused_sha256") == sha256,  # type: ignore[misc]
                    f"it is refused after {point} all the same",
                )
                assert box.active() == accepted[-1]
            else:
                accepted.append(sha256)
                box.wait_until_active(sha256)
                wait_for(
                    lambda sha256=sha256: sha256 in [told["sha256"] for told in model_events(subscriber, "activated")],  # type: ignore[misc]
                    f"it is told after {point} all the same",
                )
            store = box.state / "store"
            wait_for(lambda: not list(box.state.rglob("*.candidate")), "the copy is swept")
            wait_for(lambda: {path.stem for path in store.glob("*.onnx")} <= set(accepted[-3:]), point)  # noqa: B023 - used at once
            wait_for(lambda: not list(store.rglob("*.tmp")), f"nothing is left of {point}")  # noqa: B023 - used at once
    check_results(box, subscriber, line.names)
    audit = box.ask("audit")
    assert audit["balanced"], audit["problems"]


IN_PUSHES = [point for point in POINTS if "back" not in point]


def test_killed_at_the_decisive_steps_the_box_goes_on_with_a_model_that_was_accepted(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Half way through the copy, between the two names of a new model, before and after it is told."""
    points = ["half_of_it_copied", "model_has_its_name", "slot_file_is_saved", "refusal_is_told"]
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side")) as box:
        _kill_at(box, points, subscriber, strips)


@pytest.mark.soak
def test_killed_at_every_step_the_box_goes_on_with_a_model_that_was_accepted(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Each step of the way in and of a refusal."""
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side")) as box:
        _kill_at(box, IN_PUSHES, subscriber, strips)


@pytest.mark.parametrize(
    "point",
    [
        "went_back_untold",
        pytest.param("before_go_back", marks=pytest.mark.soak),
        pytest.param("after_go_back", marks=pytest.mark.soak),
    ],
)
def test_killed_on_the_way_back_the_box_arrives_all_the_same(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, bright_strips: list[Path], point: str
) -> None:
    """A model that has failed is not trusted again because the power went."""
    with Plant(tmp_path / "box", broker.port) as box:
        one, two = two_models(box, lambda path: nan_on_bright(path, 2))
        box.arm(point)
        with Line(box, bright_strips, 0.1) as line:
            wait_for(lambda: box.process is not None and box.process.poll() is not None, f"killed at {point}")
        box.start()
        box.wait_until_active(one)
        wait_for(lambda: model_events(subscriber, "rolled_back"), "it is told")
        assert {event["sha256"] for event in model_events(subscriber, "rolled_back")} == {two}
        row = box.model(two)
        assert row is not None
        assert (row["state"], row["reason"]) == ("withdrawn", "probation_faults")
        check_results(box, subscriber, line.names)
