"""Watching a camera's folder, with real files and real file events; only the settle rule gets a clock of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from watchdog.observers.inotify_c import InotifyFD

from agent.config import Camera
from agent.records import FileIdentity, SettledFile
from agent.watching import CameraWatcher, events, folder, watcher
from agent.watching.mounts import gives_events, mount_of
from agent.watching.scan import Found, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

DEADLINE_SECONDS = 20.0
SLOW_RESCAN = 3600.0  # so that nothing but an event (or an explicit scan) can have found a file

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


class Line:
    """A watcher, the loop around it that the service has, and a ledger that remembers identities."""

    def __init__(self, root: Path, *, first_scan_ever: bool = False, **settings: Any) -> None:
        values = {"name": "top", "folder": root, "settle_seconds": 0.05, "rescan_seconds": SLOW_RESCAN, **settings}
        self.ledger: dict[str, FileIdentity] = {}
        self.asked: list[int] = []
        self.handed_out: list[SettledFile] = []
        self.watcher = CameraWatcher(Camera(**values), known=self.known, first_scan_ever=first_scan_ever)

    def known(self, files: Sequence[SettledFile]) -> set[str]:
        """Answer as the ledger does."""
        self.asked.append(len(files))
        return {file.path for file in files if self.ledger.get(file.path) == file.identity}

    def turn(self) -> list[SettledFile]:
        """Go once around the service's loop."""
        self.watcher.wait(0.05)
        files = self.watcher.step()
        self.ledger |= {file.path: file.identity for file in files}
        self.handed_out += files
        return files

    def until(self, condition: Callable[[], object]) -> None:
        """Go around until the condition holds, or fail."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not in time; {self.watcher.status()}; have {self.paths[-20:]}"
            self.turn()

    def until_paths(self, *paths: str) -> None:
        """Go around until exactly these paths were handed out, once each."""
        self.until(lambda: set(paths) <= set(self.paths))
        assert sorted(self.paths) == sorted(paths)

    def turns(self, seconds: float) -> None:
        """Go around for a while, to see that something does not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def ready(self) -> Line:
        """Go around until the first scan is done."""
        self.until(lambda: self.watcher.first_scan_done)
        return self

    @property
    def paths(self) -> list[str]:
        """Everything that was handed out."""
        return [file.path for file in self.handed_out]

    @property
    def state(self) -> str:
        """State of the watching."""
        return self.watcher.status().state


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the camera's folder, empty."""
    path = tmp_path / "camera"
    path.mkdir()
    return path


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def start() -> Iterator[Callable[..., Line]]:
    """Make lines that are closed in the end, and check that no thread and no descriptor stays."""
    before = set(threading.enumerate())
    descriptors = _descriptors()
    lines: list[Line] = []

    def make(root: Path, **settings: Any) -> Line:
        lines.append(Line(root, **settings))
        return lines[-1]

    yield make
    for line in lines:
        line.watcher.close()
        assert line.state == "closed"
    assert set(threading.enumerate()) <= before
    assert _descriptors() == descriptors


if TYPE_CHECKING:
    Start = Callable[..., Line]


# How files arrive: with a rescan once an hour, each of these is found by its event


def test_a_written_file_is_handed_out_once_with_its_identity(root: Path, start: Start) -> None:
    """Found by its events, settled, handed out; reading it does not bring it again."""
    line = start(root).ready()
    assert line.state == "events"
    (root / "a.tif").write_bytes(b"strip")
    line.until_paths("a.tif")
    assert line.handed_out == [SettledFile("top", "a.tif", FileIdentity.of((root / "a.tif").lstat()))]
    (root / "a.tif").read_bytes()
    line.watcher.request_scan()
    line.turns(0.3)
    assert line.paths == ["a.tif"]
    assert line.watcher.status().found_without_event == 0


def test_rename_into_place(root: Path, tmp_path: Path, start: Start) -> None:
    """From inside the folder and from outside of it; the temporary names are not strips."""
    line = start(root).ready()
    (root / "a.tmp").write_bytes(b"1")
    (root / "a.tmp").rename(root / "a.tif")
    (tmp_path / "outside").write_bytes(b"2")
    (tmp_path / "outside").rename(root / "b.tif")
    line.until_paths("a.tif", "b.tif")


