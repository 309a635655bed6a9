"""Moving and removing camera files: only the bytes that were judged, and nothing outside of the folders, ever."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.records import FileIdentity, Strip
from agent.strips import disposal
from agent.strips.disposal import Disposal, dispose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JUDGED = b"the strip that was judged" * 1000
DIGEST = hashlib.sha256(JUDGED).hexdigest()
HIDDEN = ".strip-agent-0123456789abcdef"


class Line:
    """A camera's folder with a judged file, a done folder, and another camera's folder with a precious one."""

    def __init__(self, folder: Path, done: Path) -> None:
        self.camera, self.done, self.other = folder / "a", done, folder / "b"
        for place in (self.camera / "day", self.done, self.other):
            place.mkdir(parents=True)
        self.file = self.camera / "day/strip.tif"
        self.file.write_bytes(JUDGED)
        self.precious = self.other / "strip.tif"
        self.precious.write_bytes(JUDGED)
        self.strip = Strip(1, HIDDEN[-16:], "a", "day/strip.tif", FileIdentity.of(self.file.lstat()), 0, 1, 0)

    def dispose(self, when_done: str, digest: str = DIGEST) -> Disposal:
        """Dispose of the judged file."""
        return dispose(self.camera, self.strip, digest, self.done if when_done == "move" else None)

    def left(self) -> dict[str, bytes]:
        """Return every plain file of the camera's folder."""
        return files_below(self.camera)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return name -> content of every plain file below a folder; links are not followed."""
    found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if stat.S_ISREG(path.lstat().st_mode)}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Make one whose done folder is on the same file system."""
    return Line(tmp_path, tmp_path / "done")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Line]:
    """Make one whose done folder is on another file system."""
    done = Path("/dev/shm") / f"done-{os.getpid()}-{tmp_path.name}"
    if not done.parent.is_dir() or done.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    yield Line(tmp_path, done)
    shutil.rmtree(done)


@pytest.fixture(params=["delete", "move", "copy"])
def way(request: pytest.FixtureRequest) -> tuple[Line, str]:
    """Give each way of disposal: removed, moved, moved to another file system."""
    made: Line = request.getfixturevalue("far" if request.param == "copy" else "line")
    return made, "delete" if request.param == "delete" else "move"


def test_the_judged_file_goes(way: tuple[Line, str]) -> None:
    """Removed, or moved with its time and mode; nothing hidden is left behind, and no other file is touched."""
    line, when_done = way
    line.file.chmod(0o640)
    os.utime(line.file, ns=(10**18, 10**18))  # the times do not matter: the bytes decide
    assert line.dispose(when_done) == Disposal("done")
    assert line.left() == {}
    moved = files_below(line.done)
    assert moved == ({"day/strip.tif": JUDGED} if when_done == "move" else {})
    if moved:
        found = (line.done / "day/strip.tif").stat()
        assert (found.st_mtime_ns, stat.S_IMODE(found.st_mode)) == (10**18, 0o640)
    assert line.precious.read_bytes() == JUDGED
    assert line.dispose(when_done) == Disposal("gone")


def test_a_name_that_is_taken_in_the_done_folder_is_not_written_over(way: tuple[Line, str]) -> None:
    """The file gets a name of its own, also where the name is as long as names can be."""
    line, when_done = way
    long = "x" * 251 + ".tif"
    for name in ("strip.tif", long):
        path = line.camera / "day" / name
        for _ in range(3):
            path.write_bytes(JUDGED)
            strip = Strip(1, HIDDEN[-16:], "a", f"day/{name}", FileIdentity.of(path.lstat()), 0, 1, 0)
            assert dispose(line.camera, strip, DIGEST, line.done if when_done == "move" else None).outcome == "done"
    assert len(files_below(line.done)) == (6 if when_done == "move" else 0)


@pytest.mark.parametrize("digest", ["", DIGEST])
@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a pipe", "a folder", "a linked folder on the way"])
def test_what_is_no_plain_file_is_never_moved_copied_or_removed(way: tuple[Line, str], kind: str, digest: str) -> None:
    """It stays, and is named with the reason; whatever a link points to is not even read."""
    line, when_done = way
    line.file.unlink()
    if kind == "a linked folder on the way":
        line.file.parent.rmdir()
        line.file.parent.symlink_to(line.other)
    elif kind == "a pipe":
        os.mkfifo(line.file)
    elif kind == "a folder":
        line.file.mkdir()
    else:
        line.file.symlink_to(line.precious if kind == "a link" else line.other / "nothing")
    disposed = line.dispose(when_done, digest)
    assert disposed.outcome == "stays"
    assert disposed.why
    assert os.path.lexists(line.file)
    assert files_below(line.other) == {"strip.tif": JUDGED}
    assert files_below(line.done) == {}


def test_an_empty_digest_matches_nothing(way: tuple[Line, str]) -> None:
    """Nobody knows which bytes were judged: the file of the same size and times stays, and is named."""
    line, when_done = way
    disposed = line.dispose(when_done, digest="")
    assert disposed.outcome == "stays"
    assert "never read" in disposed.why
    assert line.left() == {"day/strip.tif": JUDGED}


