"""Configured places that are missing, read-only, full, slow or hung: each costs what lies in it (docs/folders.md)."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.config import Config
from agent.errors import ExitCode
from agent.ledger import NewResult, open_ledger
from agent.records import FileIdentity, SettledFile
from agent.strips.finished_files import ALARM_AFTER_SECONDS, PAUSE_SECONDS, CameraFiles
from tests.faults.camera_line import HEIGHT, WIDTH, camera_line
from tests.faults.disks import (
    bind_mount,
    make_read_only,
    mounts_at,
    needs_fuse,
    needs_root,
    remote_share,
    small_disk,
    unmount,
)
from tests.faults.judging import health
from tests.faults.reliability import Row, tell
from tests.helpers.box import results
from tests.helpers.broker import MOSQUITTO, wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import Signer, make_manifest, push, put_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.camera_line import CameraLine

pytestmark = pytest.mark.timeout(400)
STRIP_BYTES = 150_000
DISPOSAL_ALARM = ["camera_top_files_cannot_be_disposed_of"]


# The done folder, and the camera's folder that files are moved out of


class Mover:
    """A camera whose files are moved once they are done, the loop that does so, and a clock that the test moves."""

    def __init__(self, folder: Path, camera: Path, done: Path) -> None:
        self.camera, self.done = camera, done
        camera.mkdir(parents=True, exist_ok=True)
        (camera / "notes.txt").touch()  # an empty folder would prove nothing
        section = {"name": "top", "folder": str(camera), "when_done": "move", "done_folder": str(done)}
        config = Config.model_validate({"agent": {"state_folder": str(folder)}, "cameras": [section]})
        self.ledger = open_ledger(folder / "ledger.db")
        self.now = 0.0
        self.files = CameraFiles(config.cameras[0], self.ledger, 90, lambda _: False, clock=lambda: self.now)

    def bring(self, name: str) -> None:
        """Bring a file to its acknowledgement: it is due then."""
        path = self.camera / name
        path.write_bytes(name.encode() * (STRIP_BYTES // len(name)))
        self.ledger.strips.begin([SettledFile("top", name, FileIdentity.of(path.lstat()))])
        strip = self.ledger.strips.next_waiting("top", 0, ())
        assert strip is not None
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        result = NewResult("ok", "", 0.1, "m", 0, digest, "event/strip/top", dispose=True)
        self.ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
        self.ledger.outbox.acknowledge([m.row for m in self.ledger.outbox.next_outbox_messages(0, 10)])

    def steps_for_a_minute(self) -> None:
        """Try again and again, until the alarm is due."""
        for _ in range(int(ALARM_AFTER_SECONDS / PAUSE_SECONDS) + 1):
            self.files.step()
            self.now += PAUSE_SECONDS

    def is_whole(self, where: Path) -> bool:
        """Say whether the file is there, with all its bytes, and nowhere else."""
        other = self.done if where == self.camera else self.camera
        return (where / "a.tif").stat().st_size >= STRIP_BYTES - 10 and not (other / "a.tif").exists()


@contextmanager
def mover(folder: Path, camera: Path, done: Path) -> Iterator[Mover]:
    """Make one, and close its ledger."""
    made = Mover(folder, camera, done)
    try:
        yield made
    finally:
        made.ledger.database.close()


@pytest.mark.parametrize("fault", ["missing", "read-only", "full", "camera's folder read-only"])
@needs_root
def test_a_done_folder_that_takes_no_files_leaves_them_where_they_are_with_an_alarm(tmp_path: Path, fault: str) -> None:
    """Nothing is lost or half moved, the alarm comes after a minute with the reason, and goes when it is healed."""
    with small_disk(tmp_path / "disk", 2) as disk:
        on_disk, beside = disk.place / "folder", tmp_path / "beside"
        camera, done = (on_disk, beside) if fault.startswith("camera") else (beside, on_disk)
        with mover(tmp_path, camera, done) as line:
            line.bring("a.tif")
            heal: Callable[[], object]
            if fault == "missing":
                done.touch()
                heal = done.unlink
            elif fault == "full":
                done.mkdir()
                disk.fill()
                heal = disk.free
            else:
                make_read_only(disk.place, on=True)

                def heal() -> None:
                    make_read_only(disk.place, on=False)

            line.steps_for_a_minute()
            assert line.files.alarms() == DISPOSAL_ALARM
            assert line.files.error.startswith("cannot move a.tif: ")
            assert line.is_whole(line.camera)
            heal()
            line.steps_for_a_minute()
            assert line.files.alarms() == []
            assert line.files.error == ""
            assert line.is_whole(line.done)


@needs_fuse
def test_a_done_folder_that_hangs_keeps_its_cameras_files_waiting_with_an_alarm(tmp_path: Path) -> None:
    """Only the loop of that camera's finished files stands still; it goes on by itself."""
    with remote_share(tmp_path / "share") as share, mover(tmp_path, tmp_path / "camera", share.place / "done") as line:
        line.bring("a.tif")
        share.hang()
        step = threading.Thread(target=line.files.step, daemon=True)
        step.start()
        wait_for(lambda: line.files._waits_since is not None, "it is about to move the file")
        assert line.files.alarms() == []
        line.now += ALARM_AFTER_SECONDS
        assert line.files.alarms() == DISPOSAL_ALARM
        assert "has not come back for 60 s" in line.files.error
        assert step.is_alive()
        share.come_back()
        step.join(60)
        line.steps_for_a_minute()
        assert (line.files.alarms(), line.files.error) == ([], "")
        assert line.is_whole(line.done)