def test_hard_link_and_links_and_special_files(root: Path, tmp_path: Path, start: Start) -> None:
    """A hard link is a strip; what is no regular file is handed out too, so that it is refused and not overlooked."""
    line = start(root).ready()
    (tmp_path / "original").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "below.tif").write_bytes(b"1")
    os.link(tmp_path / "original", root / "hard.tif")
    (root / "link.tif").symlink_to(tmp_path / "original")
    (root / "dangling.tif").symlink_to("nowhere")
    (root / "folder.tif").symlink_to(tmp_path / "folder")
    (root / "linked-folder").symlink_to(tmp_path / "folder")
    os.mkfifo(root / "fifo.tif")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(root):
        server.bind("socket.tif")
        line.until_paths("hard.tif", "link.tif", "dangling.tif", "folder.tif", "fifo.tif", "socket.tif")


def test_special_files_are_found_by_a_scan_too(root: Path, tmp_path: Path, start: Start) -> None:
    """The same without events."""
    (root / "link.tif").symlink_to(tmp_path)
    os.mkfifo(root / "fifo.tif")
    (root / "real-folder.tif").mkdir()
    (root / "real-folder.tif" / "a.tif").write_bytes(b"1")
    line = start(root, watch="poll").ready()
    line.until_paths("link.tif", "fifo.tif", "real-folder.tif/a.tif")


def test_folder_and_file_at_once(root: Path, start: Start) -> None:
    """A folder's first file may be older than its watch; a hundred of them, and deep dated ones, are all found."""
    line = start(root).ready()
    expected = []
    for number in range(100):
        path = f"shift{number}/a.tif" if number % 2 else f"2026/11/{number}/top/a.tif"
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(b"1")
        expected.append(path)
    line.until_paths(*expected)
    assert line.watcher.status().found_without_event == 0


def test_folder_moved_in_with_its_files_goes_on_being_watched(root: Path, tmp_path: Path, start: Start) -> None:
    """Files in it when it came, files written to it later, and files in a folder made in it later."""
    line = start(root).ready()
    (tmp_path / "batch" / "x").mkdir(parents=True)
    (tmp_path / "batch" / "x" / "1.tif").write_bytes(b"1")
    (tmp_path / "batch").rename(root / "batch")
    line.until_paths("batch/x/1.tif")
    (root / "batch" / "x" / "2.tif").write_bytes(b"2")
    (root / "batch" / "y").mkdir()
    (root / "batch" / "y" / "3.tif").write_bytes(b"3")
    line.until_paths("batch/x/1.tif", "batch/x/2.tif", "batch/y/3.tif")


def test_names_are_bytes(root: Path, start: Start) -> None:
    """Whatever the file system allows in a name comes through unchanged, by event and by scan."""
    names = [b"new\nline.tif", b"100%*[a]?.tif", b"\xff\xfe.tif", "grün ü.tif".encode(), b"-rf .tif", b"a'\"b.tif"]
    line = start(root).ready()
    for name in names:
        (root / os.fsdecode(name)).write_bytes(b"1")
    line.until_paths(*map(os.fsdecode, names))
    scanned = start(root, watch="poll").ready()
    scanned.until_paths(*map(os.fsdecode, names))


def test_same_name_rewritten_is_handed_out_again(root: Path, start: Start) -> None:
    """A new identity is a new strip: rewritten in place, and replaced by a rename."""
    line = start(root).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: len(line.paths) == 1)
    (root / "a.tif").write_bytes(b"22")
    line.until(lambda: len(line.paths) == 2)
    (root / "b.tmp").write_bytes(b"333")
    (root / "b.tmp").rename(root / "a.tif")
    line.until(lambda: len(line.paths) == 3)
    assert [file.identity.size_bytes for file in line.handed_out] == [1, 2, 3]


def test_a_ctime_that_changed_alone_is_not_known(root: Path, start: Start) -> None:
    """It is handed out and the ledger decides by the digest."""
    line = start(root).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: len(line.paths) == 1)
    (root / "a.tif").chmod(0o600)
    line.until(lambda: len(line.paths) == 2)
    assert line.handed_out[0].identity.same_content_expected(line.handed_out[1].identity)


# Settling


