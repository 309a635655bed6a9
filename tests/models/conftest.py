"""A broker, strips to drop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.broker import Broker, Subscriber
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Run a broker that has kept nothing of other tests."""
    with Broker(tmp_path) as running:
        yield running


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    """Listen to everything."""
    with Subscriber(broker.port) as subscriber:
        yield subscriber


@pytest.fixture(scope="session")
def strips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Make some strips, every third with a defect."""
    folder = tmp_path_factory.mktemp("strips")
    paths = [folder / f"{number}.tif" for number in range(6)]
    for number, path in enumerate(paths):
        write_strip(path, defect=number % 3 == 0, seed=number, dtype="uint8", channels=3)
    return paths
