"""Every way in which a file can arrive in a camera's folder: one strip, one message, judged as a whole.

The folder is read once an hour, so that nothing but an event can have found what comes here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import Reason
from tests.faults.camera_line import camera_line
from tests.faults.disks import needs_root, small_disk
from tests.faults.reliability import Row, tell
from tests.helpers.box import results, unique_results
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.camera_line import CameraLine

pytestmark = pytest.mark.timeout(400)
SETTLE_SECONDS = 0.5
INCOMPLETE_SECONDS = 15.0


@pytest.fixture
def line(tmp_path: Path) -> Iterator[CameraLine]:
    """Run a box that has judged a few strips."""
    checks = {"incomplete_seconds": INCOMPLETE_SECONDS}
    camera = {"settle_seconds": SETTLE_SECONDS, "rescan_seconds": 3600}
    with camera_line(tmp_path, camera=camera, checks=checks) as line:
        line.box.start()
        line.wait_for_state("events")
        line.wait_for_results(line.write(3))
        yield line
        assert line.box.stop() == 0


def check(line: CameraLine, fault: str, how: str, names: list[str], *, invalid: tuple[str, ...] = ()) -> None:
    """Wait for these strips, let both judges speak, and tell it."""
    began = time.monotonic()
    line.wait_for_results(names)
    took = time.monotonic() - began
    line.judge(invalid={("top", name) for name in invalid})
    figures = f"{len(names)} strips, {len(names)} messages, the last one {took:.1f} s after the last file"
    promise = "one strip, one message, judged when it is whole; found by its event"
    tell(Row("Files", fault, promise, how, figures))


def half_written(line: CameraLine, name: str) -> Callable[[], bool]:
    """Whether the ledger says that a file was found incomplete."""

    def waits() -> bool:
        named = line.box.ask("audit")["unpublished"]
        return any(item["file"] == name and "half written" in item["why"] for item in named)

    return waits


def test_a_slow_writer(line: CameraLine) -> None:
    """Written in many small pieces for longer than the settle time: not judged before the last byte."""
    names = [f"slow {number}.tif" for number in range(3)]
    data = [line.next_strip(name).read_bytes() for name in names]
    pieces = 20
    for piece in range(pieces):
        for name, whole in zip(names, data, strict=True):
            size = -(-len(whole) // pieces)
            with (line.box.camera() / name).open("ab") as file:
                file.write(whole[piece * size : (piece + 1) * size])
        time.sleep(SETTLE_SECONDS / 10)  # the fault itself
    check(line, "slow writer", "20 pieces in twice the settle time", names)


def test_write_pause_write(line: CameraLine) -> None:
    """Written half, left until the box has looked at it and found it incomplete, then completed."""
    names = [f"paused {number}.tif" for number in range(3)]
    data = {name: line.next_strip(name).read_bytes() for name in names}
    for name, whole in data.items():
        (line.box.camera() / name).write_bytes(whole[: len(whole) // 2])
    for name, whole in data.items():
        wait_for(half_written(line, name), "it was found incomplete")
        with (line.box.camera() / name).open("ab") as file:
            file.write(whole[len(whole) // 2 :])
    check(line, "write, pause, write", "the second half only after the box has found the file incomplete", names)


def test_preallocated_files(line: CameraLine) -> None:
    """A file that has its size from the start is judged when it is filled; one that never is becomes invalid."""
    names = ["sparse.tif", "allocated.tif", "from behind.tif", "never filled.tif"]
    data = {name: line.next_strip(name).read_bytes() for name in names}

    def fill(name: str, *, first: bool) -> None:
        half = len(data[name]) // 2
        behind = first == (name == "from behind.tif")
        with (line.box.camera() / name).open("r+b") as file:
            file.seek(half if behind else 0)
            file.write(data[name][half:] if behind else data[name][:half])

    for name, whole in data.items():
        with (line.box.camera() / name).open("wb") as file:
            if name == "allocated.tif":
                os.posix_fallocate(file.fileno(), 0, len(whole))
            file.truncate(len(whole))
        fill(name, first=True)
    for name in names[:-1]:
        wait_for(half_written(line, name), f"{name} was found incomplete")
        fill(name, first=False)
    line.wait_for_results(names)
    reasons = {result["file"]: result["reason"] for result in results(line.subscriber)}
    assert reasons["never filled.tif"] == Reason.INCOMPLETE
    how = "truncate and posix_fallocate to the full size, half filled, found incomplete, filled; one of them never"
    check(line, "preallocated and half filled", how, names, invalid=("never filled.tif",))


def test_rename_into_place(line: CameraLine) -> None:
    """From a name that is no strip's, from another folder, and by an exchange of two names."""
    folder, names = line.box.camera(), []
    outside = line.box.folder / "outside"
    outside.mkdir()
    for number in range(10):
        name = f"renamed {number}.tif"
        temporary = (folder if number % 2 else outside) / f"{number}.part"
        shutil.copyfile(line.next_strip(name), temporary)
        temporary.rename(folder / name)
        names.append(name)
    check(line, "rename into place", "from a temporary name in the folder, and from another folder", names)


