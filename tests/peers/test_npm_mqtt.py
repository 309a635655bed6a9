"""What a client and a validator that others wrote make of the messages: npm's mqtt over MQTT 5 and 3.1.1, and ajv."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agent.messages import schemas
from tests.helpers.asking import mosquitto_rr, needs_mosquitto_rr, request
from tests.helpers.box import Box, drop_file
from tests.helpers.broker import PERSISTENT, Broker, wait_for
from tests.helpers.models import difference_model
from tests.helpers.publishing import needs_mosquitto
from tests.helpers.pushing import push
from tests.helpers.repository import ROOT
from tests.helpers.strips import write_strip
from tests.peers.installed import Recorder, facts_of, needs_peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.peers, needs_mosquitto, needs_mosquitto_rr, needs_peer("npm")]

TOPICS = tuple(f"strip-agent/+/{part}/#" for part in ("event", "state", "replay", "cmd", "rsp"))
VERSIONS = (5, 4)
REQUESTS: dict[str, dict[str, Any]] = {
    "status": {},
    "pause": {"camera": "top"},
    "resume": {"camera": "top"},
    "set_threshold": {"camera": "top", "value": 0.7},
    "rescan": {"camera": "nowhere"},
}


@pytest.fixture(scope="module")
def recorders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recorder, ...]]:
    """Record a box that says all it can: results, pushes, an alarm, answers, a review, a shadow, its end."""
    folder = tmp_path_factory.mktemp("npm")
    mqtt = {"commands": list(REQUESTS)}
    with (
        Broker(folder, PERSISTENT) as broker,
        Box(folder / "box", broker.port, cameras=("top", "side"), mqtt=mqtt) as box,
    ):
        recorders = tuple(Recorder(folder, broker.port, version, *TOPICS) for version in VERSIONS)
        with ExitStack() as listening:
            listen(listening, recorders)
            first = difference_model(box.inbox / "model.onnx")
            box.start()
            drop_strips(folder, box, "first")
            wait_for(lambda: all(len(strips(recorder)) == 3 for recorder in recorders), "three results")
        # Both are away while the box goes on; their sessions keep what comes.
        drop_strips(folder, box, "second")
        push(box.inbox / "cut off.onnx", lambda path: path.write_bytes((box.inbox / "model.onnx").read_bytes()[:999]))
        shutil.rmtree(box.camera("side"))
        box.wait_until_published(6)
        wait_for(lambda: "camera_side_missing" in box.ask("status")["health"]["alarms"], "the alarm")
        with ExitStack() as listening:
            listen(listening, recorders)
            assert box.cli("resend", "1", "2").returncode == 0
            for name, arguments in REQUESTS.items():
                for protocol in ("5", "3.1.1"):
                    asked = request(f"{name} {protocol}", **arguments)
                    mosquitto_rr(broker.port, "strip-agent/box1", name, asked, protocol)
            for recorder in recorders:
                wait_for(lambda it=recorder: len(strips(it)) == 6, "what came meanwhile")  # type: ignore[misc]
                wait_for(lambda it=recorder: it.messages("/event/alarm"), "the alarm")  # type: ignore[misc]
                wait_for(lambda it=recorder: "rejected" in happened(it), "the refusal")  # type: ignore[misc]
                wait_for(lambda it=recorder: len(it.messages("/replay/")) == 2, "the resent ones")  # type: ignore[misc]
                wait_for(lambda it=recorder: len(answers(it)) == 2 * len(REQUESTS), "the answers")  # type: ignore[misc]
            judged = [result for result in strips(recorders[0]).values() if result["verdict"] != "invalid"]
            strip_id = judged[0]["strip_id"]
            assert box.cli("strips", "review", strip_id, "no_defect", "--by", "somebody").returncode == 0
            push(box.inbox / "second.onnx", partial(difference_model, version=2))
            for recorder in recorders:
                wait_for(lambda it=recorder: it.messages("/event/review"), "the review")  # type: ignore[misc]
                wait_for(lambda it=recorder: len(activated(it)) == 2, "the second model is active")  # type: ignore[misc]
            assert box.cli("models", "shadow", first, "--events").returncode == 0
            for recorder in recorders:
                wait_for(lambda it=recorder: it.messages("/state/shadow/"), "how the shadow compares")  # type: ignore[misc]
            box.ask("retry", strip_ids=[strip_id])
            for recorder in recorders:
                wait_for(lambda it=recorder: it.messages("/event/shadow/"), "what it says of a strip")  # type: ignore[misc]
            assert box.stop() == 0
            for recorder in recorders:
                wait_for(lambda it=recorder: goodbye(it), "the last word")  # type: ignore[misc]
        yield recorders


def listen(listening: ExitStack, recorders: tuple[Recorder, ...]) -> None:
    """Start the recorders and wait until each is subscribed."""
    for recorder in recorders:
        before = len(recorder.subscriptions)
        listening.enter_context(recorder.run())
        wait_for(lambda it=recorder, n=before: len(it.subscriptions) > n, "subscribed")  # type: ignore[misc]


def drop_strips(folder: Path, box: Box, name: str) -> None:
    """Drop a good one, a defect and a file that is no picture."""
    write_strip(folder / "good.tif", seed=len(name))
    write_strip(folder / "defect.tif", defect=True, seed=len(name))
    (folder / "broken.tif").write_bytes(f"no picture {name}".encode())
    for kind in ("good", "defect", "broken"):
        drop_file(folder / f"{kind}.tif", box.camera() / f"{name} {kind} ü.tif")


def strips(recorder: Recorder) -> dict[str, dict[str, Any]]:
    """Give the results that arrived, by msg_id."""
    return {message["json"]["msg_id"]: message["json"] for message in recorder.messages("/event/strip/")}


def answers(recorder: Recorder) -> dict[str, dict[str, Any]]:
    """Give the answers to commands, by their ids."""
    return {message["json"]["id"]: message["json"] for message in recorder.messages("/rsp/")}


def happened(recorder: Recorder) -> set[str]:
    """Give what happened to models."""
    return {message["json"]["event"] for message in recorder.messages("/event/model/")}


def activated(recorder: Recorder) -> set[str]:
    """Give the models that became active."""
    said = [message["json"] for message in recorder.messages("/event/model/")]
    return {event["sha256"] for event in said if event["event"] == "activated"}


def goodbye(recorder: Recorder) -> bool:
    """Whether the agent has said that it stops."""
    return bool(recorder.messages("/state/agent")[-1]["json"]["reason"] == "shutdown")


def test_every_message_is_valid_under_ajv_in_strict_mode(recorders: tuple[Recorder, ...]) -> None:
    """Draft 2020-12, over MQTT 5 and over 3.1.1; each schema with one set of keys and types; all of them seen."""
    for recorder in recorders:
        checked = facts_of("check_messages.js", str(ROOT / "docs" / "schemas"), str(recorder.file))
        assert checked["findings"] == []
        assert set(checked["seen"]) == set(schemas())


def test_ajv_finds_a_message_that_is_not_what_the_schema_says(recorders: tuple[Recorder, ...], tmp_path: Path) -> None:
    """A score that is text, a key that went away, a value that was none before: the check is one."""
    (good, *_) = recorders[0].messages("/event/strip/")
    spoilt: list[dict[str, Any]] = [
        {**good["json"], "score": "0.5"},
        {key: value for key, value in good["json"].items() if key != "seq"},
        {**good["json"], "part_id": None},
        {**good["json"], "schema": "strip-result/2"},
    ]
    for number, message in enumerate(spoilt):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(json.dumps({**good, "json": message}) + "\n")
        assert facts_of("check_messages.js", str(ROOT / "docs" / "schemas"), str(file))["findings"] != [], message


def test_both_protocols_bring_the_same_and_nothing_is_missing(recorders: tuple[Recorder, ...]) -> None:
    """No gap in `seq`, half of a time when nobody was connected, one of a strip judged again; byte by byte the same."""
    modern, old = recorders
    texts = [{m["text"] for m in it.messages("/event/") + it.messages("/replay/")} for it in recorders]
    assert texts[0] == texts[1]
    for recorder in (modern, old):
        assert [subscription["session"] for subscription in recorder.subscriptions] == [False, True]
        assert sorted(result["seq"] for result in strips(recorder).values()) == list(range(1, 8))
        assert {result["file"] for result in strips(recorder).values()} == {
            f"{name} {kind} ü.tif" for name in ("first", "second") for kind in ("good", "defect", "broken")
        }
        again = [message["json"] for message in recorder.messages("/replay/")]
        assert all(message["replayed"] and message["msg_id"] in strips(recorder) for message in again)
        assert all(message["qos"] == 1 for message in recorder.messages())


def test_commands_are_answered_to_mosquitto_rr(recorders: tuple[Recorder, ...]) -> None:
    """Over both protocols, each once: done, or refused with its reason (a camera that there is not)."""
    for recorder in recorders:
        found = answers(recorder)
        assert {name for name, answer in found.items() if answer["ok"]} == {
            f"{name} {protocol}" for name in REQUESTS if name != "rescan" for protocol in ("5", "3.1.1")
        }
        assert "nowhere" in found["rescan 5"]["detail"]


def test_mqtt_5_says_what_a_message_is(recorders: tuple[Recorder, ...]) -> None:
    """Content type, payload format and the schema's name stand beside each payload, the will's aside."""
    for message in recorders[0].messages():
        if "/cmd/" in message["topic"]:
            continue  # who asks may leave it out
        properties = message["properties"]
        assert properties["contentType"] == "application/json"
        assert properties["payloadFormatIndicator"] is True
        assert properties["userProperties"]["schema"] in set(schemas())
