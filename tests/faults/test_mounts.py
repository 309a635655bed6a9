"""A camera's folder that goes away, comes back, hangs, may not be read, or never tells: strips wait, none is lost."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agent.errors import Reason
from agent.names import StripNames
from agent.watching import Probe
from agent.watching.events import FolderEvents, Hints
from agent.watching.mounts import identify
from tests.faults.camera_line import camera_line
from tests.faults.disks import bind_mount, mounts_at, needs_fuse, needs_root, remote_share, small_disk, unmount
from tests.faults.judging import health
from tests.faults.reliability import Row, tell
from tests.helpers.box import results
from tests.helpers.broker import wait_for
from tests.helpers.programs import needs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.camera_line import CameraLine
    from tests.faults.disks import Share

pytestmark = pytest.mark.timeout(400)
DEADLINE_SECONDS = 4.0
GOOD = "waits; no strip is blamed for it, an alarm says it, the other cameras go on; all are judged when it is back"


@contextmanager
def hanging_line(folder: Path) -> Iterator[tuple[CameraLine, Share]]:
    """Run a box with two cameras, one of them on a share that hangs while five of its strips wait."""
    settings = {"camera": {"rescan_seconds": 0.5}, "inference": {"deadline_seconds": DEADLINE_SECONDS}}
    with (
        remote_share(folder / "cameras/top") as share,
        camera_line(folder, cameras=("top", "side"), model_later=True, **settings) as line,
    ):
        line.box.start()
        arrive(line, share)
        line.wait_until_begun(5)
        share.hang()
        line.push()  # a worker that reads the share's strips hangs as well
        yield line, share


def arrive(line: CameraLine, share: Share) -> list[str]:
    """Let the other machine write five strips."""
    names = [f"remote {len(line.written)}-{count}.tif" for count in range(5)]
    for name in names:
        share.put(line.next_strip(name), name)
    return names


def slowest_of(line: CameraLine, strips: int) -> float:
    """Let the other camera write strips one by one; return the seconds that the slowest one took."""
    slowest = 0.0
    for _ in range(strips):
        began = time.monotonic()
        line.wait_for_results(line.write(1, "side"), "side")
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def wait_for_alarm(line: CameraLine, alarm: str, *, on: bool = True) -> None:
    """Wait until the newest `state/health` names the alarm, or no longer does."""
    wait_for(lambda: (alarm in health(line.subscriber).get("alarms", "")) == on, f"{alarm} is {on}")


def test_the_watched_folder_deleted_and_made_again(tmp_path: Path) -> None:
    """An alarm while it is gone; files in the new one come by events, as before."""
    turns = 2
    with camera_line(tmp_path, camera={"rescan_seconds": 3600}) as line:
        line.box.start()
        for turn in range(turns):
            line.wait_for_results(line.write(5))
            shutil.rmtree(line.box.camera())
            line.wait_for_state("missing")
            wait_for_alarm(line, "camera_top_missing")
            line.box.camera().mkdir()
            name = f"turn {turn}/first.tif"
            (line.box.camera() / name).parent.mkdir()
            shutil.copyfile(line.next_strip(name), line.box.camera() / name)
            line.wait_for_results([name])
            wait_for_alarm(line, "camera_top_missing", on=False)
        line.wait_for_results(line.write(5))
        assert "camera top: missing" in line.box.log
        verdict = line.judge()
        assert line.box.stop() == 0
    how = f"rm -r and mkdir with a file at once, {turns} times; no rescan"
    tell(Row("Files", "watched folder deleted and made again", GOOD, how, str(verdict)))


@needs_root
def test_a_share_unmounted_while_strips_wait(tmp_path: Path) -> None:
    """The empty folder that is left proves nothing: they wait, also over a restart, and are judged after the mount."""
    with (
        small_disk(tmp_path / "store", 8) as store,
        camera_line(tmp_path, model_later=True) as line,
        mounts_at(line.box.camera()),
    ):
        camera = line.box.camera()
        bind_mount(store.place, camera)
        line.box.start()
        line.write(10)
        line.wait_until_begun(10)
        unmount(camera)
        assert "nothing is mounted" in line.wait_for_state("missing")
        wait_for_alarm(line, "camera_top_missing")
        line.push()
        wait_for(lambda: line.box.ask("status")["health"]["slots_ready"] == 1, "the model is active")
        assert not results(line.subscriber)
        line.box.kill()
        line.box.start()
        assert "strips wait" in line.wait_for_state("missing")
        wait_for(lambda: line.box.ask("status")["health"]["slots_ready"] == 1, "the model is active")
        assert line.box.ask("status")["strips"]["pending"] == 10
        assert not results(line.subscriber)
        bind_mount(store.place, camera)
        line.wait_for_results(line.write(5))
        verdict = line.judge()
        assert line.box.stop() == 0
    how = "bind mount of a tmpfs taken away under 10 waiting strips; then kill -9 and a start without it; mounted again"
    tell(Row("Files", "share unmounted while strips wait, an empty folder in its place", GOOD, how, str(verdict)))
    assert verdict.invalid == 0


def test_a_file_is_gone_only_from_the_folder_that_is_watched(tmp_path: Path) -> None:
    """Another folder in its place, or none, proves nothing about a file that was in it."""
    folder, away = tmp_path / "camera", tmp_path / "away"
    (folder / "day").mkdir(parents=True)
    (folder / "day/a.tif").touch()
    watched, probe = identify(folder), Probe(folder)
    assert not probe.is_gone("day/a.tif", watched)
    assert probe.is_gone("day/b.tif", watched)
    assert not probe.is_gone("day/b.tif", None)
    folder.rename(away)
    assert not probe.is_gone("day/a.tif", watched)
    folder.mkdir()
    assert not probe.is_gone("day/a.tif", watched)
    folder.rmdir()
    away.rename(folder)
    (folder / "day/a.tif").unlink()
    assert probe.is_gone("day/a.tif", watched)
    assert not probe.hangs


@needs_root
def test_a_share_unmounted_and_mounted_again(tmp_path: Path) -> None:
    """The same one, another one, or files on the bare mount point: what is there is judged, and nothing twice."""
    with (
        small_disk(tmp_path / "store", 8) as store,
        camera_line(tmp_path, camera={"rescan_seconds": 3600}) as line,
        mounts_at(line.box.camera()),
    ):
        camera = line.box.camera()
        line.box.start()
        line.wait_for_state("events")
        bind_mount(store.place, camera)
        line.wait_for_results(line.write(5))
        unmount(camera)
        line.wait_for_state("missing")
        with small_disk(camera, 8):
            line.wait_for_results(line.write(5))
        line.wait_for_state("missing")
        line.wait_for_results(line.write(5))  # somebody writes all the same: the line goes on
        line.wait_for_state("events")
        bind_mount(store.place, camera)
        line.wait_for_results(line.write(5))
        unmount(camera)
        verdict = line.judge()
        assert verdict.repeated == 0
        assert line.box.stop() == 0
    promise = "whatever is there is judged, by events; nothing that was judged before is judged again"
    how = "a bind mount; then a tmpfs; then files on the bare mount point; then the first one again; no rescan"
    tell(Row("Files", "share unmounted, mounted, another one in its place", promise, how, str(verdict)))


@needs_fuse
def test_a_share_without_events(tmp_path: Path) -> None:
    """Files that another machine writes are found by the rescan, and the status says why it polls."""
    rescan_seconds = 1.0
    with (
        remote_share(tmp_path / "cameras/top") as share,
        camera_line(tmp_path, camera={"rescan_seconds": rescan_seconds}) as line,
    ):
        hints = Hints(threading.Event())
        listener = FolderEvents(str(share.place), StripNames.of(["**"], []), hints)
        line.box.start()
        assert "fuse does not tell" in line.wait_for_state("polling")
        slowest = 0.0
        for number in range(3):
            names = [f"{number}-{count}.tif" for count in range(4)]
            for name in names:
                share.put(line.next_strip(name), name)
            began = time.monotonic()
            line.wait_for_results(names)
            slowest = max(slowest, time.monotonic() - began)
        assert hints.take() == ([], [], False), "the share does tell"
        (share.place / "written here").touch()
        wait_for(lambda: hints.take()[0] == ["written here"], "the listener listens")
        listener.close()
        verdict = line.judge()
        assert line.box.stop() == 0
    promise = "found by the rescan; the status says `polling` and why"
    how = (
        f"a FUSE share whose files come from the server's side, rescan_seconds {rescan_seconds:g}; no event was raised"
    )
    tell(Row("Files", "share without events", promise, how, f"{verdict}; slowest {slowest:.1f} s"))


def vanish_too_soon(line: CameraLine, share: Share) -> list[str]:
    """Let a file vanish before it has settled; return those that had settled, because this was held up."""
    settled: list[str] = []

    def counts() -> tuple[int, int, int]:
        status = line.box.ask("status")
        return status["watching"]["top"]["waiting"], status["health"]["strips_vanished"], status["strips"]["seen"]

    for number in range(20):
        name = f"too soon {number}.tif"
        share.put(line.good, name)
        wait_for(lambda: counts() in {(1, 0, number), (0, 0, number + 1)}, "it is seen")  # noqa: B023 - used at once
        share.remove(name)
        wait_for(lambda: counts() in {(0, 1, number), (0, 0, number + 1)}, "it is counted")  # noqa: B023 - used at once
        if counts() == (0, 1, number):
            return settled
        line.written.add(("top", name))
        settled.append(name)
    pytest.fail("each of them had settled before it could be removed")


@needs_fuse
def test_files_that_vanish_before_and_during_reading(tmp_path: Path) -> None:
    """Before it settled: a number in health. Later: invalid, file_vanished. The strips behind it are judged."""
    camera = {"settle_seconds": 0.5, "rescan_seconds": 0.3}
    with (
        remote_share(tmp_path / "cameras/top") as share,
        camera_line(tmp_path, model_later=True, camera=camera) as line,
    ):
        line.box.start()
        line.wait_for_state("polling")
        vanished = vanish_too_soon(line, share)
        begun = len(vanished)
        vanished += ["before.tif", "at once.tif", "half read.tif"]
        for name in [*vanished[begun:], "behind 1.tif", "behind 2.tif"]:
            share.put(line.next_strip(name), name)
        line.wait_until_begun(begun + 5)
        share.remove("before.tif")
        share.lose("at once.tif", at_byte=0)
        share.lose("half read.tif", at_byte=line.good.stat().st_size - 1)
        line.push()
        verdict = line.judge(invalid={("top", name) for name in vanished})
        reasons = {result["file"]: result["reason"] for result in verdict.results}
        assert {reasons[name] for name in vanished} == {Reason.FILE_VANISHED}
        assert line.box.stop() == 0
    promise = "before it settled: a number in health; afterwards: invalid (file_vanished); the next strips are judged"
    how = "another machine removes them: while they settle, while they wait, at the first and at the last byte we read"
    tell(Row("Files", "files that vanish before or during reading", promise, how, str(verdict)))


@needs("setpriv")
@needs_root
def test_a_folder_that_may_not_be_read_for_a_while(tmp_path: Path) -> None:
    """Strips that wait in it keep waiting and those that come meanwhile are found when it may be read again."""
    with camera_line(tmp_path, cameras=("top", "side"), model_later=True) as line:
        line.box.program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *line.box.program]
        line.box.start()
        line.write(5)
        line.wait_until_begun(5)
        line.box.camera().chmod(0)
        assert "Permission denied" in line.wait_for_state("unreadable")
        wait_for_alarm(line, "camera_top_unreadable")
        line.write(5)
        line.push()
        line.wait_for_results(line.write(10, "side"), "side")
        assert not results(line.subscriber, "top")
        line.box.camera().chmod(0o755)
        wait_for_alarm(line, "camera_top_unreadable", on=False)
        verdict = line.judge()
        assert line.box.stop() == 0
    how = "chmod 0, with 5 strips waiting and 5 written meanwhile; the service without root's right to read everything"
    tell(Row("Files", "camera folder without read permission for a while", GOOD, how, str(verdict)))


@needs_fuse
def test_a_share_that_hangs_on_one_of_two_cameras(tmp_path: Path) -> None:
    """The other camera goes on, health names the hung one, and all is judged when it answers again."""
    with hanging_line(tmp_path) as (line, share):
        slowest_before = slowest_of(line, 20)
        assert "has not come back" in line.wait_for_state("unreachable")
        wait_for_alarm(line, "camera_top_unreachable")
        slowest_after = slowest_of(line, 20)
        assert not results(line.subscriber, "top")
        share.come_back()
        line.wait_for_results(arrive(line, share))
        verdict = line.judge()
        wait_for_alarm(line, "camera_top_unreachable", on=False)
        assert line.box.stop() == 0
    assert max(slowest_before, slowest_after) < 100
    how = "a FUSE share whose server is stopped, with 5 strips begun; rescan_seconds 0.5, inference.deadline_seconds 4"
    figures = (
        f"{verdict}; the other camera's slowest strip {slowest_before:.1f} s while a worker of the same slot hung, "
        f"{slowest_after:.1f} s once the share was known to be unreachable"
    )
    tell(Row("Files", "share that hangs for ever on one of two cameras", GOOD, how, figures))
