"""Commands to a real service through a real broker, as whoever integrates it gives them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.helpers.asking import Asker, mosquitto_rr, needs_mosquitto_rr, request
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import MOSQUITTO, Broker, Subscriber, wait_for
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from pathlib import Path

BASE = "strip-agent/box1"
ALLOWED = ["status", "pause", "resume", "set_threshold", "retry", "rollback", "resend", "rescan"]
Protocol = Literal["5", "3.1.1"]

pytestmark = [
    needs_mosquitto_rr,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed; amqtt knows no MQTT 5"),
]


def alarms(box: Box) -> list[str]:
    """Return the alarms of the moment."""
    told: str = box.ask("status")["health"]["alarms"]
    return [*filter(None, told.split(","))]


def events(subscriber: Subscriber) -> list[tuple[Any, ...]]:
    """Return who had what changed, with the outcome, in order."""
    told = [json.loads(payload) for payload in subscriber.payloads("/event/command")]
    return [(event["command"], event["by"], event["way"], event["ok"]) for event in told]


def test_a_paused_camera_and_an_operators_threshold_outlive_a_kill(
    tmp_path: Path, good_strip: Path, broker: Broker
) -> None:
    """Strips stay pending and counted, health says it; the threshold is told in every result, until it is cleared."""
    with (
        Box(tmp_path, broker.port, cameras=("top", "side"), mqtt={"commands": ALLOWED}) as box,
        Subscriber(broker.port, f"{BASE}/#") as subscriber,
    ):
        difference_model(box.inbox / "model.onnx")
        box.start()
        drop_file(good_strip, box.camera("top") / "0.tif")
        [first] = wait_for_results(subscriber, 1)
        assert first["threshold_source"] in ("model", "default")

        def ask(name: str, request_id: str, **values: Any) -> dict[str, Any]:
            answer = mosquitto_rr(broker.port, BASE, name, request(request_id, **values), "5")
            assert (answer["id"], answer["command"]) == (request_id, name)
            return answer

        assert ask("pause", "1", camera="top")["ok"]
        assert ask("set_threshold", "2", camera="side", value=0.0)["ok"]
        drop_file(good_strip, box.camera("top") / "1.tif")
        drop_file(good_strip, box.camera("side") / "1.tif")
        _, side = wait_for_results(subscriber, 2)
        assert (side["camera"], side["threshold"], side["threshold_source"]) == ("side", 0.0, "operator")
        assert side["verdict"] == "anomalous"
        wait_for(lambda: box.ask("status")["strips"]["pending"] == 1, "the strip of the paused camera is pending")
        assert "camera_top_paused" in alarms(box)
        assert box.ask("status")["paused"]["top"]["sender"] == "desk7"

        box.kill()
        box.start()
        wait_for(lambda: box.ask("status")["health"]["slots_ready"] == 1, "it scores again")
        drop_file(good_strip, box.camera("side") / "2.tif")
        *_, side = wait_for_results(subscriber, 3)
        assert (side["camera"], side["threshold_source"]) == ("side", "operator")
        wait_for(lambda: box.ask("status")["strips"]["pending"] == 1, "it is acknowledged, the other one waits")
        assert box.ask("status")["health"]["cameras_paused"] == 1
        assert ask("pause", "1", camera="top")["ok"], "answered again, from before the kill"
        assert ask("resume", "3", camera="top")["ok"]
        *_, top = wait_for_results(subscriber, 4)
        assert (top["camera"], top["file"]) == ("top", "1.tif")
        assert "was set by desk7" in box.cli("threshold", "side").stdout
        assert box.cli("threshold", "side", "clear").returncode == 0
        drop_file(good_strip, box.camera("side") / "3.tif")
        *_, side = wait_for_results(subscriber, 5)
        assert side["threshold_source"] == first["threshold_source"]
        wait_for(lambda: "camera_top_paused" not in alarms(box), "the alarm is over")
        wait_for(lambda: len(events(subscriber)) == 4, "the events")
        me = events(subscriber)[-1][1]
        assert events(subscriber) == [
            ("pause", "desk7", "mqtt", True),
            ("set_threshold", "desk7", "mqtt", True),
            ("resume", "desk7", "mqtt", True),
            ("set_threshold", me, "command_line", True),
        ]
        assert box.ask("audit")["balanced"]
        assert box.stop() == 0


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_must_do_nothing_does_nothing_and_what_is_repeated_is_done_once(
    tmp_path: Path, good_strip: Path, broker: Broker, protocol: Protocol
) -> None:
    """A retained rollback, an expired one, a repeated retry, an answer that was lost in an outage, and a flood."""
    with Asker(broker.port, BASE, protocol) as asker:
        asker.ask("rollback", request("kept"), retain=True).wait_for_publish(60)
        settings = {"commands": ALLOWED, "protocol": protocol}
        with (
            Box(tmp_path, broker.port, mqtt=settings) as box,
            Subscriber(broker.port, f"{BASE}/event/#") as subscriber,
        ):
            difference_model(box.inbox / "model.onnx")
            box.start()
            wait_for(lambda: box.ask("status")["commands_ignored"].get("retained") == 1, "the retained one is seen")
            drop_file(good_strip, box.camera() / "0.tif")
            [first] = wait_for_results(subscriber, 1)

            asker.ask("rollback", request("old", ts_ms=1))
            wait_for(lambda: box.ask("status")["commands_ignored"].get("expired") == 1, "the expired one is seen")

            retry = request("again", strip_ids=[first["strip_id"]])
            for _ in range(3):
                asker.ask("retry", retry)
            wait_for(lambda: len(asker.answers) == 3, "three answers")
            assert len({answer.payload for answer in asker.answers}) == 1
            assert {answer.topic for answer in asker.answers} == {f"{BASE}/rsp/retry"}
            _, second = wait_for_results(subscriber, 2)
            assert second["revision"] == 2

            before = box.ask("status")["health"]
            for number in range(1000):
                asker.ask("rollback", b'{"schema":"command/1","id":"%d","by":"x","surplus":1}' % number)

            def accounted() -> int:
                now = box.ask("status")["health"]
                return int(sum(now[key] - before[key] for key in ("commands_answered", "commands_ignored")))

            wait_for(lambda: accounted() == 1000, "all are answered or counted")
            assert box.ask("strips_list")["strips"][0]["revision"] == 2
            wait_for(lambda: len(events(subscriber)) == 1, "the retry is told")
            assert events(subscriber) == [("retry", "desk7", "mqtt", True)]
            assert box.ask("models_list")["models"][0]["state"] == "active"
            box.wait_until_published(1)
            answer = mosquitto_rr(broker.port, BASE, "status", request("s"), protocol)
            assert json.loads(answer["result"])["strips"]["acknowledged"] == 1
            assert box.stop() == 0
        asker.ask("rollback", b"", retain=True).wait_for_publish(60)