def test_another_file_of_the_same_size_and_times_stays(way: tuple[Line, str]) -> None:
    """It has not been judged: it is a strip of its own."""
    line, when_done = way
    found = line.file.stat()
    line.file.write_bytes(b"?" * len(JUDGED))
    os.utime(line.file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert line.dispose(when_done) == Disposal("replaced")
    assert line.left() == {"day/strip.tif": b"?" * len(JUDGED)}
    assert files_below(line.done) == {}


def test_one_name_of_several_goes_and_the_other_names_stay(way: tuple[Line, str]) -> None:
    """A hard link to another camera's file: that file stays, with all its bytes."""
    line, when_done = way
    line.file.unlink()
    os.link(line.precious, line.file)
    assert line.dispose(when_done).outcome == "done"
    assert line.precious.read_bytes() == JUDGED
    assert line.left() == {}


def swap(monkeypatch: pytest.MonkeyPatch, call: str, attack: Callable[[], None]) -> None:
    """Have somebody act just before the first time that one of the system's calls is made."""
    real = getattr(os, call)
    acted = False

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal acted
        if not acted:
            acted = True
            attack()
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, wrapped)


@pytest.mark.parametrize("call", ["open", "stat", "rename", "pread", "fstat", "unlink"])
@pytest.mark.parametrize("what", ["parent becomes a link", "file becomes a link", "file becomes another", "a pipe"])
def test_no_race_reaches_out_of_the_folders(
    way: tuple[Line, str], monkeypatch: pytest.MonkeyPatch, call: str, what: str
) -> None:
    """Whoever owns the camera's folder swaps things between any two steps: the other camera's file is untouched."""
    line, when_done = way

    unjudged = b"a file that nobody has judged"
    plant: dict[str, Callable[[Path], object]] = {
        "file becomes a link": lambda victim: victim.symlink_to(line.precious),
        "a pipe": os.mkfifo,
        "file becomes another": lambda victim: victim.write_bytes(unjudged),
    }

    def attack() -> None:
        if what == "parent becomes a link":
            line.file.parent.rename(line.camera / "away")
            line.file.parent.symlink_to(line.other)
            return
        for name in ("strip.tif", HIDDEN):
            victim = line.file.with_name(name)
            if os.path.lexists(victim):
                victim.rename(line.camera / f"was {name}")
                plant[what](victim)

    swap(monkeypatch, call, attack)
    try:
        disposed = line.dispose(when_done)
    except OSError:  # tried again later
        disposed = None
    monkeypatch.undo()
    assert files_below(line.other) == {"strip.tif": JUDGED}
    assert set(files_below(line.done).values()) <= {JUDGED}
    assert not [path for path in line.done.rglob("*") if path.is_symlink() or path.is_fifo()]
    for _ in range(3):  # whatever was left on its way is finished or given back by the next calls
        try:
            disposed = line.dispose(when_done)
        except OSError as error:
            pytest.fail(f"cannot go on after {disposed}: {error}")
    if what == "file becomes another" and unjudged in line.left().values():
        hidden = [name for name, content in line.left().items() if content == unjudged and HIDDEN in name]
        assert not hidden, "a file that nobody has judged is not seen by the watching"


