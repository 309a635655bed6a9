"""Files that are written slowly, grow, change, vanish or whose whole folder goes away: one file, one honest result."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import Reason
from tests.e2e.checks import check_audit, check_messages
from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.broker import Broker


INCOMPLETE_SECONDS = 10.0
NEVER = "never.tif"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, broker: Broker, good_strip: Path) -> Iterator[Box]:
    """Run one service for all tests but the last."""
    with Box(tmp_path_factory.mktemp("half"), broker.port, checks={"incomplete_seconds": INCOMPLETE_SECONDS}) as box:
        difference_model(box.inbox / "model.onnx")
        box.start()
        (box.camera() / NEVER).write_bytes(good_strip.read_bytes()[:-10])  # its time is over when its test comes
        yield box


@pytest.fixture(scope="module")
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    """Listen to everything."""
    with Subscriber(broker.port) as subscriber:
        yield subscriber


def wait_for_results_of(subscriber: Subscriber, name: str, number: int = 1) -> list[dict[str, Any]]:
    """Wait for the results of a file; give them by `seq`."""

    def found() -> list[dict[str, Any]]:
        return [result for result in unique_results(subscriber).values() if result["file"] == name]

    wait_for(lambda: len(found()) >= number, f"{name} has {number} results")
    assert len(found()) == number
    return sorted(found(), key=lambda result: int(result["seq"]))


def pending(box: Box, name: str) -> Callable[[], bool]:
    """Whether a file waits in the ledger; `why` tells that it is half written."""

    def waits() -> bool:
        named = box.ask("audit")["unpublished"]
        return any(item["file"] == name and "half written" in item["why"] for item in named)

    return waits


def test_a_slow_writer_whose_pauses_are_longer_than_the_settle_time(
    box: Box, subscriber: Subscriber, good_strip: Path
) -> None:
    """Written in three pieces with pauses in which the file settles: one strip, one result, and it is ok."""
    data = good_strip.read_bytes()
    third = len(data) // 3
    with (box.camera() / "slow.tif").open("wb") as file:
        for start in (0, third):
            file.write(data[start : start + third])
            file.flush()
            wait_for(pending(box, "slow.tif"), "it was found incomplete")
        file.write(data[2 * third :])
    (result,) = wait_for_results_of(subscriber, "slow.tif")
    assert result["verdict"] == "ok"
    drop_file(good_strip, box.camera() / "behind slow.tif")
    wait_for_results_of(subscriber, "behind slow.tif")
    wait_for_results_of(subscriber, "slow.tif")  # still one


def test_a_preallocated_file_that_is_filled_from_behind(box: Box, subscriber: Subscriber, good_strip: Path) -> None:
    """The size never changes: the empty rows and the time of the last write tell that it was not complete."""
    data = good_strip.read_bytes()
    half = len(data) // 2
    with (box.camera() / "filled.tif").open("wb") as file:
        file.truncate(len(data))
        file.seek(half)
        file.write(data[half:])
        file.flush()
        wait_for(pending(box, "filled.tif"), "it was found incomplete")
        file.seek(0)
        file.write(data[:half])
    (result,) = wait_for_results_of(subscriber, "filled.tif")
    assert result["verdict"] == "ok"


def test_a_file_that_is_never_completed(box: Box, subscriber: Subscriber, good_strip: Path) -> None:
    """After checks.incomplete_seconds it is invalid; completed later it is a new strip."""
    (result,) = wait_for_results_of(subscriber, NEVER)
    assert (result["verdict"], result["reason"]) == ("invalid", Reason.INCOMPLETE)
    assert result["total_ms"] >= 1000 * INCOMPLETE_SECONDS
    with (box.camera() / NEVER).open("ab") as file:
        file.write(good_strip.read_bytes()[-10:])
    again = wait_for_results_of(subscriber, NEVER, 2)[1]
    assert again["verdict"] == "ok"
    assert again["strip_id"] != result["strip_id"]


@pytest.fixture
def waiting_box(tmp_path: Path, broker: Broker) -> Iterator[tuple[Box, Path, Subscriber]]:
    """Run a box without a model: strips are begun and wait. The path is the model to push."""
    with (
        Box(tmp_path / "box", broker.port, cameras=("top", "side"), agent={"name": "waiting"}) as box,
        Subscriber(broker.port, "strip-agent/waiting/#") as subscriber,
    ):
        difference_model(tmp_path / "model.onnx")
        box.start()
        yield box, tmp_path / "model.onnx", subscriber


def push(box: Box, model: Path) -> None:
    """Give the box its model."""
    shutil.copyfile(model, box.inbox / "model.onnx")


def begin(box: Box, number: int) -> None:
    """Wait until so many strips are in the ledger."""
    wait_for(lambda: box.ask("status")["strips"]["pending"] == number, f"{number} strips wait")


def test_a_file_replaced_and_a_file_gone_while_they_wait(
    waiting_box: tuple[Box, Path, Subscriber], good_strip: Path, bad_part: Path
) -> None:
    """Replaced: the old strip is invalid (file_replaced), the new one is judged. Gone: invalid (file_vanished)."""
    box, model, subscriber = waiting_box
    for name in ("replaced.tif", "gone.tif", "kept.tif"):
        drop_file(good_strip, box.camera() / name)
    begin(box, 3)
    drop_file(bad_part, box.camera() / "replaced.tif")
    (box.camera() / "gone.tif").unlink()
    begin(box, 4)
    push(box, model)
    old, new = wait_for_results_of(subscriber, "replaced.tif", 2)
    assert {(old["verdict"], old["reason"]), (new["verdict"], new["reason"])} == {
        ("invalid", Reason.FILE_REPLACED),
        ("anomalous", ""),
    }
    assert old["strip_id"] != new["strip_id"]
    (gone,) = wait_for_results_of(subscriber, "gone.tif")
    assert (gone["verdict"], gone["reason"]) == ("invalid", Reason.FILE_VANISHED)
    (kept,) = wait_for_results_of(subscriber, "kept.tif")
    assert kept["verdict"] == "ok"
    box.wait_until_published(4)
    check_audit(box, 4)


def test_the_same_file_replaced_by_other_bytes_of_the_same_size_and_time(
    waiting_box: tuple[Box, Path, Subscriber], good_strip: Path, bad_part: Path
) -> None:
    """Size and mtime agree, the content does not: a new strip; the very same content again: none."""
    box, model, subscriber = waiting_box
    push(box, model)
    path = box.camera() / "same.tif"
    for source, results in ((good_strip, 1), (good_strip, 1), (bad_part, 2)):
        temporary = box.camera() / ".same"
        shutil.copyfile(source, temporary)
        os.utime(temporary, ns=(10**18, 10**18))
        temporary.rename(path)
        drop_file(good_strip, box.camera() / f"behind {results} {source.name}.tif")
        wait_for_results_of(subscriber, f"behind {results} {source.name}.tif")
        wait_for_results_of(subscriber, "same.tif", results)
        (box.camera() / f"behind {results} {source.name}.tif").unlink()
    first, second = wait_for_results_of(subscriber, "same.tif", 2)
    assert (first["verdict"], second["verdict"]) == ("ok", "anomalous")
    assert first["strip_id"] != second["strip_id"]


def test_a_file_gone_before_it_settled_is_only_counted(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """What never settled was never begun: no result, a number in health."""
    with Box(tmp_path / "box", broker.port, agent={"name": "vanishing"}) as box:
        box.config["cameras"][0]["settle_seconds"] = 1.0
        box.write_config()
        box.start()

        def counts() -> tuple[int, int, int]:
            status = box.ask("status")
            watching = status["watching"]["top"]
            return watching["waiting"], status["health"]["strips_vanished"], status["strips"]["seen"]

        for settled in range(20):  # it settles where this is held up for a second
            path = box.camera() / f"short {settled}.tif"
            drop_file(good_strip, path)
            wait_for(lambda: counts() in {(1, 0, settled), (0, 0, settled + 1)}, "it is seen")  # noqa: B023 - used at once
            path.unlink()
            wait_for(lambda: counts() in {(0, 1, settled), (0, 0, settled + 1)}, "it is counted")  # noqa: B023 - used at once
            if counts() == (0, 1, settled):
                return
        pytest.fail("each of them had settled before it could be removed")


def test_the_folder_goes_away_while_strips_wait(waiting_box: tuple[Box, Path, Subscriber], good_strip: Path) -> None:
    """A share that is gone for a while costs time, not strips: they wait, none becomes invalid."""
    box, model, subscriber = waiting_box
    names = [f"{number}.tif" for number in range(3)]
    for name in names:
        drop_file(good_strip, box.camera() / name)
    begin(box, 3)
    away = box.camera().with_name("away")
    box.camera().rename(away)
    wait_for(lambda: "camera_top_missing" in box.ask("status")["health"]["alarms"], "the alarm is on")
    push(box, model)
    for number in range(3):
        drop_file(good_strip, box.camera("side") / f"side {number}.tif")
        wait_for_results_of(subscriber, f"side {number}.tif")
    assert not subscriber.payloads("/event/strip/top")
    wait_for(lambda: box.ask("status")["strips"]["pending"] == 3, "the side camera's strips are acknowledged")
    away.rename(box.camera())
    for name in names:
        (result,) = wait_for_results_of(subscriber, name)
        assert result["verdict"] == "ok"
    wait_for(lambda: "camera_top" not in box.ask("status")["health"]["alarms"], "the alarm is over")


def test_what_was_half_written_adds_up(box: Box, subscriber: Subscriber) -> None:
    """The books balance, and every message keeps its schema."""
    check_audit(box, box.ask("status")["strips"]["seen"])
    check_messages(subscriber)
    assert box.stop() == 0
