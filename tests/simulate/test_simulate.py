"""`strip-agent simulate` at a real broker: what a SCADA system would get to see."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped] # it brings no types

from agent.messages import schemas
from agent.simulate.story import LENGTH
from tests.helpers.box import Box, unique_results
from tests.helpers.broker import KIND, Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "agent.cli", "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def test_a_whole_story_arrives_complete_and_valid(tmp_path: Path) -> None:
    """Every message holds against its schema; no gap in `seq` although the connection is cut and the agent restarts."""
    with Broker(tmp_path) as broker, Subscriber(broker.port, "strip-agent/line3/#") as subscriber:
        where = ["--broker", f"127.0.0.1:{broker.port}", "--name", "line3", "--cameras", "a,b"]
        done = simulate(*where, "--strips", str(LENGTH), "--rate", "50")
        assert done.returncode == 0, done.stderr
        wait_for(lambda: len(unique_results(subscriber)) == LENGTH, "all of them")
        wait_for(lambda: b'"shutdown"' in subscriber.payloads("/state/agent")[-1], "the goodbye")
        messages = [(message.topic, json.loads(message.payload)) for message in subscriber.messages()]
    said = schemas()
    for _, message in messages:
        jsonschema.validate(message, said[message["schema"]])
    assert {message["schema"] for _, message in messages} >= {
        "strip-result/1", "model-event/1", "alarm-event/1", "model-state/1", "agent-state/1", "health/1",
        "review-event/1",
    }  # fmt: skip
    results = unique(messages, "/event/strip/")
    assert sorted(result["seq"] for result in results) == list(range(1, LENGTH + 1))
    assert {result["verdict"] for result in results} == {"ok", "anomalous", "invalid"}
    assert {result["camera"] for result in results} == {"a", "b"}
    alarms = [(event["code"], event["state"]) for event in unique(messages, "/event/alarm")]
    assert alarms == [
        ("camera_missing", "raised"), ("camera_missing", "cleared"),
        ("heatmaps_no_space", "raised"), ("heatmaps_no_space", "cleared"),
    ]  # fmt: skip
    happened = [event["event"] for event in unique(messages, "/event/model/")]
    assert happened == ["rejected", "activated", "rolled_back"]
    states = [message for topic, message in messages if topic.endswith("/state/agent")]
    reasons = list(dict.fromkeys((state["connection"], state["reason"]) for state in states))
    assert (1, "connection_lost") in reasons, "the cut was one for subscribers as well"
    assert reasons[-1] == (3, "shutdown")
    assert "the connection is cut" in done.stdout


def unique(messages: list[tuple[str, dict[str, Any]]], topic_part: str) -> list[dict[str, Any]]:
    """Give the messages of these topics without repeats, in their order."""
    return list({m["msg_id"]: m for topic, m in messages if topic_part in topic}.values())


def test_the_box_of_a_configuration_is_simulated_unless_it_runs(tmp_path: Path) -> None:
    """Its name, cameras, topics and pattern of part numbers; nothing in its folders; never beside the real one."""
    with (
        Broker(tmp_path) as broker,
        Subscriber(broker.port) as subscriber,
        Box(tmp_path / "box", broker.port, cameras=("left",), mqtt={"base_topic": "acme/{agent}"}) as box,
    ):
        box.config["cameras"][0]["part_id_pattern"] = "^(PN[0-9]+)-"
        box.write_config()
        config = ["--config", str(box.config_file)]
        done = simulate(*config, "--strips", "3", "--rate", "50")
        assert done.returncode == 0, done.stderr
        wait_for(lambda: len(subscriber.payloads("acme/box1/event/strip/left")) == 3, "three")
        assert json.loads(subscriber.payloads("/event/strip/left")[0])["part_id"] == "PN0815"
        assert not box.state.exists()
        difference_model(box.inbox / "model.onnx")
        box.start()
        refused = simulate(*config, "--strips", "1")
        assert refused.returncode == 1
        assert "the service of this file runs here" in refused.stderr
        assert "exclude each other" in simulate(*config, "--broker", "localhost").stderr


def test_a_broker_that_is_away_is_said(tmp_path: Path) -> None:
    """It ends all the same, and says what has not arrived."""
    broker = Broker(tmp_path, start=False, kind=KIND)
    done = simulate("--broker", f"127.0.0.1:{broker.port}", "--strips", "2", "--rate", "50")
    assert "Connection refused" in done.stderr
    assert "2 messages have not reached the broker" in done.stderr
    assert simulate("--broker", "127.0.0.1:no", "--strips", "1").returncode == 2
    assert simulate("--cameras", "a b", "--strips", "1").returncode == 2
