"""File events that fail, overflow or are not to be had: the scan mends."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from watchdog.observers.inotify_c import InotifyFD

from agent.records import FileIdentity
from agent.watching import events, folder, scans, watcher
from agent.watching.scan import Found, Scan
from tests.helpers.programs import needs
from tests.watching.line import DEADLINE_SECONDS, descriptors, needs_root, watched_folders

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

    from tests.watching.line import Start


def test_overflow_of_the_event_queue_is_counted_and_nothing_is_lost(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is stopped until the system really drops events; a scan finds every file."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip("this system's event queue is too long to be filled")
    line = start(root).ready()
    gate = threading.Event()
    handle = events.FolderEvents.on_event

    def slowly(self: events.FolderEvents, event: InotifyEvent) -> None:
        gate.wait(DEADLINE_SECONDS)
        handle(self, event)

    monkeypatch.setattr(events.FolderEvents, "on_event", slowly)
    count = limit // 3 + 1500
    for number in range(count):
        (root / f"{number}.tif").write_bytes(b"1")
    gate.set()
    line.until(lambda: len(line.paths) == count)
    assert len(set(line.paths)) == count
    assert line.watcher.status().overflows >= 1


def test_too_many_hints_become_a_scan(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that is not asked for a while forgets names, not files."""
    monkeypatch.setattr(events, "MAX_HINTS", 10)
    line = start(root).ready()
    for number in range(100):
        (root / f"{number}.tif").write_bytes(b"1")
    hints = line.watcher._hints
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not hints._everything:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert len(hints._files) <= 10
    line.until(lambda: len(line.paths) == 100)


def test_five_thousand_files_at_once(root: Path, start: Start) -> None:
    """Each exactly once, a bounded number in each step."""
    line = start(root).ready()
    for number in range(5000):
        (root / f"{number}.tif").write_bytes(b"1")
    most = 0
    while len(line.paths) < 5000:
        most = max(most, len(line.turn()))
    line.turns(0.2)
    assert len(line.paths) == len(set(line.paths)) == 5000
    assert most <= 500


