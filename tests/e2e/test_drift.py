"""A line that changes, as a subscriber and whoever looks at the box see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.contract.measures import make_reference
from agent.worker.measuring import measure
from tests.helpers.box import Box
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import encode, make_pixels

if TYPE_CHECKING:
    from pathlib import Path

USUAL_SCORE = 0.06  # that the model gives to these strips
IMPATIENT = {
    "agent.alarms.OFF_DELAY_SECONDS": 0.5,
    "agent.alarms.START_SECONDS": 10.0,
    "agent.drift.judging.WINDOW": 12,
    "agent.drift.judging.FEWEST": 6,
}


def test_a_line_that_becomes_darker_is_told_once_with_the_culprit_and_cleared_when_the_light_is_back(
    tmp_path: Path,
) -> None:
    """The model's file says how strips looked; a kill in between neither forgets nor repeats the alarm."""
    looks = [measure(make_pixels(channels=3, seed=seed), 255.0, USUAL_SCORE) for seed in range(100, 110)]
    reference = make_reference(looks, stretched=False, good_below=0.5)
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber, Box(tmp_path / "box", broker.port) as box:
        box.change_constants(IMPATIENT)
        difference_model(box.inbox / "model.onnx", reference=reference)
        box.start()
        wait_for(lambda: box.ask("status")["models"]["default"]["active_sha256"], "the model is active")
        feed(box, range(9), gain=0.75)
        wait_for(lambda: states(subscriber) == ["raised"], "the alarm is told")
        assert "camera_top_drift_light" in box.ask("status")["health"]["alarms"]
        box.kill()
        box.start()
        wait_for(lambda: "camera_top_drift_light" in box.ask("status")["health"]["alarms"], "it is found again")
        assert "drift     top: LIGHT: The target's brightest places have the grey level 1" in box.cli("status").stdout
        feed(box, range(100, 112))
        wait_for(lambda: states(subscriber) == ["raised", "cleared"], "the alarm is cleared")
        drift = box.ask("status")["drift"]["top"]
        assert (drift["reference"], drift["reference_strips"], drift["changed"]) == ("calibration", 10, {})
        assert box.stop() == 0
    raised = events(subscriber)[0]
    assert (raised["code"], raised["source"], raised["priority"]) == ("camera_drift_light", "camera/top", "medium")
    assert "of the calibration strips; since 2" in raised["text"]


def feed(box: Box, seeds: range, gain: float = 1.0) -> None:
    """Give the camera strips and wait until they are judged."""
    for seed in seeds:
        partial = box.camera() / f".{seed}.tif.part"
        partial.write_bytes(encode(make_pixels(channels=3, seed=seed) * gain))
        partial.rename(box.camera() / f"{seed}.tif")
    last = f"{seeds[-1]}.tif"

    def all_are_judged() -> bool:
        strips = box.ask("strips_list", limit=200)["strips"]
        judged = {strip["file"] for strip in strips if strip["state"] not in {"waiting", "judged"}}
        return last in judged and box.ask("status")["strips"]["pending"] == 0

    wait_for(all_are_judged, "all strips are judged")


def events(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Return the alarms about drift that arrived, without repeats."""
    told = {event["msg_id"]: event for event in map(json.loads, subscriber.payloads("/event/alarm"))}
    return [event for event in told.values() if "drift" in event["code"]]


def states(subscriber: Subscriber) -> list[str]:
    """Return what became of them, in the order of arrival."""
    return [event["state"] for event in events(subscriber)]
