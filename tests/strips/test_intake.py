"""From a settled file to a row of the ledger, where the ledger has to know the file's content."""

from __future__ import annotations

import hashlib
import json
import os
import time
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Camera
from agent.ledger import NewResult, open_ledger
from agent.regular_files import digest_regular_file
from agent.strips import intake as intake_module
from agent.strips.intake import Intake
from agent.watching import CameraWatcher
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from agent.ledger import Ledger
    from agent.records import SettledFile, Strip


def judge(ledger: Ledger, file: Path, *, dispose: bool) -> Strip:
    """Give the strip that waits, whose file is `file`, a result."""
    strip = ledger.strips.next_waiting("top", 1, ())
    assert strip is not None
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    result = NewResult("ok", "", 0.1, "m", 0, sha256, "event/strip/top", dispose=dispose)
    ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
    return strip


class _RemovesWhatItHandsOut(CameraWatcher):
    """Somebody, maybe the box itself, removes a file between its last look and its first reading."""

    def step(self) -> list[SettledFile]:
        files = super().step()
        for file in files:
            (self._camera.folder / file.path).unlink()
        return files


@pytest.mark.parametrize("recorded", [False, True])
def test_a_strip_that_is_touched_while_the_box_removes_it_is_not_seen_again(tmp_path: Path, *, recorded: bool) -> None:
    """Judged, given another time, and removed after the last look at it: it is counted, and gets no second result."""
    folder = tmp_path / "top"
    folder.mkdir()
    file = folder / "a.tif"
    file.write_bytes(b"strip")
    camera = Camera(name="top", folder=folder, settle_seconds=0.05, when_done="delete")
    ledger = open_ledger(tmp_path / "ledger.db")
    with closing(ledger.database):
        watcher = CameraWatcher(camera, known=ledger.strips.known, first_scan_ever=True)
        intake = Intake(camera, watcher, ledger, 1 << 20)
        wait_for(intake.step, "the strip is begun")
        watcher.close()
        strip = judge(ledger, file, dispose=True)
        if recorded:  # between the last look and `begin`
            ledger.strips.disposed(strip.row, "done")
        os.utime(file, (time.time(), time.time() - 3600))

        watcher = _RemovesWhatItHandsOut(camera, known=ledger.strips.known, first_scan_ever=False)
        intake = Intake(camera, watcher, ledger, 1 << 20)
        wait_for(intake.step, "the file is handed out, and gone")
        assert [balance.seen for balance in ledger.report.balances()] == [1]
        assert watcher.status().vanished_before_settle == 1
        watcher.close()


@pytest.mark.parametrize("comes_again", [False, True])
def test_a_strip_that_the_box_removes_while_its_content_is_compared_is_not_seen_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, comes_again: bool
) -> None:
    """It was open for reading when it went. A file that has come under its name since is a strip of its own."""
    folder = tmp_path / "top"
    folder.mkdir()
    file = folder / "a.tif"
    file.write_bytes(b"strip")
    camera = Camera(name="top", folder=folder, settle_seconds=0.05, when_done="delete")
    ledger = open_ledger(tmp_path / "ledger.db")
    with closing(ledger.database):
        watcher = CameraWatcher(camera, known=ledger.strips.known, first_scan_ever=True)
        intake = Intake(camera, watcher, ledger, 1 << 20)
        wait_for(intake.step, "the strip is begun")
        strip = judge(ledger, file, dispose=True)
        os.utime(file, (time.time(), time.time() - 3600))

        def read_while_it_goes(*asked: Any, **more: Any) -> str:
            digest = digest_regular_file(*asked, **more)
            if not comes_again:
                file.unlink()
            ledger.strips.disposed(strip.row, "done")
            return digest

        monkeypatch.setattr(intake_module, "digest_regular_file", read_while_it_goes)
        watcher.request_scan()
        wait_for(intake.step, "the file is looked at again")
        assert [balance.seen for balance in ledger.report.balances()] == [2 if comes_again else 1]
        assert watcher.status().vanished_before_settle == (0 if comes_again else 1)
        watcher.close()


def test_a_file_that_is_only_compared_never_lies_in_memory_as_a_whole(tmp_path: Path) -> None:
    """The supervisor reads it piece by piece: what a large file takes in memory once, glibc does not give back."""
    folder = tmp_path / "top"
    folder.mkdir()
    file = folder / "a.tif"
    file.write_bytes(b"strip" * 1_000_000)
    camera = Camera(name="top", folder=folder, settle_seconds=0.05)
    ledger = open_ledger(tmp_path / "ledger.db")
    with closing(ledger.database):
        watcher = CameraWatcher(camera, known=ledger.strips.known, first_scan_ever=True)
        intake = Intake(camera, watcher, ledger, 64 << 20)
        wait_for(intake.step, "the strip is begun")
        judge(ledger, file, dispose=False)
        os.utime(file, (time.time(), time.time() - 3600))
        watcher.request_scan()
        tracemalloc.start()
        try:
            wait_for(intake.step, "the file is looked at again")
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        watcher.close()
        assert ledger.strips.seen_again() == 1
        assert most_bytes < 1 << 20