def test_hard_links(line: CameraLine) -> None:
    """A second name of a file elsewhere; and link and unlink, as SFTP servers rename."""
    folder, names = line.box.camera(), []
    for number in range(10):
        name = f"linked {number}.tif"
        temporary = line.box.folder / f"{number}.part"
        shutil.copyfile(line.next_strip(name), temporary)
        (folder / name).hardlink_to(temporary)
        if number % 2:
            temporary.unlink()
        names.append(name)
    check(line, "hard link", "link(2) from a folder that is not watched, half of them with the old name removed", names)


@needs_root
def test_copies_from_another_file_system(line: CameraLine) -> None:
    """Copied as cp, cp -p, mv, install and dd do it, with old times and new ones."""
    folder, names = line.box.camera(), []
    with small_disk(line.box.folder / "stick", 4) as stick:
        for number in range(10):
            name = f"copied {number}.tif"
            source = stick.place / name
            shutil.copyfile(line.next_strip(name), source)
            os.utime(source, (1_600_000_000 + number,) * 2)
            target = str(folder / name)
            command = [["cp"], ["cp", "-p"], ["mv"], ["install"], ["dd", "bs=4096"]][number % 5]
            operands = [f"if={source}", f"of={target}"] if command[0] == "dd" else [str(source), target]
            subprocess.run([*command, *operands], check=True, capture_output=True)
            names.append(name)
    how = "a tmpfs, its files with old times; cp, cp -p, mv, install, dd"
    check(line, "copy from another file system", how, names)


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_strips_that_rsync_holds_back_until_all_are_there(line: CameraLine) -> None:
    """Complete files stand still in `.~tmp~` for longer than settle_seconds: each strip has one result all the same."""
    names = [f"brought/{number}.tif" for number in range(6)]
    source = line.box.folder / "source"
    (source / "brought").mkdir(parents=True)
    for name in names:
        shutil.copyfile(line.next_strip(name), source / name)
    command = ["rsync", "--archive", "--delay-updates", "--bwlimit=100", f"{source}/", f"{line.box.camera()}/"]
    subprocess.run(command, check=True)
    check(line, "rsync --delay-updates", "at 100 kB a second; nothing of what lay in `.~tmp~` was judged", names)


def test_folders_that_come_with_their_first_file(line: CameraLine) -> None:
    """A folder's first file may be older than anybody's watch on it; whole trees that are moved in as well."""
    folder, names = line.box.camera(), []
    for number in range(20):
        name = f"lot {number}/first.tif"
        source = line.next_strip(name)
        (folder / name).parent.mkdir()
        shutil.copyfile(source, folder / name)
        names.append(name)
    for number in range(5):
        name = f"moved {number}/a/b/first.tif"
        built = line.box.folder / f"built {number}"
        (built / "a" / "b").mkdir(parents=True)
        shutil.copyfile(line.next_strip(name), built / "a/b/first.tif")
        built.rename(folder / f"moved {number}")
        names.append(name)
    how = "mkdir and the file at once, 20 times; 5 trees moved in with their files"
    check(line, "folder created together with its first file", how, names)


def test_deep_dated_folders(line: CameraLine) -> None:
    """Year/month/day/hour/lot, a new one with each hour, while the hour before still gets files."""
    folder, names = line.box.camera(), []
    before = folder
    for hour in range(24):
        day = folder / f"2026/{11 + hour // 12:02d}/{30 if hour < 12 else 1:02d}/{hour:02d}/lot/a/b/c/d"
        day.mkdir(parents=True)
        for place in (day, before):
            path = place / f"strip of {hour}.tif"
            name = str(path.relative_to(folder))
            shutil.copyfile(line.next_strip(name), path)
            names.append(name)
        before = day
    how = "9 folders deep, 24 new ones at once, each with its first file and one more later"
    check(line, "deep dated folders", how, names)


