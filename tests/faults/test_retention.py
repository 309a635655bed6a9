"""Housekeeping, called by hand: what goes by age, by bytes and by free space, and above all what stays."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.clock import BUILT_MS, DAY_MS, now_ms
from agent.config import Config
from agent.heatmap_folder import HeatmapFolder
from agent.heatmap_names import HEATMAP_SUFFIXES, heatmap_stem
from agent.housekeeping import Housekeeping
from agent.ledger import Ledger, NewResult, open_ledger
from agent.records import FileIdentity, SettledFile, Strip
from agent.strips.finished_files import PAUSE_SECONDS, CameraFiles
from tests.faults.reliability import Row, tell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIB = 1024


class Line:
    """A ledger with strips whose heatmaps exist, and the housekeeping that tidies them."""

    def __init__(self, folder: Path, **heatmaps: Any) -> None:
        self.camera = folder / "camera"
        self.camera.mkdir(exist_ok=True)
        settings = {"keep_days": 10000, "keep_gib": 1000, "min_free_gib": 0} | heatmaps
        self.config = Config.model_validate(
            {
                "agent": {"state_folder": str(folder)},
                "cameras": [{"name": "top", "folder": str(self.camera)}],
                "heatmaps": settings,
                "ledger": {"keep_days": 1},
            }
        )
        self.heatmaps = self.config.heatmap_folder
        self.ledger: Ledger = open_ledger(folder / "ledger.db")
        self.wall_ms = now_ms()
        self.monotonic = 0.0
        self.away = False
        clocks = {"clock": lambda: self.monotonic, "wall_ms": lambda: self.wall_ms}
        self.restart_housekeeping()
        self.heatmap_folder = HeatmapFolder(self.config, self.ledger, **clocks)  # type: ignore[arg-type]
        self.heatmap_folder.remove_old_heatmaps()  # a look at the clock
        self.camera_files = CameraFiles(
            self.config.cameras[0], self.ledger, keep_days=1, folder_is_away=lambda _: self.away,
            **clocks,  # type: ignore[arg-type]
        )  # fmt: skip

    def restart_housekeeping(self) -> None:
        """Make it anew, as a restart does."""
        clocks = {"clock": lambda: self.monotonic, "wall_ms": lambda: self.wall_ms}
        self.housekeeping = Housekeeping(self.config, self.ledger, **clocks)  # type: ignore[arg-type]

    def take_out(self, camera: str) -> None:
        """Have a reload take a camera out of the configuration; another one comes in its place."""
        other = self.config.cameras[0].model_copy(update={"name": f"not {camera}"})
        self.housekeeping.config = self.config.model_copy(update={"cameras": [other]})

    def put_back(self) -> None:
        """Have a reload bring everything back."""
        self.housekeeping.config = self.config

    def pass_days(self, days: float) -> None:
        """Let both clocks go on."""
        self.wall_ms += int(days * DAY_MS)
        self.monotonic += days * 86_400

    def bring(
        self, name: str, *, heatmap_bytes: int = 3 * KIB, acknowledged: bool = True, dispose: bool = False
    ) -> list[Path]:
        """Bring a strip through; return its heatmap files."""
        source = self.camera / name
        source.write_bytes(b"strip")
        self.ledger.strips.begin([SettledFile("top", name, FileIdentity.of(source.stat()))])
        strip = self.ledger.strips.next_waiting("top", 0, ())
        assert strip is not None
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        result = NewResult("ok", "", 0.1, "m", heatmap_bytes, digest, "event/strip/top", dispose=dispose)
        self.ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
        if acknowledged:
            self.acknowledge()
        return self._write_heatmaps(strip, heatmap_bytes)

    def acknowledge(self) -> None:
        """Let the broker have everything."""
        self.ledger.outbox.acknowledge([message.row for message in self.ledger.outbox.next_outbox_messages(0, 1000)])

    def _write_heatmaps(self, strip: Strip, size: int) -> list[Path]:
        stem = heatmap_stem("top", strip.identity.mtime_ns, strip.path, strip.strip_id, strip.revision)
        paths = [self.heatmaps / f"{stem}{suffix}" for suffix in HEATMAP_SUFFIXES]
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        for path in paths:
            path.write_bytes(bytes(size // len(paths)))
        return paths


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Make a line without limits."""
    made = Line(tmp_path)
    yield made
    made.ledger.database.close()


