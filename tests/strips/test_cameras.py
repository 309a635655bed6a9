"""Cameras that are watched anew while the service runs: no strip is skipped, lost, or begun twice by that."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agent.cameras import Cameras
from agent.config import Config
from agent.ledger import NewResult, open_ledger
from agent.loops import Loops
from agent.records import FileIdentity, SettledFile
from agent.strips.disposal import dispose
from agent.watching import CameraWatcher
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from agent.ledger import Ledger


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


class _Share:
    """Stands still at one call, as a share that hangs for a while does."""

    def __init__(self) -> None:
        self.reached, self.answers, self.left = threading.Event(), threading.Event(), threading.Event()

    def hang_once(self) -> None:
        """Wait, at the first call, until it answers."""
        if not self.reached.is_set():
            self.reached.set()
            assert self.answers.wait(180)


def _judged(ledger: Ledger, folder: Path, name: str) -> None:
    """Bring a strip to its acknowledged result; its file is to be removed."""
    file = folder / name
    file.write_bytes(name.encode())
    ledger.strips.begin([SettledFile("top", name, FileIdentity.of(file.stat()))])
    strip = ledger.strips.next_waiting("top", 0, ())
    assert strip is not None
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    result = NewResult("ok", "", 0.1, "m", 0, digest, "event/strip/top", dispose=True)
    ledger.strips.commit(strip, result, lambda seq, _: b'{"seq":%d}' % seq, 10)
    ledger.outbox.acknowledge([message.row for message in ledger.outbox.next_outbox_messages(0, 9)])


def test_files_that_are_to_stay_now_are_not_removed_by_what_was_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload to `when_done: keep` holds for every file but the one that a slow share is at."""
    monkeypatch.setattr("agent.cameras.END_SECONDS", 0.05)
    share, folder, loops = _Share(), tmp_path / "top", Loops()
    folder.mkdir()

    def slow(*arguments: Any) -> Any:
        share.hang_once()
        return dispose(*arguments)

    def tidy(_: str, step: Callable[[], float]) -> None:
        step()
        share.left.set()

    monkeypatch.setattr("agent.strips.finished_files.dispose", slow)
    with closing((ledger := open_ledger(tmp_path / "ledger.db")).database):
        for name in ("a.tif", "b.tif", "c.tif"):
            _judged(ledger, folder, name)
        cameras = Cameras(config_of(tmp_path, when_done="delete"), ledger, loops, tidy)
        cameras.start(["top"], lambda _: None)
        wait_for(share.reached.is_set, "the first file is on its way")
        share.left.clear()
        cameras.replace(config_of(tmp_path), {"top"}, cameras.ask(["top"]))
        share.answers.set()
        wait_for(share.left.is_set, "the step that was left behind is over")
        assert sorted(path.name for path in folder.iterdir()) == ["b.tif", "c.tif"]
        loops.join(time.monotonic() + 60, 60.0, lambda: None)


def test_nothing_is_begun_out_of_a_folder_that_is_not_the_cameras_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a hanging share hands out after a reload would be looked for in the new folder, and called vanished."""
    monkeypatch.setattr("agent.cameras.END_SECONDS", 0.05)
    share, loops = _Share(), Loops()
    for folder in ("top", "other"):
        (tmp_path / folder).mkdir()
    step = CameraWatcher.step

    def slow(self: CameraWatcher) -> list[SettledFile]:
        files = step(self)
        if files:
            share.hang_once()
        return files

    def tidy(loop: str, step: Callable[[], float]) -> None:
        step()
        loops.pause(loop, 0.05)

    monkeypatch.setattr(CameraWatcher, "step", slow)
    with closing((ledger := open_ledger(tmp_path / "ledger.db")).database):
        ledger.strips.record_first_scan("top")
        cameras = Cameras(config_of(tmp_path), ledger, loops, tidy)
        cameras.start(["top"], lambda _: None)
        (tmp_path / "top/a.tif").write_bytes(b"a")
        wait_for(share.reached.is_set, "a file has settled")
        first = cameras.intakes["top"]
        cameras.replace(config_of(tmp_path, folder=str(tmp_path / "other")), {"top"}, cameras.ask(["top"]))
        share.answers.set()
        wait_for(lambda: first.watcher.status().state == "closed", "the step that was left behind is over")
        assert ledger.report.balances() == []
        loops.join(time.monotonic() + 60, 60.0, lambda: None)
