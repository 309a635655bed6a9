"""The configuration read again while the service runs: cameras come, change, go; what is no good changes nothing."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from tests.e2e.checks import check_audit, check_messages, check_processes
from tests.e2e.test_alarms import IMPATIENT, states
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from pathlib import Path


def reload(box: Box) -> dict[str, Any]:
    """Have the service read its file again and return its word."""
    box.write_config()
    return box.ask("reload")


def camera(box: Box, name: str, **keys: Any) -> dict[str, Any]:
    """Make a camera's folder, and what the configuration says of it."""
    folder = box.folder / "cameras" / name
    folder.mkdir(exist_ok=True)
    return {"name": name, "folder": str(folder), "settle_seconds": 0.05, "rescan_seconds": 1.0, **keys}


def test_cameras_come_change_and_go_without_a_restart(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """Each strip has one result, the worker stays, what was retained of a camera that went is cleared."""
    with (
        Box(tmp_path / "box", broker.port, agent={"name": "reloads"}) as box,
        Subscriber(broker.port, "strip-agent/reloads/#") as subscriber,
    ):
        box.start()
        difference_model(box.inbox / "model.onnx")
        drop_file(good_strip, box.camera() / "1.tif")
        wait_for_results(subscriber, 1)
        worker = box.ask("status")["workers"]["default"]["pid"]

        box.config["cameras"].append(camera(box, "side"))
        box.write_config()
        assert box.process is not None
        box.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "side" in box.ask("status")["watching"], "the new camera is watched")
        drop_file(good_strip, box.camera("side") / "2.tif")
        assert wait_for_results(subscriber, 2)[-1]["camera"] == "side"
        wait_for(lambda: subscriber.payloads("/state/last_strip/side"), "its newest strip is retained")

        box.config["cameras"][0] |= {"threshold": 0.0}
        assert reload(box)["changes"] == ["cameras.top.threshold: null -> 0.0"]
        drop_file(good_strip, box.camera() / "3.tif")
        assert wait_for_results(subscriber, 3)[-1]["verdict"] == "anomalous"

        box.config["cameras"][0] |= {"patterns": ["*.strip"], "watch": "poll"}
        assert len(reload(box)["changes"]) == 2
        wait_for(lambda: box.ask("status")["watching"]["top"]["state"] == "polling", "the folder is watched anew")
        drop_file(good_strip, box.camera() / "no longer.tif")
        drop_file(good_strip, box.camera() / "4.strip")
        assert wait_for_results(subscriber, 4)[-1]["file"] == "4.strip"

        box.config["cameras"].pop()
        assert reload(box)["changes"] == ["cameras.side is gone"]
        wait_for(lambda: subscriber.payloads("/state/last_strip/side")[-1] == b"", "its retained state is cleared")
        drop_file(good_strip, box.folder / "cameras" / "side" / "nobody.tif")
        drop_file(good_strip, box.camera() / "5.strip")
        wait_for_results(subscriber, 5)
        status = box.ask("status")
        assert list(status["watching"]) == ["top"]
        assert status["workers"]["default"]["pid"] == worker
        assert status["configuration"]["state"] == "same"
        told = [json.loads(payload) for payload in subscriber.payloads("/event/command")]
        assert [(event["command"], event["ok"]) for event in told] == [("reload", True)] * 4
        assert told[0]["by"] == "SIGHUP"
        check_audit(box, 5)
        check_processes(box)
        check_messages(subscriber)
        assert box.stop() == 0


def test_what_is_no_good_or_needs_a_restart_changes_nothing(tmp_path: Path, good_strip: Path) -> None:
    """The service goes on as before, and status, alarms and log say what is in the way; a repair is taken."""
    with (
        Broker(tmp_path) as broker,
        Subscriber(broker.port, "strip-agent/#") as subscriber,
        Box(tmp_path / "box", broker.port) as box,
    ):
        box.change_constants(IMPATIENT)
        box.start()
        difference_model(box.inbox / "model.onnx")
        wait_for(lambda: box.ask("status")["models"]["default"]["active_sha256"], "the model is active")

        box.config_file.write_text(box.config_file.read_text() + "speed: 3\n")
        assert "line" in box.ask("reload")["error"]
        assert "speed" in box.ask("status")["configuration"]["problems"][0]
        assert "NOT USABLE" in box.cli("status").stdout
        wait_for(lambda: ("configuration_invalid", "raised") in states(subscriber), "the alarm is told")

        box.config["cameras"][0] |= {"threshold": 0.0}
        box.config["mqtt"] |= {"keepalive_seconds": 90}
        refused = reload(box)
        assert not refused["ok"]
        assert "needs a restart: mqtt.keepalive_seconds: 60 -> 90" in refused["error"]
        assert "a restart is needed for mqtt.keepalive_seconds" in box.cli("status").stdout
        drop_file(good_strip, box.camera() / "1.tif")
        assert wait_for_results(subscriber, 1)[0]["verdict"] == "ok"

        box.config["mqtt"] |= {"keepalive_seconds": 60}
        box.write_config()  # and nobody reloads
        wait_for(lambda: "systemctl reload" in box.cli("status").stdout, "it is seen without a reload")
        wait_for(lambda: ("configuration_invalid", "cleared") in states(subscriber), "the file is good again")
        assert box.ask("reload")["ok"]
        drop_file(good_strip, box.camera() / "2.tif")
        assert wait_for_results(subscriber, 2)[-1]["verdict"] == "anomalous"
        wait_for(lambda: ("configuration_not_applied", "cleared") in states(subscriber), "it is applied")
        check_audit(box, 2)
        assert box.stop() == 0
