"""A broker for a whole file of tests, strips to drop, keys to sign with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import Broker
from tests.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Run one broker for all tests of a file."""
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def strips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Make some strips, every third with a defect."""
    folder = tmp_path_factory.mktemp("strips")
    paths = [folder / f"{number}.tif" for number in range(6)]
    for number, path in enumerate(paths):
        write_strip(path, defect=number % 3 == 0, seed=number)
    return paths