def test_a_growing_file_waits_until_it_stands_still(root: Path, start: Start) -> None:
    """Written in pieces over a multiple of the settle time: handed out once, whole."""
    line = start(root, settle_seconds=0.2).ready()
    with (root / "a.tif").open("wb") as file:
        for _ in range(8):
            file.write(b"x" * 1000)
            file.flush()
            line.turns(0.06)
        assert line.paths == []
    line.until_paths("a.tif")
    assert line.handed_out[0].identity.size_bytes == 8000


def test_a_file_that_vanishes_is_counted_and_the_next_one_comes(root: Path, start: Start) -> None:
    """Gone before it settled: a number in the status, and nothing else."""
    line = start(root, settle_seconds=0.2).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: line.watcher.status().waiting == 1)
    (root / "a.tif").unlink()
    (root / "b.tif").write_bytes(b"1")
    line.until_paths("b.tif")
    assert line.watcher.status().vanished_before_settle == 1


def test_settle_zero(root: Path, start: Start) -> None:
    """Allowed for cameras that rename into place."""
    line = start(root, settle_seconds=0.0).ready()
    (root / "a.tmp").write_bytes(b"1")
    (root / "a.tmp").rename(root / "a.tif")
    line.until_paths("a.tif")


def test_wait_returns_exactly_when_the_second_look_is_due(root: Path) -> None:
    """Nothing polls: the pause ends at first look + settle_seconds, by a clock that only the test moves."""
    now = [1000.0]
    (root / "a.tif").write_bytes(b"1")
    line = Line(root, watch="poll", settle_seconds=0.5)
    line.watcher = CameraWatcher(line.watcher._camera, known=line.known, first_scan_ever=False, clock=lambda: now[0])
    assert line.watcher.step() == []
    assert line.watcher._next_due() == 1000.5
    now[0] = 1000.4999
    assert line.watcher.step() == []
    now[0] = 1000.5
    assert [file.path for file in line.watcher.step()] == ["a.tif"]
    line.watcher.close()


# The ledger's answers


def test_finished_files_cost_one_question_in_chunks_and_no_memory(root: Path, start: Start) -> None:
    """After a restart nothing that the ledger knows is handed out, or even looked at twice."""
    for number in range(700):
        (root / f"{number}.tif").write_bytes(b"1")
    line = start(root)
    line.ledger = {path.name: FileIdentity.of(path.lstat()) for path in root.iterdir()}
    (root / "new.tif").write_bytes(b"1")
    line.ready()
    assert line.paths == ["new.tif"]
    assert max(line.asked) <= 500
    assert line.watcher.status().waiting == 0
    assert line.watcher.status().files_seen_last_scan == 701