@needs_fuse
def test_a_done_folder_at_100_kb_a_second_gets_its_files_whole(tmp_path: Path) -> None:
    """A copy takes its time; it is whole, and the camera's file goes last."""
    with remote_share(tmp_path / "share") as share, mover(tmp_path, tmp_path / "camera", share.place / "done") as line:
        line.bring("a.tif")
        share.slow_down(100_000)
        line.files.step()
        share.slow_down(0)
        assert line.is_whole(line.done)


# The state folder


@pytest.mark.parametrize("fault", ["missing", "read-only"])
@needs_root
def test_a_state_folder_that_takes_no_files_at_a_start_is_tried_again_by_a_restart(tmp_path: Path, fault: str) -> None:
    """The service ends with 1, for which systemd starts it again; 78 would be for ever."""
    with small_disk(tmp_path / "disk", 16) as disk, camera_line(tmp_path) as line:
        line.box.state = disk.place / "below" / "state"
        line.box.config["agent"]["state_folder"] = str(line.box.state)
        line.box.write_config()
        if fault == "missing":
            line.box.state.parent.touch()
        else:
            make_read_only(disk.place, on=True)
        line.box.start(wait=False)
        assert line.box.process is not None
        assert line.box.process.wait(180) == ExitCode.FAILED
        if fault == "missing":
            line.box.state.parent.unlink()
        else:
            make_read_only(disk.place, on=False)
        line.box.start()
        line.wait_for_results(line.write(2))
        line.judge()
        assert line.box.stop() == 0


@pytest.mark.soak
@needs_fuse
def test_a_state_folder_that_hangs_costs_time_and_nothing_else(tmp_path: Path) -> None:
    """While it hangs nothing is published that is not recorded; when it is back everything is, at a start as well."""
    with remote_share(tmp_path / "share") as share, camera_line(tmp_path) as line:
        line.box.state = share.place / "state"
        line.box.config["agent"]["state_folder"] = str(line.box.state)
        line.box.write_config()
        line.box.start()
        line.wait_for_results(line.write(3))
        share.hang()
        hung = {("top", name) for name in line.write(3)}
        with pytest.raises(AssertionError, match="not within"):
            wait_for(lambda: hung & line.published(), "a result that is not recorded", 3)
        share.come_back()
        line.judge()
        assert line.box.stop() == 0
        share.hang()
        line.box.start(wait=False)
        line.write(3)
        share.come_back()
        wait_for(line.box.answers, f"the service answers (see {line.box.log_file})")
        verdict = line.judge()
        assert line.box.stop() == 0
    tell(
        Row(
            "Disk",
            "state folder that hangs, while running and at a start",
            "nothing is published that is not recorded; all is judged when it is back; systemd ends the service when "
            "its heart has stopped (120 s) or it does not get ready (180 s), and starts it again",
            "a FUSE share whose server is stopped, while strips are judged, and again before a start",
            str(verdict),
            "soak",
        )
    )


