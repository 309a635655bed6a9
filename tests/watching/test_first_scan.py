"""The first scan, and the backlog rule."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from agent.records import FileIdentity
from agent.watching import events, scans
from tests.helpers.broker import wait_for
from tests.watching.line import DEADLINE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from watchdog.observers.inotify_c import InotifyEvent

    from tests.watching.line import Start


def _age(root: Path, count: int) -> None:
    for number in range(count):
        path = root / f"{number}.tif"
        path.write_bytes(b"1")
        os.utime(path, ns=(1, 1_000_000 * (count - number)))  # 0.tif is the newest


@pytest.mark.parametrize(("rule", "scored"), [("all", 5), ("none", 0), (0, 0), (2, 2), (9, 5)])
def test_backlog_rule_at_the_first_scan_ever(root: Path, start: Start, rule: str | int, scored: int) -> None:
    """All, none or the newest are scored, the rest is handed out as skipped; what arrives later is live."""
    _age(root, 5)
    line = start(root, first_scan_ever=True, backlog=rule).ready()
    assert all(file.backlog for file in line.handed_out)
    by_age = sorted(line.handed_out, key=lambda file: file.path)
    assert [file.skip for file in by_age] == [number >= scored for number in range(5)]
    (root / "live.tif").write_bytes(b"1")
    os.utime(root / "live.tif", ns=(1, 1))  # older than all of them, by its own word
    line.until(lambda: len(line.handed_out) == 6)
    assert (line.handed_out[-1].backlog, line.handed_out[-1].skip) == (False, False)


def test_backlog_rule_counts_files_the_ledger_already_has(root: Path, start: Start) -> None:
    """A first scan that was interrupted decides the same way when it is done again."""
    _age(root, 5)
    line = start(root, first_scan_ever=True, backlog=2)
    line.ledger = {"0.tif": FileIdentity.of((root / "0.tif").lstat())}
    line.ready()
    assert {file.path for file in line.handed_out if not file.skip} == {"1.tif"}


def test_backlog_rule_is_for_the_first_scan_ever_only(root: Path, start: Start) -> None:
    """Later starts score what came meanwhile, behind the live strips."""
    _age(root, 3)
    line = start(root, first_scan_ever=False, backlog="none").ready()
    assert [(file.backlog, file.skip) for file in line.handed_out] == [(True, False)] * 3


def test_a_file_written_during_the_first_scan_is_live(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrived after the subscription: `backlog: none` must not skip it, though the scan finds it as well."""
    _age(root, 200)
    monkeypatch.setattr(scans, "SLICE_ENTRIES", 5)
    monkeypatch.setattr(scans, "SLICE_SECONDS", 0.0)
    line = start(root, first_scan_ever=True, backlog="none")
    line.turn()
    assert line.watcher._scans.full is not None
    (root / "live.tif").write_bytes(b"1")
    hints = line.watcher._hints
    wait_for(lambda: "live.tif" in hints._files, "its event came before the scan found it", DEADLINE_SECONDS)
    line.until(lambda: "live.tif" in line.paths)
    line.ready()
    assert [file.path for file in line.handed_out if not file.backlog] == ["live.tif"]
    assert [file.path for file in line.handed_out if not file.skip] == ["live.tif"]


@pytest.mark.parametrize("rule", ["none", 1])
def test_a_file_written_during_the_first_scan_is_live_however_late_its_event_is(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch, rule: str | int
) -> None:
    """Watchdog's thread may stand still for longer than a file takes to settle; it takes no old file's place either."""
    _age(root, 200)
    lets_go, now = threading.Event(), [1000.0]
    on_event = events.FolderEvents.on_event

    def late(self: events.FolderEvents, event: InotifyEvent) -> None:
        assert lets_go.wait(DEADLINE_SECONDS)
        on_event(self, event)

    monkeypatch.setattr(events.FolderEvents, "on_event", late)
    monkeypatch.setattr(scans, "SLICE_ENTRIES", 5)
    monkeypatch.setattr(scans, "SLICE_SECONDS", 0.0)
    line = start(root, first_scan_ever=True, backlog=rule, clock=lambda: now[0])
    line.turn()
    assert line.watcher._scans.full is not None
    (root / "live.tif").write_bytes(b"1")

    def all_is_out() -> bool:
        now[0] += 0.1
        return line.watcher.first_scan_done and "live.tif" in line.paths

    for _ in range(150):  # it could have been handed out
        if all_is_out():
            break
        line.turn()
    lets_go.set()
    line.until(all_is_out)
    assert [file.path for file in line.handed_out if not file.backlog] == ["live.tif"]
    scored = [file.path for file in line.handed_out if not file.skip]
    assert sorted(scored) == (["live.tif"] if rule == "none" else ["0.tif", "live.tif"])


def test_a_rule_with_a_number_skips_nothing_while_fewer_files_exist(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By polling: the folder was empty when it was counted, and the first file came before it was read."""
    monkeypatch.setattr(scans, "SLICE_SECONDS", 0.0)
    line = start(root, watch="poll", first_scan_ever=True, backlog=3)
    line.turn()
    assert line.watcher._first_scan._cutoff is not None
    assert not line.watcher._first_scan.counting
    assert not line.watcher._first_scan.read
    (root / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    assert not line.handed_out[0].skip


def test_files_of_one_time_are_handed_out_in_the_order_that_people_count_in(root: Path, start: Start) -> None:
    """Whatever order the folder has them in: img_9 before img_10, older files first, and the newest are kept so."""
    for number in (12, 9, 11, 10, 8, 100):
        (root / f"img_{number}.tif").write_bytes(b"1")
        os.utime(root / f"img_{number}.tif", ns=(1, 1_000_000))
    (root / "z.tif").write_bytes(b"1")
    os.utime(root / "z.tif", ns=(1, 1))
    now = [1000.0]
    line = start(root, watch="poll", first_scan_ever=True, backlog=3, settle_seconds=0.2, clock=lambda: now[0])
    line.until(lambda: line.watcher.status().waiting == 7)
    now[0] += 0.2
    line.ready()
    assert line.paths == ["z.tif", *(f"img_{number}.tif" for number in (8, 9, 10, 11, 12, 100))]
    assert [file.path for file in line.handed_out if not file.skip] == ["img_11.tif", "img_12.tif", "img_100.tif"]
