"""A broker that takes everything, and an empty outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.broker import ANYBODY, Broker
from tests.helpers.outbox import ListOutbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Run a broker that takes everything from everybody."""
    with Broker(tmp_path, ANYBODY) as running:
        yield running


@pytest.fixture
def outbox() -> ListOutbox:
    """Make an empty outbox."""
    return ListOutbox()