def results_of(line: CameraLine, path: Path) -> list[dict[str, Any]]:
    """Return the results of a file's versions, by age of the version."""
    found = [result for result in unique_results(line.subscriber).values() if result["file"] == path.name]
    return sorted(found, key=lambda result: (int(result["captured_ts_ms"]), int(result["seq"])))


def check_versions(line: CameraLine, path: Path, strips: int) -> None:
    """Let both judges speak where one name has many strips: each has one message, and nothing was judged by halves."""
    line.box.wait_until_published(strips)
    facts = line.box.audit()
    assert facts["balanced"], facts["problems"]
    assert facts["strips"]["pending"] == facts["strips"]["dropped"] == 0
    messages = facts["last_seq"]
    assert facts["strips"]["seen"] == messages
    wait_for(lambda: len(unique_results(line.subscriber)) == messages, "every message arrives")
    assert {result["seq"] for result in unique_results(line.subscriber).values()} == set(range(1, messages + 1))
    for result in results_of(line, path):
        assert result["reason"] in {"", Reason.FILE_REPLACED, Reason.INCOMPLETE, Reason.EMPTY_FILE}, result


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[CameraLine]:
    """Run a box that believes quickly that a file is complete."""
    with camera_line(tmp_path, camera={"settle_seconds": 0.05, "rescan_seconds": 3600}) as line:
        line.box.start()
        line.wait_for_state("events")
        yield line
        assert line.box.stop() == 0


def test_the_same_name_written_again_and_again(hasty: CameraLine) -> None:
    """Each version that stood still is a strip of its own; whatever comes in between, the last one is judged."""
    waited, rushed = 12, 61
    path = hasty.box.camera() / "strip.tif"

    def write(number: int, *, in_place: bool) -> None:
        data = (hasty.bad if number % 2 else hasty.good).read_bytes()
        if in_place:
            path.write_bytes(data)
        else:
            path.with_suffix(".part").write_bytes(data)
            path.with_suffix(".part").rename(path)

    for number in range(waited):
        write(number, in_place=False)  # in place a part may stand still if we are held up
        wait_for(lambda: len(results_of(hasty, path)) == number + 1, f"version {number} is judged")  # noqa: B023 - awaited here
    assert [result["verdict"] for result in results_of(hasty, path)] == ["ok", "anomalous"] * (waited // 2)
    for number in range(rushed):
        write(number, in_place=number % 4 < 2)
    last_ms = path.stat().st_mtime_ns // 1_000_000
    wait_for(lambda: results_of(hasty, path)[-1]["captured_ts_ms"] == last_ms, "the last version is judged")
    check_versions(hasty, path, waited + 1)
    found = results_of(hasty, path)
    assert found[-1]["verdict"] == "ok"
    invalid = sum(result["verdict"] == "invalid" for result in found)
    tell(
        Row(
            "Files",
            "same name written again",
            "each version that stood still is a strip of its own; the last one is judged, none is taken for another",
            "good and bad in turn: 12 by rename that are waited for, 61 in place and by rename without a pause",
            f"the 12 judged in order; of the 61 {len(found) - waited} were seen standing still and {invalid} of those "
            "replaced before they were read (invalid); the last one judged",
        )
    )


def test_a_writer_that_is_slower_than_settle_seconds(hasty: CameraLine) -> None:
    """What stood still in between is invalid with its reason, never judged by halves; the whole file is judged."""
    path, pieces = hasty.box.camera() / "strip.tif", 10
    whole = hasty.bad.read_bytes()
    size = -(-len(whole) // pieces)
    for piece in range(pieces):
        with path.open("ab") as file:
            file.write(whole[piece * size : (piece + 1) * size])
        time.sleep(0.2)  # the fault itself: four times settle_seconds
    wait_for(lambda: any(result["verdict"] != "invalid" for result in results_of(hasty, path)), "it is judged")
    check_versions(hasty, path, 1)
    found = results_of(hasty, path)
    assert found[-1]["verdict"] == "anomalous"
    assert {result["verdict"] for result in found[:-1]} <= {"invalid"}
    tell(
        Row(
            "Files",
            "slow writer, slower than settle_seconds allows",
            "invalid (file_replaced) for what stood still in between, never a score for a part; the whole is judged",
            "10 pieces with pauses of four times settle_seconds",
            f"{len(found) - 1} invalid, then anomalous as it is",
        )
    )