def test_files_given_back_come_again(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger could not begin them: they come back with the same flags, and the first scan is not done before."""
    monkeypatch.setattr(watcher, "RETURN_SECONDS", 0.05)
    (root / "old.tif").write_bytes(b"1")
    line = start(root, first_scan_ever=True, backlog="none")
    line.until(lambda: line.handed_out)
    first = line.handed_out.pop()
    line.ledger.clear()
    line.watcher.give_back([first])
    line.turn()
    assert not line.watcher.first_scan_done
    line.until(lambda: line.handed_out)
    assert line.handed_out == [first]
    assert first.skip
    line.ready()


def test_a_ledger_that_fails_while_it_is_asked_loses_nothing(root: Path, start: Start) -> None:
    """Its error comes out of step; the steps after it go on where it stopped."""
    for number in range(450):
        (root / f"{number}.tif").write_bytes(b"1")
    line = start(root)
    failures = [0]

    def failing(files: Sequence[SettledFile]) -> set[str]:
        failures[0] += 1
        if failures[0] % 2:
            raise OSError("database is locked")
        return line.known(files)

    line.watcher._known = failing
    while not line.watcher.first_scan_done:
        with contextlib.suppress(OSError):
            line.turn()
    assert sorted(line.paths) == sorted(f"{number}.tif" for number in range(450))
    assert failures[0] > 5


# The first scan


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
    monkeypatch.setattr(watcher, "SLICE_ENTRIES", 5)
    monkeypatch.setattr(watcher, "SLICE_SECONDS", 0.0)
    line = start(root, first_scan_ever=True, backlog="none")
    line.turn()
    assert line.watcher._full_scan is not None
    (root / "live.tif").write_bytes(b"1")
    line.until(lambda: "live.tif" in line.paths)
    line.ready()
    assert [file.path for file in line.handed_out if not file.backlog] == ["live.tif"]
    assert [file.path for file in line.handed_out if not file.skip] == ["live.tif"]


# The folder itself


def test_folder_that_appears_later(root: Path, start: Start) -> None:
    """Missing at the start is a state; the first scan is when it appears, and then there are events."""
    line = start(root / "later" / "still")
    line.turn()
    assert line.state == "missing"
    assert "still" in line.watcher.status().detail
    assert not line.watcher.first_scan_done
    (root / "later" / "still").mkdir(parents=True)
    (root / "later" / "still" / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    assert line.handed_out[0].backlog
    line.ready()
    (root / "later" / "still" / "b.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif")
    assert line.state == "events"


@pytest.mark.parametrize("how", ["delete", "rename", "replace"])
def test_folder_deleted_or_replaced_and_made_again(root: Path, start: Start, how: str) -> None:
    """Watches belong to the old folder; files in the new one come by events all the same."""
    line = start(root).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    if how == "delete":
        shutil.rmtree(root)
        line.until(lambda: line.state == "missing")
        root.mkdir()
    elif how == "rename":
        root.rename(root.with_name("old"))
        line.until(lambda: line.state == "missing")
        root.mkdir()
    else:
        root.with_name("new").mkdir()
        root.rename(root.with_name("old"))
        root.with_name("new").rename(root)
    (root / "b.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif")
    line.until(lambda: line.state == "events" and line.watcher._full_scan is None)
    (root / "c.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif", "c.tif")
    assert line.watcher.status().found_without_event <= 1


def test_files_that_wait_while_the_folder_is_away_are_not_called_vanished(root: Path, start: Start) -> None:
    """A share that drops out for a moment brings its files back."""
    line = start(root, settle_seconds=0.3).ready()
    (root / "a.tif").write_bytes(b"1")
    line.until(lambda: line.watcher.status().waiting == 1)
    root.rename(root.with_name("away"))
    line.until(lambda: line.state == "missing")
    root.with_name("away").rename(root)
    line.until_paths("a.tif")
    assert line.watcher.status().vanished_before_settle == 0


def test_a_file_where_the_folder_should_be(root: Path, start: Start) -> None:
    """Said, and survived."""
    line = start(root / "camera")
    (root / "camera").write_bytes(b"")
    line.turn()
    assert (line.state, "is not a folder" in line.watcher.status().detail) == ("missing", True)
    (root / "camera").unlink()
    (root / "camera").mkdir()
    line.until(lambda: line.state == "events")


def test_symlinked_folder_and_where_it_points_to_next(root: Path, tmp_path: Path, start: Start) -> None:
    """Events come through a link to the folder, and go on when the link is turned to another one."""
    (tmp_path / "link").symlink_to(root)
    line = start(tmp_path / "link").ready()
    (root / "a.tif").write_bytes(b"1")
    line.until_paths("a.tif")
    (tmp_path / "other").mkdir()
    (tmp_path / "turned").symlink_to("other")
    (tmp_path / "turned").rename(tmp_path / "link")
    line.until(lambda: line.watcher._folder.root == str(tmp_path / "other"))
    line.until(lambda: line.watcher._full_scan is None and not line.watcher._scan_wanted)
    (tmp_path / "other" / "b.tif").write_bytes(b"1")
    line.until_paths("a.tif", "b.tif")
    assert line.watcher.status().found_without_event == 0


@pytest.mark.root
@needs_root
def test_mount_unmounted_and_mounted_again(root: Path, start: Start) -> None:
    """Also between two looks at the folder, when device and inode come back the same: nothing else would tell."""

    def mount() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)

    mount()
    try:
        line = start(root).ready()
        assert line.state == "events"
        expected = []
        for turn in range(3):
            subprocess.run(["umount", root], check=True)
            if turn == 2:
                line.turns(1.2)
            mount()
            (root / f"{turn}-first.tif").write_bytes(b"1")
            expected.append(f"{turn}-first.tif")
            line.until_paths(*expected)
            (root / f"{turn}-event.tif").write_bytes(b"1")
            expected.append(f"{turn}-event.tif")
            line.until_paths(*expected)
        line.watcher.close()
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


# What cannot be read


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """Be an ordinary user, to whom permissions mean something, with a folder of their own."""
    path = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield path
    else:
        os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            yield path
        finally:
            os.seteuid(0)
    shutil.rmtree(path)


def test_unreadable_subfolder_stops_nothing_and_its_files_come_later(ordinary_user: Path, start: Start) -> None:
    """It is counted and named; once readable, what is in it comes, and then by events."""
    root = ordinary_user
    for name in ("locked", "open"):
        (root / name).mkdir()
        (root / name / "a.tif").write_bytes(b"1")
    (root / "locked").chmod(0)
    line = start(root).ready()
    line.until_paths("open/a.tif")
    status = line.watcher.status()
    assert (status.state, status.unreadable_last_scan, status.error) == ("events", 1, "locked: Permission denied")
    (root / "locked").chmod(0o700)
    line.until_paths("open/a.tif", "locked/a.tif")
    (root / "locked" / "b.tif").write_bytes(b"1")
    line.until_paths("open/a.tif", "locked/a.tif", "locked/b.tif")
    line.watcher.request_scan()
    line.until(lambda: line.watcher.status().unreadable_last_scan == 0)
    assert line.watcher.status().error == ""


def test_folder_that_may_be_listed_but_not_entered(ordinary_user: Path, start: Start) -> None:
    """Its files are seen by name only: counted as unreadable, and they come when they can be looked at."""
    (ordinary_user / "d").mkdir()
    for number in range(30):
        (ordinary_user / "d" / f"{number}.tif").write_bytes(b"1")
    (ordinary_user / "d").chmod(0o400)
    line = start(ordinary_user).ready()
    assert line.watcher.status().unreadable_last_scan == 30
    (ordinary_user / "d").chmod(0o700)
    line.until(lambda: len(line.paths) == 30)


def test_camera_folder_unreadable_for_a_while(ordinary_user: Path, start: Start) -> None:
    """A state with its reason; files that came meanwhile are found as soon as it ends."""
    root = ordinary_user / "camera"
    root.mkdir()
    line = start(root).ready()
    root.chmod(0)
    line.until(lambda: line.state == "unreadable")
    assert "Permission denied" in line.watcher.status().detail
    root.chmod(0o300)
    (root / "a.tif").write_bytes(b"1")
    root.chmod(0o700)
    line.until_paths("a.tif")
    assert line.state == "events"


# Events that fail


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
    assert most < 100 + watcher.SLICE_ENTRIES


def test_live_files_do_not_wait_for_a_long_scan(root: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a scan is under way that never ends, events are taken and files are handed out."""

    class EndlessScan(Scan):
        @property
        def done(self) -> bool:
            return False

        def read(self, entries: int) -> list[Found]:  # noqa: ARG002 (the real one's signature)
            return []

    monkeypatch.setattr("agent.watching.watcher.Scan", EndlessScan)
    line = start(root)
    line.turn()
    expected = []
    for number in range(5):
        (root / f"{number}.tif").write_bytes(b"1")
        expected.append(f"{number}.tif")
        line.until_paths(*expected)
    assert line.watcher._full_scan is not None
    assert not line.watcher.first_scan_done


def test_polling_needs_no_events(root: Path, start: Start) -> None:
    """With `watch: poll` the rescan finds everything, and no thread is started."""
    before = threading.active_count()
    line = start(root, watch="poll", rescan_seconds=0.2).ready()
    assert (line.state, line.watcher.status().detail) == ("polling", "so configured")
    assert threading.active_count() == before
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
        line.turn()
        assert line.state == "events"
        assert line.watcher.status().detail.startswith("2 folders")
        (root / "d" / "e" / "a.tif").write_bytes(b"1")
        line.until_paths("d/e/a.tif")
    assert line.watcher.status().found_without_event == 1
    line.until(lambda: line.watcher.status().detail == "")


def _watches_of_this_process() -> int:
    return sum(info.read_text().count("inotify wd:") for info in Path("/proc/self/fdinfo").iterdir() if info.exists())


def _watched_folders(line: Line) -> set[str]:
    listening = line.watcher._folder._events
    assert listening is not None
    return {folder for folder, _ in listening._watched.values()}


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
    line.until(lambda: "again/sub" in _watched_folders(line))
    assert _watches_of_this_process() == before + 3
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
    descriptors = _descriptors()

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for target, name, refuse in ((os, "pipe", _refuse), (threading.Thread, "start", no_thread)):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, refuse)
            line = start(root)
            line.turn()
        assert line.state == "polling"
        assert line.watcher.status().detail.startswith("no file events")
        assert _descriptors() == descriptors