def _with_limits(line: Line, **limits: float) -> None:
    heatmaps = line.config.heatmaps.model_copy(update=limits)
    line.heatmap_folder.config = line.config.model_copy(update={"heatmaps": heatmaps})


def _there(paths: list[Path]) -> bool:
    """All of them, or none."""
    found = {path.exists() for path in paths}
    assert len(found) == 1, paths
    return found.pop()


def test_heatmaps_go_by_age_and_only_those_of_acknowledged_results(line: Line) -> None:
    """After keep_days the files of a result go; those the broker does not have yet stay whatever their age."""
    done = line.bring("a.tif")
    waiting = line.bring("b.tif", acknowledged=False)
    _with_limits(line, keep_days=30)
    line.pass_days(29)
    assert line.heatmap_folder.remove_old_heatmaps() == 0
    line.pass_days(2)
    assert line.heatmap_folder.remove_old_heatmaps() == 1
    assert (_there(done), _there(waiting)) == (False, True)
    line.acknowledge()
    assert line.heatmap_folder.remove_old_heatmaps() == 1
    assert not _there(waiting)
    assert not waiting[0].parent.exists(), "an empty folder of a day is left behind"
    assert line.ledger.report.audit().balanced


def test_nothing_is_old_while_the_clock_is_before_the_build_date(line: Line) -> None:
    """A boot in 1970 removes neither heatmaps nor rows, nor does one that comes back from there."""
    kept = line.bring("a.tif")
    (line.camera / "a.tif").unlink()
    _with_limits(line, keep_days=1)
    line.wall_ms = BUILT_MS - 1
    assert line.heatmap_folder.remove_old_heatmaps() == 0
    assert line.camera_files.forget_old_rows() == 0
    assert _there(kept)


def test_a_clock_that_jumps_far_ahead_removes_nothing_until_it_is_confirmed(line: Line) -> None:
    """Ten years ahead, heatmaps and rows stay for a day of running; the limits of space hold meanwhile."""
    kept = line.bring("a.tif")
    line.bring("b.tif", heatmap_bytes=0)
    (line.camera / "b.tif").unlink()
    _with_limits(line, keep_days=30)
    line.wall_ms += 3650 * DAY_MS
    for _ in range(20):
        assert line.heatmap_folder.remove_old_heatmaps() == 0
        assert line.camera_files.forget_old_rows() == 0
        line.housekeeping.forget_old_rows()
        line.pass_days(1 / 24)
    assert line.ledger.purge.clock_in_doubt
    assert _there(kept)
    for _ in range(5):
        line.pass_days(1 / 24)
        line.heatmap_folder.remove_old_heatmaps()
    assert not _there(kept)
    assert line.camera_files.forget_old_rows() == 1, "the file of the other one is there"
    assert line.ledger.report.audit().balanced


def test_a_camera_that_is_out_of_the_configuration_for_a_while_has_its_strips_judged_once(line: Line) -> None:
    """A typing error that takes a camera out does not make its old files new ones; for as long as rows are kept."""
    line.bring("a.tif", heatmap_bytes=0)
    line.pass_days(5)
    file = SettledFile("top", "a.tif", FileIdentity.of((line.camera / "a.tif").stat()))
    line.take_out("top")
    for _ in range(23):
        line.housekeeping.forget_old_rows()
        line.pass_days(1 / 24)
    assert line.ledger.strips.known([file])
    line.put_back()
    line.housekeeping.forget_old_rows()
    line.take_out("top")
    for _ in range(23):
        line.housekeeping.forget_old_rows()
        line.pass_days(1 / 24)
    assert line.ledger.strips.known([file]), "it was away twice, and never for as long"


