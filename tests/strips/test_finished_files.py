"""The loop that disposes of a camera's files, called by hand: what it records, what it says, what it does again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli import show
from agent.config import Config
from agent.control.commands import handle
from agent.control.context import Context
from agent.ledger import Ledger, NewResult, open_ledger
from agent.records import FileIdentity, SettledFile
from agent.strips import disposal, finished_files
from agent.strips.finished_files import (
    ALARM_AFTER_SECONDS,
    PAUSE_SECONDS,
    ROWS_EVERY_SECONDS,
    STAYING_EVERY_SECONDS,
    CameraFiles,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Line:
    """A ledger, a camera whose files are removed once they are done, and a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "camera"
        self.folder.mkdir()
        (self.folder / "notes.txt").touch()  # an empty folder would prove nothing
        camera = {"name": "top", "folder": str(self.folder), "when_done": "delete"}
        self.config = Config.model_validate({"agent": {"state_folder": str(folder)}, "cameras": [camera]})
        self.ledger: Ledger = open_ledger(folder / "ledger.db")
        self.now = 0.0
        self.files = self.make_files()

    def make_files(self) -> CameraFiles:
        """Make the loop, as a start does."""
        camera = self.config.cameras[0]
        return CameraFiles(camera, self.ledger, keep_days=90, folder_is_away=lambda _: False, clock=lambda: self.now)

    def bring(self, name: str, digest: str | None = None, folder: Path | None = None) -> Path:
        """Bring a file, of the camera's or another folder, to its acknowledgement; it is due then."""
        folder = folder or self.folder
        path = folder / name
        if not os.path.lexists(path):
            path.write_bytes(name.encode())
        self.ledger.strips.begin([SettledFile("top", name, FileIdentity.of(path.lstat()))], str(folder))
        strip = self.ledger.strips.next_waiting("top", 0, ())
        assert strip is not None
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if digest is None else digest
        result = NewResult("ok", "", 0.1, "m", 0, sha256, "event/strip/top", dispose=True)
        self.ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
        self.ledger.outbox.acknowledge([m.row for m in self.ledger.outbox.next_outbox_messages(0, 10)])
        return path

    def steps(self, seconds: float = 0.0, number: int = 3) -> None:
        """Let time pass, then step a few times."""
        self.now += seconds
        for _ in range(number):
            self.files.step()

    def status(self) -> str:
        """Return what `strip-agent status` shows of the ledger."""
        return show.status(handle(Context(self.config, self.ledger, {}), {"command": "status"}, "tester"))


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Make one."""
    made = Line(tmp_path)
    yield made
    made.ledger.database.close()


def test_a_disposal_that_is_not_allowed_raises_an_alarm_after_a_minute(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, forbidden: the alarm and the reason are there until a whole round has gone without an error."""
    real = disposal.dispose

    def refuse(folder: Path, strip: Any, *rest: Any) -> Any:
        if strip.path == "b.tif":
            raise OSError(errno.EROFS, "Read-only file system")
        return real(folder, strip, *rest)

    paths = [line.bring(name) for name in ("a.tif", "b.tif", "c.tif")]
    with monkeypatch.context() as patched:
        patched.setattr(finished_files, "dispose", refuse)
        line.steps()
        assert line.files.alarms() == []
        for _ in range(int(ALARM_AFTER_SECONDS / PAUSE_SECONDS) + 1):
            line.steps(PAUSE_SECONDS)
        assert [path.exists() for path in paths] == [False, True, False], "one error keeps no other file"
        assert line.files.alarms() == ["camera_top_files_cannot_be_disposed_of"]
        assert line.files.error == "cannot delete b.tif: Read-only file system"
    line.steps(PAUSE_SECONDS, 5)
    assert not paths[1].exists()
    assert (line.files.alarms(), line.files.error) == ([], "")


