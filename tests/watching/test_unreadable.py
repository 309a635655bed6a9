"""What cannot be read stops nothing, is told, and comes later."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watching.line import Start


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