def test_waiting_files_are_bounded(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A huge backlog does not fill the memory: the scan waits for the files that settle."""
    monkeypatch.setattr(watcher, "MAX_WAITING", 100)
    for number in range(1500):
        (root / f"{number}.tif").write_bytes(b"1")
    line = start(root)
    most = 0
    while not line.watcher.first_scan_done:
        line.turn()
        most = max(most, line.watcher.status().waiting)
    assert len(line.paths) == 1500
    assert most < 100 + scans.SLICE_ENTRIES


def test_live_files_do_not_wait_for_a_long_scan(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a scan is under way that never ends, events are taken and files are handed out."""

    class EndlessScan(Scan):
        @property
        def done(self) -> bool:
            return False

        def read(self, entries: int) -> list[Found]:  # noqa: ARG002 (the real one's signature)
            return []

    monkeypatch.setattr("agent.watching.scans.Scan", EndlessScan)
    line = start(root)
    line.turn()
    expected = []
    for number in range(5):
        (root / f"{number}.tif").write_bytes(b"1")
        expected.append(f"{number}.tif")
        line.until_paths(*expected)
    assert line.watcher._scans.full is not None
    assert not line.watcher.first_scan_done


def test_polling_needs_no_events(root: Path, start: Start) -> None:
    """With `watch: poll` the rescan finds everything, and no thread is started."""
    before = set(threading.enumerate())
    line = start(root, watch="poll", rescan_seconds=0.2).ready()
    assert (line.state, line.watcher.status().detail) == ("polling", "so configured")
    assert set(threading.enumerate()) <= before
    (root / "2026" / "11").mkdir(parents=True)
    (root / "2026" / "11" / "a.tif").write_bytes(b"1")
    line.until_paths("2026/11/a.tif")


def test_network_file_systems_are_polled(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` goes by the type of the file system; `events` insists."""
    monkeypatch.setattr(folder, "mount_of", lambda _: ("/", "nfs4"))
    line = start(root).ready()
    assert (line.state, line.watcher.status().detail.split()[0]) == ("polling", "nfs4")
    insisting = start(root, watch="events").ready()
    assert insisting.state == "events"


def _refuse_watches(refusal: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play a limit of the system that a test cannot reach without harming every other program of this user."""
    add = InotifyFD.add_callback

    def limited(self: InotifyFD, path: bytes, *others: Any) -> WatchDescriptor:
        if not path.rstrip(b"/").endswith(b"/camera"):
            raise refusal
        return add(self, path, *others)

    monkeypatch.setattr(InotifyFD, "add_callback", limited)


def _refuse(*_: object) -> int:
    raise OSError(errno.EMFILE, "inotify instance limit reached")


def test_no_instances_left_means_polling_with_the_reason_until_there_are(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan goes on, and events are tried again later."""
    monkeypatch.setattr(folder, "EVENTS_RETRY_SECONDS", 0.2)
    line = start(root, rescan_seconds=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(InotifyFD, "_create_inotify_fd", _refuse)
        line.turn()
    assert line.state == "polling"
    assert "max_user_instances" in line.watcher.status().detail
    (root / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    line.until(lambda: line.state == "events")


def test_folders_that_cannot_be_watched_are_counted_and_scanned(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of watches: the status says how many folders have none, scans find their files and try again."""
    (root / "d" / "e").mkdir(parents=True)
    line = start(root, rescan_seconds=0.2)
    with monkeypatch.context() as patch:
        _refuse_watches(OSError(errno.ENOSPC, "inotify watch limit reached"), patch)
        line.until(lambda: line.watcher.status().detail.startswith("2 folders"))
        assert line.state == "events"
        line.ready()
        (root / "d" / "e" / "a.tif").write_bytes(b"1")
        line.until_paths("d/e/a.tif")
    assert line.watcher.status().found_without_event == 1
    line.until(lambda: line.watcher.status().detail == "")


def test_a_new_folder_is_read_a_second_time(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a watch of its own, its first files are found soon all the same, and not at the next rescan."""
    now = [1000.0]
    line = start(root, settle_seconds=0.0, clock=lambda: now[0]).ready()
    _refuse_watches(OSError(errno.ENOSPC, "inotify watch limit reached"), monkeypatch)
    (root / "d").mkdir()
    line.until(lambda: line.watcher._scans.new_folders.get("d", scans.NOW) > scans.NOW)  # it was read once
    assert line.watcher._scans.of_folder is None
    (root / "d" / "a.tif").write_bytes(b"1")
    now[0] += scans.FOLDER_REREAD_SECONDS
    line.until_paths("d/a.tif")
    line.until(lambda: not line.watcher._scans.new_folders)


def test_scans_that_are_wanted_all_the_time_take_half_of_the_time(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that overflows again and again on a slow folder must not keep everything else from its turn."""
    now, reads, scan_seconds = [0.0], [0], 3.0

    class SlowScan(Scan):
        def read(self, entries: int) -> list[Found]:
            reads[0] += 1
            now[0] += scan_seconds
            return super().read(entries)

    monkeypatch.setattr(scans, "Scan", SlowScan)
    line = start(root, watch="poll", clock=lambda: now[0])
    while now[0] < 120:
        line.watcher._hints.overflowed()
        line.watcher.step()
        now[0] += 0.1
    assert 120 / (2 * scan_seconds) - 3 <= reads[0] <= 120 / (2 * scan_seconds) + 1


def _watches_of_this_process() -> int:
    return sum(info.read_text().count("inotify wd:") for info in Path("/proc/self/fdinfo").iterdir() if info.exists())


def test_watches_are_given_back(root: Path, tmp_path: Path, start: Start) -> None:
    """Folders that are deleted or moved away for months on end must not use up the system's watches."""
    before = _watches_of_this_process()
    line = start(root).ready()
    for name in ("deleted", "moved", "renamed"):
        (root / name / "sub").mkdir(parents=True)
    line.until(lambda: _watches_of_this_process() == before + 7)
    shutil.rmtree(root / "deleted")
    (root / "moved").rename(tmp_path / "elsewhere")
    line.until(lambda: _watches_of_this_process() == before + 3)
    (root / "renamed").rename(root / "again")
    line.until(lambda: "again/sub" in watched_folders(line) and _watches_of_this_process() == before + 3)
    (root / "again" / "sub" / "a.tif").write_bytes(b"1")
    line.until_paths("again/sub/a.tif")


def test_a_dead_event_thread_is_replaced(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in it is logged and found by the next step, and what was missed is found by a scan."""
    line = start(root).ready()
    sick = line.watcher._folder._events
    assert sick is not None
    with monkeypatch.context() as patch:
        patch.setattr(events.FolderEvents, "_take", lambda *_: 1 / 0)
        (root / "a.tif").write_bytes(b"1")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while sick.healthy:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
    line.until_paths("a.tif")
    assert line.state == "events"
    assert "begun anew" in caplog.text
    (root / "b.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif")


def test_no_room_for_watchdogs_thread_or_descriptors_means_polling_and_leaks_nothing(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the things that it needs is the first that there is no room for, what it had is given back."""
    had = descriptors()

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for target, name, refuse in ((os, "pipe", _refuse), (threading.Thread, "start", no_thread)):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, refuse)
            line = start(root)
            line.turn()
        assert line.state == "polling"
        assert line.watcher.status().detail.startswith("no file events")
        assert descriptors() <= had


def test_a_folder_made_anew_while_the_old_one_is_still_open_is_watched(root: Path, start: Start) -> None:
    """The end of the old one's watch comes late, after the new one was read: it must not end the new one's."""
    line = start(root).ready()
    (root / "d").mkdir()
    line.until(lambda: "d" in watched_folders(line))
    with os.scandir(root / "d"):  # as a scan has it
        (root / "d").rmdir()
        (root / "d").mkdir()
        (root / "d" / "first.tif").write_bytes(b"1")
        line.until_paths("d/first.tif")
    line.until(lambda: line.watcher._scans.of_folder is None and not line.watcher._scans.new_folders)
    (root / "d" / "second.tif").write_bytes(b"1")
    line.until_paths("d/first.tif", "d/second.tif")


def test_an_unreadable_folder_takes_no_place_among_the_watches(ordinary_user: Path, start: Start) -> None:
    """Watchdog notes a watch that it did not get; each scan would add one, and a warning."""
    (ordinary_user / "locked").mkdir(mode=0)
    line = start(ordinary_user).ready()
    listening = line.watcher._folder._events
    assert listening is not None
    line.watcher.request_scan()
    line.turns(0.2)
    assert len(listening._inotify._watch_for_wd) == len(watched_folders(line)) == 1


@needs("mount", "umount")
@pytest.mark.root
@needs_root
def test_a_folder_mounted_once_more_below_itself(root: Path, start: Start) -> None:
    """One watch for both; its files are found under both names, by a scan where not by events, without end."""
    (root / "again").mkdir()
    subprocess.run(["mount", "--bind", root, root / "again"], check=True)
    try:
        line = start(root, rescan_seconds=0.3).ready()
        (root / "a.tif").write_bytes(b"1")
        line.until_paths("a.tif", "again/a.tif")
        assert line.state == "events"
        line.watcher.close()
    finally:
        subprocess.run(["umount", "--lazy", root / "again"], check=True)


@pytest.mark.parametrize("seed", [1, 2])
def test_folders_made_moved_and_removed_at_random_lose_no_file(root: Path, start: Start, seed: int) -> None:
    """Whatever is there in the end was handed out in the version it has, by events alone, and nothing twice."""
    line = start(root).ready()
    random = Random(seed)  # noqa: S311 (the same moves each time)
    for number in range(400):
        folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
        chosen, other = random.choice(folders), random.choice(folders) / random.choice("abc")
        with contextlib.suppress(OSError):  # into itself, onto a full folder: no file is concerned
            match random.choice("mmwwwwrrd"):
                case "m":
                    (other / random.choice("xy")).mkdir(parents=True)
                    (other / "first.tif").write_bytes(b"1")
                case "w":
                    (chosen / f"{random.randrange(20)}.tif").write_bytes(b"1" * number)
                case "r" if chosen != root:
                    chosen.rename(other)
                case "d" if chosen != root and random.random() < 0.3:
                    shutil.rmtree(chosen)
        if number % 20 == 0:
            line.turn()

    def all_known() -> bool:
        files = [path for path in root.rglob("*.tif") if path.is_file()]
        return all(line.ledger.get(str(path.relative_to(root))) == FileIdentity.of(path.lstat()) for path in files)

    line.until(all_known)
    versions = [(file.path, file.identity) for file in line.handed_out]
    assert len(versions) == len(set(versions)) > 10