def test_a_camera_that_stays_out_of_the_configuration_is_forgotten(line: Line) -> None:
    """Nobody sees its files any more, so age alone decides in the end; should it come back, its backlog rule counts."""
    line.bring("a.tif", heatmap_bytes=0)
    line.ledger.strips.record_first_scan("top")
    line.pass_days(5)
    line.take_out("top")
    line.housekeeping.forget_old_rows()
    line.pass_days(0.9)
    line.restart_housekeeping()
    line.take_out("top")
    line.housekeeping.forget_old_rows()
    assert line.ledger.report.list_strips(state=None, camera=None, limit=9)
    line.pass_days(0.2)
    line.housekeeping.forget_old_rows()
    assert not line.ledger.report.list_strips(state=None, camera=None, limit=9)
    assert not line.ledger.strips.camera_was_scanned("top")
    assert line.ledger.report.audit().balanced


def test_the_oldest_heatmaps_go_while_there_are_too_many_bytes(line: Line) -> None:
    """keep_gib holds: oldest first, no more than necessary."""
    strips = [line.bring(f"{number}.tif", heatmap_bytes=3 * KIB) for number in range(6)]
    _with_limits(line, keep_gib=10 * KIB / 2**30)
    assert line.heatmap_folder.remove_old_heatmaps() == 3
    assert [_there(paths) for paths in strips] == [False] * 3 + [True] * 3
    assert line.heatmap_folder.remove_old_heatmaps() == 0


def test_the_oldest_heatmaps_go_while_there_is_too_little_free_space(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """min_free_gib holds: as many go as are missing to a quarter above the floor, and no pending one."""
    pending = line.bring("0.tif", acknowledged=False)
    strips = [line.bring(f"{number}.tif", heatmap_bytes=3 * KIB) for number in range(1, 4)]
    line.ledger.database._connection.execute("UPDATE outbox SET state = 'pending' WHERE id = 1")
    real = os.statvfs(line.heatmaps)
    _with_limits(line, min_free_gib=16 * KIB / 2**30)
    free_now = os.statvfs_result((1, 1, *real[2:4], 15 * KIB, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: free_now)
    assert line.heatmap_folder.remove_old_heatmaps() == 2  # 5 KiB are missing to 20 KiB
    assert [_there(paths) for paths in strips] == [False, False, True]
    assert _there(pending)


def test_what_the_agent_did_not_write_is_never_removed(line: Line, tmp_path: Path) -> None:
    """Files of others among the heatmaps stay, links too; a heatmap that is gone already is no error."""
    mine = line.bring("a.tif")
    other = mine[0].with_name("notes of the shift leader.png")
    lookalike = mine[0].with_name(mine[0].name.replace("-r1", "-r2"))
    precious = tmp_path / "precious.tiff"
    link = mine[0].with_name("link.tiff")
    for path in (other, lookalike, precious):
        path.write_bytes(b"precious")
    link.symlink_to(precious)
    mine[1].unlink()
    _with_limits(line, keep_days=1)
    line.pass_days(5)
    assert line.heatmap_folder.remove_old_heatmaps() == 1
    assert not any(path.exists() for path in mine)
    assert all(path.read_bytes() == b"precious" for path in (other, lookalike, precious, link))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOTCONN, errno.ESTALE])
