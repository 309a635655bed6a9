"""A heatmap folder that hangs, is slow, missing or read-only costs heatmaps, at a start, while running, at a stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.camera_line import camera_line
from tests.faults.disks import make_read_only, needs_fuse, needs_root, remote_share, small_disk
from tests.faults.judging import health
from tests.faults.reliability import Row, tell
from tests.faults.shift import worker_restarts
from tests.helpers.box import unique_results
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.camera_line import CameraLine

pytestmark = pytest.mark.timeout(400)
DEADLINE_SECONDS = 4.0  # and so long at most a strip waits for its heatmaps
HUNG_STRIPS = 4
SHORTER = {"agent.heatmap_folder.HANGS_AFTER_SECONDS": 3.0, "agent.strips.leftovers.AGAIN_SECONDS": 1.0}
GOOD = "strips are scored and published as ever, with heatmap_state `failed`; an alarm; saved again by itself"


def settings(folder: Path) -> dict[str, Any]:
    """Configure a heatmap folder, and heatmaps of every strip."""
    return {
        "heatmaps": {"folder": str(folder), "min_free_gib": 0, "png": "none", "tiff": "all"},
        "inference": {"deadline_seconds": DEADLINE_SECONDS},
    }


def states_of(line: CameraLine, number: int) -> set[str]:
    """Let the camera write strips; return what became of their heatmaps once they are published."""
    names = line.write(number)
    line.wait_for_results(names)
    found = unique_results(line.subscriber).values()
    return {result["heatmap_state"] for result in found if result["file"] in names}


def wait_until_saved(line: CameraLine) -> None:
    """Let the camera write strips until the heatmap of one is saved."""
    wait_for(lambda: states_of(line, 1) == {"saved"}, f"a heatmap is saved (see {line.box.log_file})")


def wait_for_alarm(line: CameraLine, alarm: str, *, on: bool = True) -> None:
    """Wait until the newest `state/health` names the alarm, or no longer does."""
    wait_for(lambda: (alarm in health(line.subscriber).get("alarms", "")) == on, f"{alarm} is {on}")


@needs_fuse
def test_a_heatmap_folder_that_hangs_costs_heatmaps_only(tmp_path: Path) -> None:
    """While running, at a start and at a stop: strips go on, the status answers, no worker is lost, an alarm tells."""
    with remote_share(tmp_path / "maps") as share, camera_line(tmp_path, **settings(tmp_path / "maps")) as line:
        line.box.change_constants(SHORTER)
        line.box.start()
        wait_until_saved(line)
        share.hang()
        began = time.monotonic()
        assert states_of(line, HUNG_STRIPS) == {"failed"}
        took = time.monotonic() - began
        wait_for_alarm(line, "heatmaps_hang")
        assert "has not answered" in line.box.ask("status")["heatmaps"]["detail"]
        assert worker_restarts(line.box) == 0
        line.box.kill()
        line.box.start()
        assert states_of(line, HUNG_STRIPS) == {"failed"}
        assert worker_restarts(line.box) == 0
        share.come_back()
        wait_until_saved(line)
        wait_for_alarm(line, "heatmaps_hang", on=False)
        wait_for(lambda: not list((tmp_path / "maps").rglob(".*")), "what was given up is removed")
        verdict = line.judge()
        named = {result["heatmap_path"] for result in verdict.results} - {""}
        wait_for(
            lambda: {str(path.relative_to(tmp_path / "maps")) for path in (tmp_path / "maps").rglob("*.tiff")} == named,
            "there is nothing but what results name",
        )  # fmt: skip
        share.hang()
        line.write(1)
        assert line.box.stop() == 0
    how = (
        "a FUSE share whose server is stopped; kill -9 and a start meanwhile; again, and SIGTERM; "
        f"inference.deadline_seconds {DEADLINE_SECONDS:g}"
    )
    figures = f"{verdict}; no worker lost; the first {HUNG_STRIPS} strips after it hung took {took:.1f} s"
    tell(Row("Disk", "heatmap folder that hangs, while running, at a start and at a stop", GOOD, how, figures))


@pytest.mark.soak
@needs_fuse
def test_a_heatmap_folder_at_100_kb_a_second_costs_heatmaps_only(tmp_path: Path) -> None:
    """A heatmap that takes longer than allowed is given up; strips wait for it for a tenth of the time at most."""
    with (
        remote_share(tmp_path / "maps") as share,
        camera_line(tmp_path, size=(976, 176), **settings(tmp_path / "maps")) as line,
    ):
        line.box.start()
        wait_until_saved(line)
        share.slow_down(100_000)
        began = time.monotonic()
        states = states_of(line, 12)
        took = time.monotonic() - began
        assert "failed" in states
        assert worker_restarts(line.box) == 0
        share.slow_down(0)
        wait_until_saved(line)
        verdict = line.judge()
        assert line.box.stop() == 0
    how = "a FUSE share that takes 100 kB a second, heatmaps of 690 kB"
    figures = f"{verdict}; no worker lost; the first 12 strips after it became slow took {took:.1f} s"
    tell(Row("Disk", "heatmap folder that is slow", GOOD, how, figures, "soak"))


@pytest.mark.soak
@needs_root
def test_a_heatmap_folder_that_is_read_only_costs_heatmaps_only(tmp_path: Path) -> None:
    """At a start and while running; the service never ends for it."""
    with small_disk(tmp_path / "maps", 16) as disk, camera_line(tmp_path, **settings(disk.place / "maps")) as line:
        make_read_only(disk.place, on=True)
        line.box.start()
        assert states_of(line, 3) == {"failed"}
        wait_for_alarm(line, "heatmaps_unreachable")
        make_read_only(disk.place, on=False)
        wait_until_saved(line)
        wait_for_alarm(line, "heatmaps_unreachable", on=False)
        make_read_only(disk.place, on=True)
        assert states_of(line, 3) == {"failed"}
        wait_for_alarm(line, "heatmaps_unreachable")
        make_read_only(disk.place, on=False)
        wait_until_saved(line)
        verdict = line.judge()
        assert line.box.stop() == 0
    how = "a tmpfs remounted read-only before the start; again while strips are judged"
    tell(Row("Disk", "heatmap folder read-only, at a start and while running", GOOD, how, str(verdict), "soak"))


def test_a_heatmap_folder_that_is_missing_costs_heatmaps_only(tmp_path: Path) -> None:
    """A file in its place, at a start and while running: strips go on; it is made again as soon as it can be."""
    place = tmp_path / "maps"
    place.touch()
    with camera_line(tmp_path, **settings(place)) as line:
        line.box.start()
        assert states_of(line, 3) == {"failed"}
        wait_for_alarm(line, "heatmaps_unreachable")
        place.unlink()
        wait_until_saved(line)
        wait_for_alarm(line, "heatmaps_unreachable", on=False)
        place.rename(tmp_path / "gone")
        place.touch()
        assert states_of(line, 3) == {"failed"}
        wait_for_alarm(line, "heatmaps_unreachable")
        place.unlink()
        wait_until_saved(line)
        verdict = line.judge()
        assert line.box.stop() == 0
    how = "a file where the folder should be made, before the start; then again in place of the folder"
    tell(Row("Disk", "heatmap folder missing, at a start and while running", GOOD, how, str(verdict)))