def test_a_folder_made_anew_while_the_old_one_is_still_open_is_watched(root: Path, start: Start) -> None:
    """The end of the old one's watch comes late, after the new one was read: it must not end the new one's."""
    line = start(root).ready()
    (root / "d").mkdir()
    line.until(lambda: "d" in _watched_folders(line))
    with os.scandir(root / "d"):  # as a scan has it
        (root / "d").rmdir()
        (root / "d").mkdir()
        (root / "d" / "first.tif").write_bytes(b"1")
        line.until_paths("d/first.tif")
    line.until(lambda: line.watcher._folder_scan is None and not line.watcher._new_folders)
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
    assert len(listening._inotify._watch_for_wd) == len(_watched_folders(line)) == 1


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


# Status and errors


def test_a_share_that_hangs_is_called_unreachable_by_others(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step hangs; the status can be read all the same and says so after three intervals."""
    line = start(root, watch="poll", rescan_seconds=0.1).ready()
    gate, entered = threading.Event(), threading.Event()

    def hang(*_: object) -> list[Found]:
        entered.set()
        gate.wait(DEADLINE_SECONDS)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(Scan, "read", hang)
        thread = threading.Thread(target=lambda: line.until(gate.is_set))
        thread.start()
        assert entered.wait(DEADLINE_SECONDS)
        assert line.watcher.status(time.monotonic() + 0.05).state == "polling"
        assert line.watcher.status(time.monotonic() + 0.5).state == "unreachable"
        gate.set()
        thread.join()
    line.until(lambda: line.state == "polling")


def test_a_scan_that_fails_in_the_middle_is_tried_again(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An I/O error in one folder: the others are read, the status names it, the next scan brings its files."""
    for name in ("bad", "good"):
        (root / name).mkdir()
        (root / name / "a.tif").write_bytes(b"1")
    real = os.scandir

    def failing(path: Any) -> Any:
        if str(path).endswith("/bad"):
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr("agent.watching.scan.os.scandir", failing)
        line = start(root, watch="poll", rescan_seconds=0.1).ready()
        assert line.paths == ["good/a.tif"]
        assert line.watcher.status().error == "bad: Input/output error"
    line.until_paths("good/a.tif", "bad/a.tif")
    line.until(lambda: line.watcher.status().error == "")


def test_request_scan_wakes_the_waiting_thread(root: Path, start: Start) -> None:
    """From any thread, at once."""
    line = start(root, watch="poll").ready()
    (root / "a.tif").write_bytes(b"1")
    threading.Timer(0.05, line.watcher.request_scan).start()
    line.until_paths("a.tif")


MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/cameras rw - nfs4 nas:/c rw
31 30 8:2 / /srv/cameras/local rw master:2 propagate_from:3 - xfs /dev/sdb rw
32 22 0:41 / /mnt/with\040space\134and\011tab rw - cifs //nas/x rw
33 22 0:42 / /srv/twice rw - ext4 /dev/sdc rw
34 33 0:43 / /srv/twice rw - fuse.sshfs nas: rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "file_system", "has_events"),
    [
        ("/", "ext4", True),
        ("/srv/camerasX", "ext4", True),
        ("/srv/cameras", "nfs4", False),
        ("/srv/cameras/top", "nfs4", False),
        ("/srv/cameras/local/a", "xfs", True),
        ("/mnt/with space\\and\ttab/a", "cifs", False),
        ("/srv/twice/a", "fuse.sshfs", False),
    ],
)
def test_the_file_system_is_found_by_the_longest_mount_point(path: str, file_system: str, has_events: bool) -> None:
    """With the kernel's octal escapes, by whole names, and the last of mounts on top of each other."""
    assert mount_of(path, MOUNTINFO)[1] == file_system
    assert gives_events(file_system) == has_events


def test_the_real_mount_table_can_be_read() -> None:
    """This machine's root has a file system."""
    assert mount_of("/proc/self") == ("/proc", "proc")
