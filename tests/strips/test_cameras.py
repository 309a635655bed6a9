"""Cameras that are watched anew while the service runs: no strip is skipped, lost, or begun twice by that."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agent.cameras import Cameras
from agent.config import Config
from agent.ledger import open_ledger
from agent.loops import Loops
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def config_of(tmp_path: Path, **keys: Any) -> Config:
    """Make the configuration of one camera, of whose backlog nothing is judged."""
    camera = {"name": "top", "folder": str(tmp_path / "top"), "settle_seconds": 0.05, "backlog": "none", **keys}
    return Config.model_validate({"agent": {"state_folder": str(tmp_path)}, "cameras": [camera]})


def test_what_comes_while_a_camera_is_watched_anew_is_no_backlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule for what was there before is applied once in a camera's life."""
    monkeypatch.setattr("agent.cameras.END_SECONDS", 60.0)  # on a busy machine a step that does not hang is slow
    (tmp_path / "top").mkdir()
    (tmp_path / "top/old.tif").write_bytes(b"old")
    loops = Loops()

    def tidy(loop: str, step: Callable[[], float]) -> None:
        step()
        loops.pause(loop, 0.05)

    with closing((ledger := open_ledger(tmp_path / "ledger.db")).database):
        cameras = Cameras(config_of(tmp_path), ledger, loops, tidy)
        cameras.start(["top"], lambda _: None)
        wait_for(lambda: ledger.strips.camera_was_scanned("top"), "the first scan is over")
        before = cameras.ask(["top"])
        (tmp_path / "top/between.tif").write_bytes(b"between")
        first = cameras.intakes["top"]
        cameras.replace(config_of(tmp_path, rescan_seconds=0.2), {"top"}, before)
        (tmp_path / "top/after.tif").write_bytes(b"after")
        assert cameras.watched()["top"].state == "starting"
        assert first.watcher.status().state == "closed"
        cameras.start(["top"], lambda _: None)

        def waiting() -> int:
            return sum(balance.waiting for balance in ledger.report.balances())

        wait_for(lambda: waiting() == 2, "both have been begun")
        loops.join(time.monotonic() + 60, 60.0, lambda: None)
        (balance,) = ledger.report.balances()
        assert (balance.seen, balance.waiting, balance.skipped) == (3, 2, 1)