def test_a_file_that_came_in_between_has_its_name_again_when_the_call_is_over(
    way: tuple[Line, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed over just before it is hidden: it was never judged, nobody calls again, and the watching must find it."""
    line, when_done = way
    unjudged = b"a file that nobody has judged"

    def attack() -> None:
        line.file.unlink()
        line.file.write_bytes(unjudged)

    swap(monkeypatch, "rename", attack)
    assert line.dispose(when_done).outcome == "replaced"
    assert line.left() == {"day/strip.tif": unjudged}
    assert files_below(line.done) == {}


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
@pytest.mark.parametrize("place", ["subfolder", "hidden name", "name"])
@pytest.mark.parametrize("fixture", ["line", "far"])
def test_who_owns_the_done_folder_reaches_nothing_outside(
    request: pytest.FixtureRequest, fixture: str, kind: str, place: str
) -> None:
    """Links and pipes planted there are neither followed nor written over; the camera's file stays or goes unharmed."""
    line: Line = request.getfixturevalue(fixture)
    planted = line.done / {"subfolder": "day", "hidden name": f"day/{HIDDEN}", "name": "day/strip.tif"}[place]
    planted.parent.mkdir(exist_ok=True)
    if kind == "link":
        planted.symlink_to(line.other if place == "subfolder" else line.precious)
    elif kind == "pipe":
        os.mkfifo(planted)
    else:
        planted.mkdir()
    before = planted.lstat()
    try:
        outcome = line.dispose("move").outcome
    except OSError:  # a pipe where a folder should be
        outcome = "not now"
    assert files_below(line.other) == {"strip.tif": JUDGED}
    assert (planted.lstat().st_ino, planted.lstat().st_mode) == (before.st_ino, before.st_mode)
    moved = list(files_below(line.done).values())
    assert (outcome == "done") == (moved == [JUDGED])
    assert list(line.left().values()) == ([] if outcome == "done" else [JUDGED])


def test_a_copy_is_never_readable_by_more_people_than_the_file(far: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while it is being written."""
    far.file.chmod(0o600)
    modes = []
    real = disposal._write_what_was_judged

    def look(descriptor: int, copy: int, judged: Any) -> None:
        modes.append(stat.S_IMODE(os.fstat(copy).st_mode))
        real(descriptor, copy, judged)

    monkeypatch.setattr(disposal, "_write_what_was_judged", look)
    assert far.dispose("move").outcome == "done"
    assert modes == [0o600]
    assert stat.S_IMODE((far.done / "day/strip.tif").stat().st_mode) == 0o600


def test_a_copy_takes_no_more_than_the_known_size(far: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows without end while it is copied does not fill the other disk."""
    real = disposal._copy

    def grow(descriptor: int, target: int, judged: Any) -> None:
        with far.file.open("ab") as file:
            file.write(b"more" * 100_000)
        real(descriptor, target, judged)

    monkeypatch.setattr(disposal, "_copy", grow)
    assert far.dispose("move").outcome == "replaced"
    assert files_below(far.done) == {}
    assert list(far.left().values()) == [JUDGED + b"more" * 100_000]


def test_a_large_file_never_lies_in_memory_as_a_whole(way: tuple[Line, str]) -> None:
    """It is compared and copied piece by piece: what a large piece takes once, glibc does not give back."""
    line, when_done = way
    content = JUDGED * 200
    line.file.write_bytes(content)
    line.strip = replace(line.strip, identity=FileIdentity.of(line.file.lstat()))
    digest = hashlib.sha256(content).hexdigest()
    tracemalloc.start()
    try:
        assert line.dispose(when_done, digest) == Disposal("done")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 1 << 19


class PowerCutError(BaseException):
    """The process ends here."""


CALLS = ("open", "stat", "rename", "pread", "fstat", "unlink", "fsync", "mkdir", "write", "fchmod", "utime", "close")


def test_a_kill_between_any_two_calls_loses_nothing_and_doubles_nothing(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment the judged bytes are in one of the two folders; the next call brings it to its end."""
    far: Line = request.getfixturevalue("far")
    near = Line(tmp_path / "near", tmp_path / "near/done")
    for line, when_done in ((near, "delete"), (near, "move"), (far, "move")):
        place = 0
        while True:
            shutil.rmtree(line.done)
            line.done.mkdir()
            line.file.write_bytes(JUDGED)
            countdown = [place]
            with monkeypatch.context() as patched:
                for call in CALLS:
                    patched.setattr(os, call, cut_off(getattr(os, call), countdown))
                try:
                    line.dispose(when_done)
                    done = True
                except PowerCutError:
                    done = False
            there = [*line.left().values(), *files_below(line.done).values()]
            assert JUDGED in there or when_done == "delete", (when_done, place)
            if not done:
                assert line.dispose(when_done).outcome in {"done", "gone"}, (when_done, place)
            assert line.left() == {}, (when_done, place)
            assert files_below(line.done) == ({"day/strip.tif": JUDGED} if when_done == "move" else {}), place
            if done:
                break
            place += 1
        assert place > 10


def cut_off(real: Callable[..., Any], countdown: list[int]) -> Callable[..., Any]:
    """Let the process end when it has made so many calls; it makes none afterwards, except to close."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if countdown[0] <= 0:
            if real.__name__ == "close":
                return real(*args, **kwargs)
            raise PowerCutError
        countdown[0] -= 1
        return real(*args, **kwargs)

    return wrapped


def test_everything_is_flushed_before_the_source_goes(way: tuple[Line, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy: its bytes, then its name, before the source is unlinked. At the end the folders of both names."""
    line, when_done = way
    told: list[tuple[str, str]] = []

    def note(call: str, at: Callable[..., int]) -> None:
        real = getattr(os, call)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            told.append((call, str(Path(f"/proc/self/fd/{at(*args, **kwargs)}").readlink())))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, call, wrapped)

    note("fsync", lambda descriptor: descriptor)
    note("unlink", lambda _, dir_fd: dir_fd)
    line.dispose(when_done)
    monkeypatch.undo()
    source, target = ("fsync", f"{line.camera}/day"), ("fsync", f"{line.done}/day")
    assert source in told[-2:]
    if when_done == "delete":
        return
    assert target in told[-2:]
    copied, removed = ("fsync", f"{line.done}/day/{HIDDEN}"), ("unlink", f"{line.camera}/day")
    if line.done.stat().st_dev != line.camera.stat().st_dev:
        assert told.index(copied) < told.index(target, told.index(copied)) < told.index(removed)
        assert source in told[told.index(removed) :]


def test_a_full_done_folder_leaves_the_file_where_it_was(far: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half copy is left, the source keeps its name, and it is moved once there is room."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(disposal, "_write_what_was_judged", full)
        with pytest.raises(OSError, match="No space"):
            far.dispose("move")
    assert far.left() == {"day/strip.tif": JUDGED}
    assert files_below(far.done) == {}
    assert far.dispose("move").outcome == "done"