def test_heatmaps_on_a_disk_that_takes_no_changes_are_not_taken_for_removed(
    line: Line, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """They are removed once the disk takes changes again; one that only itself cannot be removed stops no other."""
    strips = [line.bring(f"{number}.tif") for number in range(3)]
    _with_limits(line, keep_days=1)
    line.pass_days(5)

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(number, f"takes no changes ({missing_ok})", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(OSError, match="takes no changes"):
            line.heatmap_folder.remove_old_heatmaps()
    strips[0][0].unlink()
    strips[0][0].mkdir()  # somebody's folder with the name of a heatmap
    assert line.heatmap_folder.remove_old_heatmaps() == 3
    assert [path.exists() for paths in strips for path in paths] == [True] + [False] * 8


def test_rows_go_when_old_acknowledged_and_their_file_is_gone(line: Line) -> None:
    """A row whose file a scan could find again stays, else the strip would be scored twice; the audit balances."""
    line.bring("gone.tif", heatmap_bytes=0)
    line.bring("there.tif", heatmap_bytes=0)
    line.bring("pending.tif", acknowledged=False)
    (line.camera / "gone.tif").unlink()
    (line.camera / "pending.tif").unlink()
    line.pass_days(2)
    line.away = True
    assert line.camera_files.forget_old_rows() == 0, "a folder that is away says nothing about its files"
    line.away = False
    assert line.camera_files.forget_old_rows() == 1
    rows = line.ledger.report.list_strips(state=None, camera=None, limit=10)
    assert {row["file"] for row in rows} == {"there.tif", "pending.tif"}
    audit = line.ledger.report.audit()
    assert audit.balanced, audit.problems
    assert audit.cameras[0].seen == 3
    tell(
        Row(
            "Disk",
            "retention by age, by bytes, by free space",
            "oldest first, never a heatmap of an unacknowledged result, never a file the agent did not write, no row "
            "whose file or heatmap is still there; nothing while the clock is before the build date",
            "the steps called by hand on real files, with a clock that is an argument",
            "every limit held exactly; other files, links and lookalikes untouched; the audit balances",
        )
    )


def test_a_row_outlives_its_heatmaps(line: Line) -> None:
    """With ledger.keep_days below heatmaps.keep_days no file is left that nobody knows any more."""
    mine = line.bring("a.tif")
    (line.camera / "a.tif").rename(line.camera / "moved")  # an empty folder would prove nothing
    _with_limits(line, keep_days=10)
    line.pass_days(5)
    line.housekeeping.forget_old_rows()
    assert line.heatmap_folder.remove_old_heatmaps() == line.camera_files.forget_old_rows() == 0
    assert _there(mine)
    line.pass_days(6)
    assert line.heatmap_folder.remove_old_heatmaps() == 1
    assert not _there(mine)
    assert line.camera_files.forget_old_rows() == 1
    assert line.ledger.report.audit().balanced


def test_an_empty_folder_proves_nothing(line: Line) -> None:
    """Where a share is not mounted every file seems to be gone: rows stay, so that nothing is judged again later."""
    line.bring("a.tif", heatmap_bytes=0)
    (line.camera / "a.tif").rename(line.camera.with_name("a.tif"))
    line.pass_days(3)
    assert line.camera_files.forget_old_rows() == 0
    (line.camera / "b.tif").touch()
    assert line.camera_files.forget_old_rows() == 1


def test_a_file_is_not_written_off_in_an_empty_folder(line: Line) -> None:
    """What is to be removed waits for the share to come back, and is removed then."""
    camera = line.config.cameras[0].model_copy(update={"when_done": "delete"})
    now = [0.0]
    files = CameraFiles(
        camera, line.ledger, keep_days=1, folder_is_away=lambda _: False, clock=lambda: now[0],
        wall_ms=lambda: line.wall_ms,
    )  # fmt: skip
    line.bring("a.tif", dispose=True)
    (line.camera / "a.tif").rename(line.camera.with_name("a.tif"))
    files.step()
    assert len(line.ledger.strips.due_for_disposal("top", 0, 10)) == 1
    line.camera.with_name("a.tif").rename(line.camera / "a.tif")
    now[0] += PAUSE_SECONDS
    files.step()
    assert not (line.camera / "a.tif").exists()
    assert line.ledger.strips.due_for_disposal("top", 0, 10) == []


def test_tidying_happens_on_its_own_timer(tmp_path: Path) -> None:
    """No strip has to come by: a step at any time disposes, removes and forgets."""
    line = Line(tmp_path, keep_days=1)
    mine = line.bring("a.tif")
    (line.camera / "a.tif").rename(line.camera / "moved")
    line.pass_days(3)
    line.heatmap_folder.step()
    line.housekeeping.step()
    line.camera_files.step()
    assert not _there(mine)
    assert line.ledger.report.list_strips(state=None, camera=None, limit=10) == []
    line.ledger.database.close()
