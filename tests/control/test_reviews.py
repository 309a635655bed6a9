"""Reviews through the handler: who may say what, what is published, and what it says about the models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped] # it brings no types
import pytest
from pydantic import ValidationError

from agent.cli import show
from agent.config import Config
from agent.control.commands import handle
from agent.control.context import Who
from agent.control.desk import CommandDesk, Order
from agent.control.for_pages import WEB_USER
from agent.ledger import NewResult
from agent.ledger.strips import LIVE
from agent.messages import Fault, schemas
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from pathlib import Path

    from agent.control.context import Context

MODEL = "ab" * 32


def judge(box: Context, name: str, verdict: str) -> str:
    """Bring a strip of `side` to a result; return its id."""
    box.ledger.strips.begin([SettledFile("side", name, FileIdentity(10, 1, 1))])
    strip = box.ledger.strips.next_waiting("side", LIVE, ())
    assert strip is not None
    told = {"msg_id": "s-1", "part_id": "PN7", "score": 0.75, "model_id": "unet", "model_version": 3, "seq": 1}
    told["revision"] = 1
    result = NewResult(verdict, "", 0.75, MODEL, 0, "d", "event/strip/side", dispose=False)
    box.ledger.strips.commit(strip, result, lambda _seq, _ms: json.dumps(told).encode(), 10**6)
    return strip.strip_id


def review(box: Context, strip_id: str, finding: str = "defect", **more: Any) -> dict[str, Any]:
    """Ask for it; return the answer."""
    request = {"command": "review", "strip_id": strip_id, "finding": finding, "by": "Lin", **more}
    return handle(box, request, "operator")


def events(box: Context, topic: str) -> list[dict[str, Any]]:
    """Return what waits for the broker on a topic."""
    waiting = box.ledger.outbox.next_outbox_messages(0, 1000)
    return [json.loads(message.payload) for message in waiting if message.topic == topic]


def test_a_review_is_recorded_shown_and_published_once(box: Context) -> None:
    """The person's word as `event/review`, the system's user as `event/command`, both in the outbox."""
    strip_id = judge(box, "bad\n.tif", "anomalous")
    answer = review(box, strip_id[:8], "no_defect", by=" Lin \u3000 Mei ", remark="only\ndust")
    assert answer["ok"], answer
    (event,) = events(box, "event/review")
    jsonschema.validate(event, schemas()["review-event/1"])
    assert (event["by"], event["remark"], event["finding"]) == ("Lin Mei", "only dust", "no_defect")
    assert (event["strip_id"], event["camera"], event["file"]) == (strip_id, "side", "bad\\n.tif")
    about = ("result_msg_id", "revision", "verdict", "score", "part_id", "model_id", "model_version", "model_sha256")
    assert [event[key] for key in about] == ["s-1", 1, "anomalous", 0.75, "PN7", "unet", 3, MODEL]
    (command,) = events(box, "event/command")
    assert (command["command"], command["by"], command["ok"]) == ("review", "operator", True)
    facts = handle(box, {"command": "strips_show", "strip_id": strip_id}, "operator")
    (said,) = facts["strip"]["reviews"]
    assert (said["person"], said["sender"]) == ("Lin Mei", "operator")
    assert "no_defect of revision 1 (anomalous), says Lin Mei: only dust" in show.strip(facts)


def test_a_strip_without_a_result_is_reviewed_too(box: Context) -> None:
    """The message is whole: every key of its schema is there."""
    box.ledger.strips.begin([SettledFile("side", "waits.tif", FileIdentity(10, 1, 1))])
    ((_, strip_id),) = box.ledger.database._connection.execute("SELECT id, strip_id FROM strips WHERE camera = 'side'")
    assert review(box, strip_id)["ok"]
    (event,) = events(box, "event/review")
    jsonschema.validate(event, schemas()["review-event/1"])
    assert (event["result_msg_id"], event["revision"], event["verdict"], event["score"]) == ("", 0, "", -1.0)


@pytest.mark.parametrize("reviews", [True, False])
def test_the_page_on_the_box_may_review_where_it_is_to(box: Context, *, reviews: bool) -> None:
    """`web.reviews: false` is refused here as well, whatever the page's process shows."""
    context = replace(box, config=Config.model_validate(box.config.model_dump() | {"web": {"reviews": reviews}}))
    request = {"command": "review", "strip_id": judge(box, "1.tif", "ok"), "finding": "defect", "by": "Lin"}
    assert handle(context, request, WEB_USER)["ok"] is reviews
    assert len(events(box, "event/review")) == int(reviews)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"finding": "ok"}, "finding"),
        ({"finding": None}, "finding"),
        ({"by": ""}, "by"),
        ({"by": " \n"}, "by"),
        ({"by": "x" * 65}, "by"),
        ({"by": 7}, "by"),
        ({"by": "\x1b[2J"}, "printable"),
        ({"by": "a\u202eb"}, "printable"),
        ({"remark": "x" * 501}, "remark"),
        ({"remark": "x" * 5000}, "remark"),
        ({"remark": "\udcff"}, "printable"),
        ({"revision": 0}, "revision"),
        ({"revision": 2}, "no result of revision 2"),
        ({"strip_id": "0123456789abcdef"}, "no strip"),
        ({"strip_id": "../x"}, "hexadecimal"),
        ({"model": "x"}, "no such argument"),
    ],
)
def test_what_is_no_review_changes_nothing(box: Context, wrong: dict[str, Any], said: str) -> None:
    """Nobody can bring a terminal's commands, endless text or another strip in."""
    strip_id = judge(box, "1.tif", "ok")
    answer = review(box, **{"strip_id": strip_id, **wrong})
    assert not answer["ok"]
    assert said in answer["error"]
    assert events(box, "event/review") == []
    assert box.ledger.reviews.since() == []


