"""A camera with dead pixels: what the service publishes, and when a changed file counts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tests.e2e.checks import check_audit, check_messages
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import Broker, Subscriber
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from pathlib import Path

DEAD = "".join(f"{x},{y}\n" for x in range(21, 56, 8) for y in range(185, 225, 8))  # all around the defect
NONE = "dead_x,dead_y\n"
# A file that a busy machine has not read in half a minute counts as away, and the copy of the start before is used.
PATIENT = {"agent.config.ignored.EXAMINED_SECONDS": 180.0, "agent.config.ignored.LOOK_SECONDS": 180.0}


def test_dead_pixels_are_blanked_and_a_changed_file_counts_from_the_next_start(
    tmp_path: Path, broker: Broker, bad_part: Path
) -> None:
    """The result says which file blanked what; one that fits no strip refuses strips, a bad one stops the start."""
    listed = tmp_path / "dead.csv"
    listed.write_text(NONE + DEAD)
    box = Box(tmp_path / "box", broker.port, agent={"name": "ignoring"})
    box.config["cameras"][0]["ignore_pixels"] = str(listed)
    box.write_config()
    box.change_constants(PATIENT)
    with box, Subscriber(broker.port, "strip-agent/ignoring/#") as subscriber:
        difference_model(box.inbox / "model.onnx")
        box.start()
        drop_file(bad_part, box.camera() / "1.tif")
        wait_for_results(subscriber, 1)
        listed.write_text(NONE)
        drop_file(bad_part, box.camera() / "2.tif")
        wait_for_results(subscriber, 2)
        assert box.stop() == 0
        box.start()
        drop_file(bad_part, box.camera() / "3.tif")
        results = {result["file"]: result for result in wait_for_results(subscriber, 3)}
        assert [results[f"{n}.tif"]["verdict"] for n in (1, 2, 3)] == ["ok", "ok", "anomalous"]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in (NONE + DEAD, NONE + DEAD, NONE)]
        assert [results[f"{n}.tif"]["ignore_pixels_sha256"] for n in (1, 2, 3)] == digests
        assert {result["ignore_mask_sha256"] for result in results.values()} == {""}
        assert results["1.tif"]["defect_count"] == 0
        check_messages(subscriber)
        check_audit(box, 3)
        assert box.stop() == 0
        listed.write_text(NONE + "300,87\n")  # x and y mixed up: right for no strip of this model's
        box.start()
        drop_file(bad_part, box.camera() / "4.tif")
        refused = wait_for_results(subscriber, 4)[-1]
        assert (refused["verdict"], refused["reason"]) == ("invalid", "ignored_pixels_misfit")
        assert box.stop() == 0
        assert "strips are 88 pixels wide" in box.log
        listed.write_text("x,y\n300,87\n")
        box.start(wait=False)
        assert box.process is not None
        assert box.process.wait(180) == 78
        assert "dead_x (the column) is 300 and dead_y (the row) 87" in box.log