@pytest.mark.soak
@needs_root
def test_a_state_folder_that_is_unmounted_for_a_while_loses_nothing(tmp_path: Path) -> None:
    """What is open stays in use, so the line goes on; after the mount, or a restart, all of it is accounted for.

    Nothing that opens the ledger once more meanwhile ends the service: what is due each hour is due all the time here.
    """
    place = tmp_path / "place"
    place.mkdir()
    with small_disk(tmp_path / "disk", 16) as disk, camera_line(tmp_path) as line, mounts_at(place):
        bind_mount(disk.place, place)
        line.box.state = place / "state"
        line.box.config["agent"]["state_folder"] = str(line.box.state)
        line.box.write_config()
        line.box.change_constants({"agent.strips.finished_files.ROWS_EVERY_SECONDS": 0.0})
        line.box.start()
        line.wait_for_results(line.write(3))
        unmount(place)
        wait_for(lambda: "unable to open database file" in line.box.log, "the hour's work was tried")
        line.wait_for_results(line.write(3))
        assert line.box.process is not None
        assert line.box.process.poll() is None, line.box.log
        bind_mount(disk.place, place)
        line.write(3)
        line.judge()
        assert line.box.stop() == 0


@pytest.mark.soak
@needs_fuse
def test_a_state_folder_at_100_kb_a_second_loses_nothing(tmp_path: Path) -> None:
    """Everything takes longer: the start, the model's copy, each commit."""
    with remote_share(tmp_path / "share") as share, camera_line(tmp_path) as line:
        line.box.state = share.place / "state"
        line.box.config["agent"]["state_folder"] = str(line.box.state)
        line.box.write_config()
        share.slow_down(100_000)
        line.box.start(wait=False)
        wait_for(line.box.answers, f"the service answers (see {line.box.log_file})")
        line.wait_for_results(line.write(10), seconds=180)
        share.slow_down(0)
        verdict = line.judge()
        assert line.box.stop() == 0
    how = "a FUSE share of 100 kB/s from before the start on"
    tell(Row("Disk", "state folder that is slow", "nothing is lost; it takes longer", how, str(verdict), "soak"))


# Passwords and keys


def wait_for_broker_error(line: CameraLine, words: str) -> None:
    """Wait until the status says so of the broker."""
    wait_for(lambda: words in line.box.ask("status")["health"]["broker_error"], f"the status says: {words}")


@contextmanager
def line_with_password(folder: Path, file: Path) -> Iterator[CameraLine]:
    """Run a box whose password is in a file, at a broker that lets everybody in."""
    mqtt = {"username": "insp1", "password_file": str(file)}
    with camera_line(folder) as line:
        line.box.config["mqtt"] |= mqtt
        line.box.write_config()
        yield line


def waits_in_the_outbox(line: CameraLine, number: int) -> None:
    """See that so many strips are judged and none is published."""
    wait_for(lambda: line.box.ask("status")["outbox"]["outbox_pending"] >= number, "they are judged")
    assert not results(line.subscriber)


@pytest.mark.mosquitto
@pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto")
def test_a_password_file_that_is_missing_costs_the_connection_only(tmp_path: Path) -> None:
    """At a start and while running: strips are judged and wait, the status names the file, and it heals by itself."""
    file = tmp_path / "password"
    with line_with_password(tmp_path, file) as line:
        line.box.start()
        line.write(3)
        wait_for_broker_error(line, "cannot be read")
        waits_in_the_outbox(line, 3)
        file.write_text("secret")
        line.judge()
        file.unlink()
        line.box.kill()
        line.box.start()
        names = line.write(3)
        wait_for_broker_error(line, "cannot be read")
        file.write_text("secret")
        line.wait_for_results(names)
        line.judge()
        assert line.box.stop() == 0


@pytest.mark.soak
@needs_fuse
def test_a_password_file_that_hangs_costs_the_connection_only(tmp_path: Path) -> None:
    """The service starts after some seconds and judges; the results go out when the share is back."""
    with remote_share(tmp_path / "share") as share, line_with_password(tmp_path, share.place / "password") as line:
        (tmp_path / "secret").write_text("secret")
        share.put(tmp_path / "secret", "password")
        share.hang()
        line.box.start()
        line.write(3)
        waits_in_the_outbox(line, 3)
        assert "does not answer" in line.box.log
        share.come_back()
        line.judge()
        assert line.box.stop() == 0


