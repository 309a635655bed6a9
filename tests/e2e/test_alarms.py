"""Alarms as a subscriber sees them: each once, over outages of the broker and kills of the service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.messages import schemas
from tests.helpers.box import Box
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

import jsonschema  # type: ignore[import-untyped] # it brings no types

IMPATIENT = {
    "agent.alarms.START_SECONDS": 30.0,
    "agent.alarms.OFF_DELAY_SECONDS": 0.5,
    "agent.publisher.link._UNREACHABLE_SECONDS": 0.5,
    "agent.publisher.link._LONGEST_BACKOFF_SECONDS": 1.0,
}


def told(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Return the alarm events that arrived, without repeats, in their order."""
    events: dict[str, dict[str, Any]] = {}
    for payload in subscriber.payloads("/event/alarm"):
        event = json.loads(payload)
        assert events.setdefault(event["msg_id"], event) == event
    return list(events.values())


def test_alarms_survive_an_outage_of_the_broker_and_a_kill_and_are_told_once(tmp_path: Path) -> None:
    """What was raised without a broker arrives later; a kill raises nothing again, and clears nothing that lasts."""
    with Broker(tmp_path) as broker, TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        proxy.refuse = True
        with Box(tmp_path / "box", proxy.port) as box:
            box.change_constants(IMPATIENT)
            box.camera().rmdir()
            box.start()
            wait_for(lambda: box.ask("status")["outbox"]["outbox_pending"] >= 3, "broker, camera and model are missed")
            difference_model(box.inbox / "model.onnx")
            wait_for(lambda: box.ask("status")["outbox"]["outbox_pending"] >= 5, "one is over, and the model's event")
            box.kill()
            box.start()
            for alarm in ("camera_top_missing", "broker_unreachable"):
                wait_for(lambda it=alarm: it in box.ask("status")["health"]["alarms"], "it is found again")  # type: ignore[misc]
            proxy.refuse = False
            wait_for(lambda: ("broker_unreachable", "cleared") in states(subscriber), "the broker's alarm is cleared")
            box.camera().mkdir()
            wait_for(lambda: ("camera_missing", "cleared") in states(subscriber), "the camera's alarm is cleared")
            assert box.stop() == 0
    for event in told(subscriber):
        jsonschema.validate(event, schemas()["alarm-event/1"])
    assert sorted(states(subscriber)) == sorted(
        (code, state)
        for code in ("slot_no_model", "camera_missing", "broker_unreachable")
        for state in ("raised", "cleared")
    )
    for code, source in {"broker_unreachable": "agent", "camera_missing": "camera/top"}.items():
        raised, cleared = (event for event in told(subscriber) if event["code"] == code)
        assert raised["since_ms"] == raised["ts_ms"] == cleared["since_ms"] < cleared["ts_ms"]
        assert raised["source"] == cleared["source"] == source


def states(subscriber: Subscriber) -> list[tuple[str, str]]:
    """Return what became of which code, in the order of arrival."""
    return [(event["code"], event["state"]) for event in told(subscriber)]