def test_files_that_nothing_may_touch_are_named_until_they_are_gone(line: Line) -> None:
    """A link in a file's place: it stays, the status names it and why; that ends when people take it away."""
    path = line.bring("a.tif")
    precious = line.folder.parent / "precious"
    precious.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(precious)
    line.bring("never read.tif", digest="")
    line.steps()
    assert path.is_symlink()
    assert precious.exists()
    named = line.ledger.strips.name_staying(10)["top"]
    assert [text.partition(":")[0] for text in named] == ["a.tif", "never read.tif"]
    assert "a.tif is a symbolic link" in line.status()
    assert "never read.tif was never read" in line.status()
    assert line.ledger.report.audit().balanced
    line.files = line.make_files()  # over a restart
    line.steps(STAYING_EVERY_SECONDS, 5)
    assert path.is_symlink()
    path.unlink()
    (line.folder / "never read.tif").unlink()
    line.steps(STAYING_EVERY_SECONDS, 5)
    assert line.ledger.strips.name_staying(10) == {}
    assert "stays" not in line.status()


def test_what_the_agent_removed_before_a_kill_counts_as_removed_by_it(line: Line) -> None:
    """Killed between the removal and its record: a file of that name with the same bytes is new all the same."""
    path = line.bring("a.tif")
    other = line.bring("b.tif")
    line.ledger.strips.begin_disposal([1])
    path.unlink()
    other.unlink()  # by somebody else, before it was tried
    line.files = line.make_files()
    line.steps()
    shown = {row["file"]: line.ledger.report.show_strip(row["strip_id"])["disposal"] for row in all_strips(line)}  # type: ignore[index]
    assert shown == {"a.tif": "done", "b.tif": "gone"}
    path.write_bytes(b"a.tif")
    file = SettledFile("top", "a.tif", FileIdentity.of(path.lstat()))
    if line.ledger.strips.begin([file]):  # the number of the removed one is used again
        assert line.ledger.strips.begin_by_digest(file, hashlib.sha256(b"a.tif").hexdigest(), is_there=True)
    assert line.ledger.report.balances()[0].seen == 3


def all_strips(line: Line) -> list[dict[str, Any]]:
    """Return all strips of the ledger."""
    return line.ledger.report.list_strips(state=None, camera=None, limit=100)


def test_files_that_are_kept_after_all_are_forgotten_as_troubles(line: Line) -> None:
    """`when_done` back to keep: nothing is due, nothing is named."""
    line.bring("a.tif", digest="")
    line.steps()
    assert line.ledger.strips.name_staying(10)
    line.ledger.strips.keep_files("top")
    assert line.ledger.strips.name_staying(10) == {}
    assert line.ledger.strips.retry([1]) == {}


def test_a_row_whose_file_has_other_times_is_not_forgotten(line: Line) -> None:
    """A touched file that no scan has met yet would be judged again; one that was written over would not."""
    first = FileIdentity(5, 1, 1)
    for identity in (first, FileIdentity(5, 2, 2)):
        line.ledger.strips.begin([SettledFile("top", "a.tif", identity)])
    old, new = (line.ledger.strips.next_waiting("top", 0, skip) for skip in ((), (1,)))
    assert old is not None
    assert new is not None
    (line.folder / "a.tif").write_bytes(b"12345")
    assert line.files._file_is_gone(old)
    assert not line.files._file_is_gone(new)
    (line.folder / "a.tif").write_bytes(b"123456")
    assert line.files._file_is_gone(new)


def test_the_loop_says_when_it_is_needed_again(line: Line) -> None:
    """Kept files need a look at old rows each hour; files that are removed may be due at any moment."""
    assert line.files.step() == 0
    line.config = line.config.model_copy(
        update={"cameras": [line.config.cameras[0].model_copy(update={"when_done": "keep"})]}
    )
    line.files = line.make_files()
    line.files.step()
    assert line.files.step() == ROWS_EVERY_SECONDS
    line.now += ROWS_EVERY_SECONDS - 60
    assert line.files.step() == 60


def test_a_file_of_a_folder_that_is_not_the_cameras_any_more_stays(line: Line, tmp_path: Path) -> None:
    """Nothing allows a change there; the files of the present folder go as before."""
    before = tmp_path / "before"
    before.mkdir()
    (before / "1.tif").write_bytes(b"1.tif")
    line.bring("1.tif", folder=before)
    line.bring("2.tif")
    line.steps()
    assert [path.name for path in before.iterdir()] == ["1.tif"]
    assert [path.name for path in line.folder.iterdir()] == ["notes.txt"]
    assert line.ledger.strips.due_for_disposal("top", 0, 10) == []
