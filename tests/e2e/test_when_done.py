"""`when_done: move` and `delete`: only what the broker has, only the file that was judged."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.checks import check_audit
from tests.helpers.box import Box, drop_file, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from pathlib import Path


def disposing_box(folder: Path, port: int, when_done: str) -> Box:
    """Make a box that disposes of its camera's files; the name is the rule's."""
    box = Box(folder / "box", port, agent={"name": when_done})
    done = str(folder / "done") if when_done == "move" else None
    box.config["cameras"][0] |= {"when_done": when_done, "done_folder": done}
    box.write_config()
    difference_model(box.inbox / "model.onnx")
    return box


@pytest.mark.parametrize("when_done", ["move", "delete"])
def test_files_go_once_acknowledged_and_the_same_name_is_a_new_strip(
    tmp_path: Path, broker: Broker, good_strip: Path, when_done: str
) -> None:
    """The same name, size and mtime again after the disposal: judged again, as another strip."""
    with disposing_box(tmp_path, broker.port, when_done) as box, Subscriber(broker.port) as subscriber:
        box.start()
        inside = box.camera() / "shift 1"
        inside.mkdir()
        for again in range(3):
            temporary = tmp_path / "copy"
            shutil.copyfile(good_strip, temporary)
            os.utime(temporary, ns=(10**18, 10**18))
            temporary.rename(inside / "strip.tif")
            wait_for(lambda: not list(inside.iterdir()), "the file is gone")
            found = wait_for_results(subscriber, again + 1)
        assert len({result["strip_id"] for result in found}) == 3
        assert {result["file"] for result in found} == {"shift 1/strip.tif"}
        assert {result["revision"] for result in found} == {1}
        if when_done == "move":
            moved = sorted(path.name for path in (tmp_path / "done" / "shift 1").iterdir())
            assert len(moved) == 3
            assert "strip.tif" in moved
            assert all((tmp_path / "done" / "shift 1" / name).read_bytes() == good_strip.read_bytes() for name in moved)
        refused = box.ask("retry", strip_ids=[found[0]["strip_id"]])
        assert not refused["retried"]
        check_audit(box, 3)
        assert box.stop() == 0


def test_nothing_is_removed_before_the_broker_has_it_nor_when_it_was_replaced(
    tmp_path: Path, good_strip: Path, bad_part: Path
) -> None:
    """Without the broker all files stay; one that is replaced meanwhile is judged itself before it goes."""
    broker = Broker(tmp_path, start=False)
    with disposing_box(tmp_path, broker.port, "move") as box:
        box.start()
        names = ["kept.tif", "replaced.tif", "same time.tif"]
        for name in names:
            drop_file(good_strip, box.camera() / name)
        stat = (box.camera() / "same time.tif").stat()
        wait_for(lambda: box.ask("audit")["last_seq"] == 3, "all are judged")
        assert sorted(path.name for path in box.camera().iterdir()) == names
        box.kill()  # so that the replacements are not seen before the disposal is due
        drop_file(bad_part, box.camera() / "replaced.tif")
        shutil.copyfile(bad_part, tmp_path / "copy")
        os.utime(tmp_path / "copy", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        (tmp_path / "copy").rename(box.camera() / "same time.tif")
        with broker, Subscriber(start(broker)) as subscriber:
            box.start()
            wait_for(lambda: not list(box.camera().iterdir()), "all are moved in the end")
            wait_for_results(subscriber, 5)
            verdicts = {
                name: sorted(r["verdict"] for r in unique_results(subscriber).values() if r["file"] == name)
                for name in names
            }
            assert verdicts == {
                "kept.tif": ["ok"],
                "replaced.tif": ["anomalous", "ok"],
                "same time.tif": ["anomalous", "ok"],
            }
            box.wait_until_published(5)
            check_audit(box, 5)
        moved = {path.name: path.read_bytes() for path in (tmp_path / "done").iterdir()}
        assert moved["replaced.tif"] == moved["same time.tif"] == bad_part.read_bytes()
        assert moved["kept.tif"] == good_strip.read_bytes()


def start(broker: Broker) -> int:
    """Start a broker and give its port."""
    broker.start()
    return broker.port


def test_a_file_that_cannot_be_moved_does_not_keep_the_others(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """One camera whose files cannot be moved: the other camera's go all the same, and nothing is lost."""
    box = Box(tmp_path / "box", broker.port, cameras=("stuck", "free"), agent={"name": "stuck"})
    for camera in box.config["cameras"]:
        camera |= {"when_done": "move", "done_folder": str(tmp_path / camera["name"])}
    box.write_config()
    difference_model(box.inbox / "model.onnx")
    with box:
        box.start()
        (tmp_path / "stuck").write_bytes(b"")  # no folder can be made here
        for number in range(3):
            drop_file(good_strip, box.camera("stuck") / f"{number}.tif")
            drop_file(good_strip, box.camera("free") / f"{number}.tif")
        wait_for(lambda: not list(box.camera("free").iterdir()), "those of the other camera are moved")
        box.wait_until_published(6)
        wait_for(lambda: "cannot move" in box.log, "it says so")
        assert len(list(box.camera("stuck").iterdir())) == 3
        check_audit(box, 6)
        assert box.stop() == 0
