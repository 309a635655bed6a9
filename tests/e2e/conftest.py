"""A broker for a whole file of tests, and files to drop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.broker import Broker
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Run one broker for all tests of a file."""
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def good_strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a strip without a defect."""
    path = tmp_path_factory.mktemp("strips") / "good.tiff"
    write_strip(path)
    return path


@pytest.fixture(scope="session")
def bad_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a strip with a defect."""
    path = tmp_path_factory.mktemp("strips") / "defect.tiff"
    write_strip(path, defect=True)
    return path