@pytest.mark.parametrize("fault", ["missing", "hangs"])
@needs_fuse
def test_a_trusted_key_that_is_away_costs_the_pushes_that_it_signed_only(tmp_path: Path, fault: str) -> None:
    """At a start: the accepted model goes on, an alarm tells, a push waits and goes in when the key is back."""
    signer = Signer()
    with remote_share(tmp_path / "share") as share, camera_line(tmp_path) as line:
        key = signer.write_public_key(tmp_path / "key.pub")
        line.box.config["models"] |= {"require_signature": True, "trusted_keys": [str(share.place / "key.pub")]}
        line.box.write_config()
        share.put(key, "key.pub")
        put_manifest(line.box.inbox / "model.onnx", make_manifest(line.model, version=1), signer)
        line.box.start()
        line.wait_for_results(line.write(3))
        assert line.box.stop() == 0
        if fault == "hangs":
            share.hang()
        else:
            share.remove("key.pub")
        line.box.start()
        line.wait_for_results(line.write(3))
        two = push(
            line.box.inbox / "2.onnx",
            lambda path: difference_model(path, height=HEIGHT, width=WIDTH, version=2),
            signer,
            version=2,
        )
        waits = partial(line.box.ask, "models_list")
        wait_for(lambda: "2.onnx" in waits()["postponed"]["default"], f"it waits (see {line.box.log_file})")
        alarms = ("trusted_keys_missing", "slot_default_postponed")
        wait_for(lambda: all(alarm in health(line.subscriber)["alarms"] for alarm in alarms), "alarms name it")
        if fault == "hangs":
            share.come_back()
        else:
            share.put(key, "key.pub")
        status = partial(line.box.ask, "status")
        wait_for(lambda: status()["models"]["default"]["active_sha256"] == two, "the push is active")
        line.wait_for_results(line.write(3))
        line.judge()
        wait_for(lambda: health(line.subscriber)["alarms"] == "", "no alarm is left")
        assert line.box.stop() == 0


def test_a_trusted_key_that_is_no_key_is_for_a_person(tmp_path: Path) -> None:
    """No restart can heal it: exit code 78, with a sentence."""
    with camera_line(tmp_path) as line:
        (tmp_path / "key.pub").write_text("no key")
        line.box.config["models"] |= {"trusted_keys": [str(tmp_path / "key.pub")]}
        line.box.write_config()
        line.box.start(wait=False)
        assert line.box.process is not None
        assert line.box.process.wait(180) == ExitCode.CONFIG, line.box.log


# Pixels that are ignored


@pytest.mark.soak
@needs_fuse
def test_a_file_of_ignored_pixels_that_hangs_costs_a_start_half_a_minute(tmp_path: Path) -> None:
    """Then the copy of an earlier start is used; while the service runs nobody looks at the file."""
    with remote_share(tmp_path / "share") as share, camera_line(tmp_path) as line:
        (tmp_path / "dead.csv").write_text("dead_x,dead_y\n1,1\n")
        share.put(tmp_path / "dead.csv", "dead.csv")
        line.box.config["cameras"][0]["ignore_pixels"] = str(share.place / "dead.csv")
        line.box.write_config()
        line.box.start()
        line.wait_for_results(line.write(3))
        share.hang()
        line.wait_for_results(line.write(3))
        assert line.box.stop() == 0
        line.box.start()
        assert "the copy of an earlier start is used" in line.box.log
        line.wait_for_results(line.write(3))
        digest = hashlib.sha256((tmp_path / "dead.csv").read_bytes()).hexdigest()
        assert {result["ignore_pixels_sha256"] for result in results(line.subscriber)} == {digest}
        share.come_back()
        line.judge()
        assert line.box.stop() == 0


# All of them


@needs_fuse
def test_a_start_while_all_shares_hang_leaves_the_other_camera_its_results(tmp_path: Path) -> None:
    """Camera, done folder and heatmaps on shares that do not answer: the service starts, and the rest goes on."""
    heatmaps = {"folder": str(tmp_path / "share/maps"), "min_free_gib": 0, "png": "none", "tiff": "all"}
    with (
        remote_share(tmp_path / "share") as share,
        camera_line(tmp_path, cameras=("top", "side"), heatmaps=heatmaps) as line,
    ):
        top = line.box.config["cameras"][0]
        top |= {"folder": str(share.place / "top"), "when_done": "move", "done_folder": str(share.place / "done")}
        (share.place / "top").mkdir()
        line.box.write_config()
        shutil.copyfile(line.next_strip("a.tif"), share.place / "top/a.tif")
        share.hang()
        line.box.start()
        line.wait_for_results(line.write(5, "side"), "side")
        alarms = ("camera_top_unreachable", "heatmaps_hang")
        wait_for(lambda: all(alarm in health(line.subscriber)["alarms"] for alarm in alarms), "alarms name them")
        share.come_back()
        line.judge()
        wait_for((share.place / "done/a.tif").exists, "the done file is moved")
        assert line.box.stop() == 0
