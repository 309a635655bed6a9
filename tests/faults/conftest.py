"""A broker and somebody who listens, new for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.broker import Broker, Subscriber

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
