"""A ledger with some strips, without a service, and a desk before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Config
from agent.control.context import Context
from agent.ledger import NewResult, open_ledger
from agent.ledger.strips import LIVE
from agent.records import FileIdentity, SettledFile
from tests.control.desks import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Context]:
    """Two cameras, three strips of `top` that were judged, and every command allowed."""
    values: dict[str, Any] = {
        "agent": {"state_folder": str(tmp_path)},
        "cameras": [{"name": name, "folder": str(tmp_path / name)} for name in ("top", "side")],
        "mqtt": {"commands": list(ALL)},
    }
    ledger = open_ledger(tmp_path / "ledger.db")
    ledger.strips.begin([SettledFile("top", f"{n}.tif", FileIdentity(10, n, 1)) for n in range(3)])
    result = NewResult("ok", "", 0.1, "ab" * 32, 0, "d", "event/strip/top", dispose=False)
    while (strip := ledger.strips.next_waiting("top", LIVE, ())) is not None:
        ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
    yield Context(Config.model_validate(values), ledger, {})
    ledger.database.close()
