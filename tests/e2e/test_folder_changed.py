"""A camera gets another folder while strips wait in the one before: each is judged from where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.checks import check_audit, check_messages
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from pathlib import Path


def _wait_until_begun(box: Box, strips: int) -> None:
    wait_for(lambda: box.ask("status")["strips"]["seen"] == strips, f"{strips} strips are begun")


@pytest.mark.parametrize("way", ["reload", "restart"])
def test_strips_of_the_folder_before_are_judged_from_there(
    tmp_path: Path, broker: Broker, good_strip: Path, way: str
) -> None:
    """Also while nothing lies in the new folder, which may be the place of a share that is not mounted."""
    before, now = tmp_path / "box" / "cameras" / "top", tmp_path / "elsewhere"
    now.mkdir()
    if way == "restart":
        (now / "read me.txt").write_text("no strip, but not an empty folder either")
    with (
        Box(tmp_path / "box", broker.port, agent={"name": f"folder-{way}"}) as box,
        Subscriber(broker.port, f"strip-agent/folder-{way}/#") as subscriber,
    ):
        box.start()
        difference_model(box.inbox / "model.onnx")
        wait_for(lambda: box.ask("status")["models"]["default"]["active_sha256"], "the model is active")
        assert box.ask("pause", camera="top")["ok"]
        for number in range(1, 4):
            drop_file(good_strip, before / f"{number}.tif")
        _wait_until_begun(box, 3)

        box.config["cameras"][0] |= {"folder": str(now)}
        box.write_config()
        if way == "reload":
            assert box.ask("reload")["ok"]
        else:
            assert box.stop() == 0
            box.start()
        assert box.ask("resume", camera="top")["ok"]
        judged = wait_for_results(subscriber, 3)
        assert [(one["file"], one["verdict"], one["reason"]) for one in judged] == [
            (f"{number}.tif", "ok", "") for number in range(1, 4)
        ]

        drop_file(good_strip, now / "4.tif")
        assert wait_for_results(subscriber, 4)[-1]["verdict"] == "ok"
        check_audit(box, 4)
        check_messages(subscriber)
        assert box.stop() == 0