def test_reviews_cannot_be_given_over_mqtt(box: Context) -> None:
    """The broker does not know people: the name cannot be configured, and is refused where it comes all the same."""
    with pytest.raises(ValidationError):
        Config.model_validate(box.config.model_dump() | {"mqtt": {"commands": ["review"]}})
    strip_id = judge(box, "1.tif", "ok")
    arguments = {"strip_id": strip_id, "finding": "defect", "by": "Lin"}
    result = CommandDesk(box).ask(Order("review", arguments, Who("hmi", "mqtt", "1")))
    assert result is not None
    assert result.error == Fault.NOT_ALLOWED
    assert box.ledger.reviews.since() == []


def test_false_alarms_and_misses_are_counted_for_the_model(box: Context) -> None:
    """By hand: 4 anomalous strips, of which 3 are false alarms, 2 ok ones, of which 1 is a miss; one is unsure."""
    said = [("anomalous", "no_defect")] * 3 + [("anomalous", "defect"), ("anomalous", "unsure")]
    said += [("ok", "defect"), ("ok", "no_defect"), ("invalid", "defect")]
    for number, (verdict, finding) in enumerate(said):
        assert review(box, judge(box, f"{number}.tif", verdict), finding)["ok"]
    summary = {
        "reviewed": 8, "unsure": 1, "confirmed": 1, "false_alarms": 3, "false_alarm_rate": 0.75, "misses": 1
    }  # fmt: skip
    facts = handle(box, {"command": "status"}, "operator")
    assert facts["reviews"] == {MODEL: summary}
    assert handle(box, {"command": "models_list"}, "operator")["reviews"] == {MODEL: summary}
    facts["models"]["default"] |= {"active_sha256": MODEL, "active_model_id": "unet"}
    assert "8 reviewed, 3 of 4 alarms false (75%), 1 missed" in show.status(facts)


def test_the_command_line_reviews_a_strip(box: Context, tmp_path: Path) -> None:
    """Without a service too; `--json` tells programs."""
    strip_id = judge(box, "1.tif", "ok")
    box.ledger.database.close()
    config = tmp_path / "agent.yaml"
    config.write_text(
        json.dumps({"agent": {"state_folder": str(tmp_path)}, "cameras": [{"name": "side", "folder": str(tmp_path)}]})
    )
    command = [sys.executable, "-m", "agent.cli", "strips", "review", strip_id[:6], "defect", "--config", str(config)]
    done = subprocess.run([*command, "--by", "Lin", "--json"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["review"]["finding"] == "defect"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, "nobody says so"
