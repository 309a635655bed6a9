"""Files whose times change, though not their content: each is judged and told once, whatever somebody does to them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.checks import check_audit
from tests.helpers.box import Box, drop_file, unique_results, wait_for_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.broker import Broker

NAMES = [f"{number}.tif" for number in range(5)]


@pytest.fixture
def box(tmp_path: Path, broker: Broker) -> Iterator[Box]:
    """Make a box that looks through its camera's folder every second; the model comes later."""
    with Box(tmp_path / "box", broker.port, agent={"name": "same"}) as box:
        box.config["cameras"][0] |= {"rescan_seconds": 1.0}
        box.write_config()
        yield box


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    """Listen to the box."""
    with Subscriber(broker.port, "strip-agent/same/#") as subscriber:
        yield subscriber


def touch_all(box: Box, mtime: float | None = None) -> None:
    """Give every strip another time: now, or the one that is named."""
    for name in NAMES:
        os.utime(box.camera() / name, None if mtime is None else (mtime, mtime))


def seen_again(box: Box) -> int:
    """Return what the status says."""
    return int(box.ask("status")["seen_again"])


def test_touched_strips_are_not_published_again(box: Box, subscriber: Subscriber, good_strip: Path) -> None:
    """touch, an hour's shift, chmod, a restore as another file, also while the service is off: one result each."""
    difference_model(box.inbox / "model.onnx")
    box.start()
    for name in NAMES:
        drop_file(good_strip, box.camera() / name)
    wait_for_results(subscriber, len(NAMES))
    box.wait_until_published(len(NAMES))
    touch_all(box)
    wait_for(lambda: seen_again(box) >= 5, "all were seen again")
    touch_all(box, 1_700_000_000)
    wait_for(lambda: seen_again(box) >= 10, "all were seen again")
    assert box.stop() == 0
    touch_all(box, 1_700_003_600)
    for name in NAMES:
        copy = box.camera() / f".{name}"
        shutil.copy(box.camera() / name, copy)
        copy.rename(box.camera() / name)
    box.start()
    wait_for(lambda: seen_again(box) >= 15, "all were seen again")
    drop_file(good_strip, box.camera() / "behind.tif")
    wait_for_results(subscriber, 6)
    assert len(unique_results(subscriber)) == 6
    assert "times with other times but the same content" in box.cli("status").stdout
    box.wait_until_published(6)
    check_audit(box, 6)
    assert box.stop() == 0


def test_strips_that_are_touched_while_they_wait_stay_one_strip_each(
    box: Box, subscriber: Subscriber, good_strip: Path
) -> None:
    """Without a model they wait; touched meanwhile, and again just when they are judged, each gives one result."""
    box.start()
    for name in NAMES:
        drop_file(good_strip, box.camera() / name)
    wait_for(lambda: box.ask("status")["strips"]["pending"] == 5, "all wait")
    touch_all(box)
    wait_for(lambda: seen_again(box) >= 5, "all were seen again")
    difference_model(box.inbox / "model.onnx")

    def is_ready() -> bool:
        touch_all(box)
        return bool(box.ask("status")["health"]["slots_ready"])

    wait_for(is_ready, "it is ready")
    touch_all(box)
    found = wait_for_results(subscriber, 5)
    drop_file(good_strip, box.camera() / "behind.tif")
    wait_for_results(subscriber, 6)
    assert {result["verdict"] for result in found} == {"ok"}
    assert len(unique_results(subscriber)) == 6
    box.wait_until_published(6)
    check_audit(box, 6)
    assert box.stop() == 0
