"""The pages for whoever builds the SCADA side: what can be run is run, what cannot is held against the schemas."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.config import Config
from agent.messages import encode, schemas
from agent.simulate import saying
from agent.simulate.story import Judged
from tests.helpers.broker import PERSISTENT, Broker, Subscriber, wait_for
from tests.helpers.programs import needs
from tests.helpers.publishing import needs_mosquitto
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCS = ROOT / "docs"
PAGES = [DOCS / "scada.md", *sorted((DOCS / "scada").glob("*.md"))]
TYPES = {"string": "string", "float": "number", "int": "integer"}


def results(count: int) -> list[bytes]:
    """Make strip results, `seq` from 1."""
    camera = {"name": "top", "folder": "/nowhere"}
    box = saying.Box(Config.model_validate({"agent": {"name": "insp1"}, "cameras": [camera]}), stream="feed")
    judged = [Judged("top", score=0.1 * (number % 10), inference_ms=40.0) for number in range(count)]
    return [encode(saying.strip_result(box, one, 1_795_391_301_444 + number)) for number, one in enumerate(judged)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """Pages, files and pictures that are named are there; and the first page names all the others."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
    if page.name != "scada.md":
        assert f"(scada/{page.name})" in PAGES[0].read_text()


def test_telegraf_is_asked_for_keys_that_there_are() -> None:
    """Each path with its type, and the time; QoS 1 with a session."""
    inputs = tomllib.loads((DOCS / "scada" / "telegraf.conf").read_text())["inputs"]["mqtt_consumer"]
    for consumer, schema in zip(inputs, ("strip-result/1", "health/1"), strict=True):
        assert (consumer["qos"], consumer["persistent_session"]) == (1, True)
        properties = schemas()[schema]["properties"]
        (parser,) = consumer["json_v2"]
        assert properties[parser["timestamp_path"]]["type"] == "integer"
        assert {tag["path"] for tag in parser["tag"]} <= properties.keys()
        for field in parser["field"]:
            stated = properties[field["path"]]
            assert stated.get("type", "integer" if "enum" in stated else "") == TYPES[field["type"]], field


def test_home_assistant_is_asked_for_keys_that_there_are() -> None:
    """Each `value_json.` of a topic stands in that topic's schema."""
    text = (DOCS / "scada" / "home-assistant.yaml").read_text()
    entities = [entity for kind in yaml.safe_load(text)["mqtt"].values() for entity in kind]
    of_topic = {"last_strip": "strip-result/1", "agent": "agent-state/1", "health": "health/1"}
    pairs = [(entity.get("state_topic") or entity["url_topic"], json.dumps(entity)) for entity in entities]
    pairs += [(one["topic"], json.dumps(one)) for entity in entities for one in entity.get("availability", [])]
    assert len(pairs) >= 8
    for topic, templates in pairs:
        own = re.sub(r'"availability": \[.*?\]', "", templates)
        keys = set(re.findall(r"value_json\.(\w+)", own))
        assert keys
        assert keys <= schemas()[of_topic[topic.split("/state/")[1].split("/")[0]]]["properties"].keys(), topic


def test_the_statements_for_databases_keep_each_result_once_and_name_gaps() -> None:
    """As they stand on the page; repeats are left out, of a strip that was judged again the last one counts."""
    page = (DOCS / "scada" / "databases.md").read_text()
    create, insert, gaps, share = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute(create)
        rows = [json.loads(payload) for payload in results(9)]
        again = rows[8] | {"strip_id": rows[0]["strip_id"], "verdict": "anomalous"}
        bad = rows[7] | {"quality": 0, "verdict": "invalid", "score": -1.0}
        for row in [*rows[:2], rows[1], rows[4], rows[5], bad, again]:
            db.execute(insert, row)
        assert db.execute("SELECT seq FROM strips ORDER BY seq").fetchall() == [(1,), (2,), (5,), (6,), (8,), (9,)]
        assert db.execute(gaps).fetchall() == [("feed", 3, 4), ("feed", 7, 7)]
        (counted,) = db.execute(share).fetchall()
        anomalous = sum(row["verdict"] == "anomalous" for row in (rows[1], rows[4], rows[5], again))
        assert counted == ("top", 4, anomalous)


@contextlib.contextmanager
def running(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a subscriber until the block ends; then as a power cut would end it."""
    with output.open("ab") as file:
        child = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield child
    finally:
        child.kill()
        child.wait(120)


@needs_mosquitto
def test_the_python_subscriber_misses_nothing(tmp_path: Path) -> None:
    """Killed and started again it has everything once, says what is missing, and takes what is sent again."""
    payloads = results(6)
    output, file = tmp_path / "out", tmp_path / "results.db"

    def kept() -> list[int]:
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(file)) as db, contextlib.suppress(sqlite3.OperationalError):
            return [seq for (seq,) in db.execute("SELECT seq FROM strips ORDER BY seq")]
        return []

    with Broker(tmp_path, PERSISTENT) as broker, Subscriber(broker.port, "nothing") as box:
        command = [sys.executable, str(DOCS / "scada" / "subscriber.py"), "127.0.0.1", str(broker.port), str(file)]

        def publish(*numbers: int) -> None:
            for seq in numbers:
                box.publish("strip-agent/insp1/event/strip/top", payloads[seq - 1])

        with running(command, output):
            wait_for(lambda: (publish(1), kept() == [1])[1], "it is subscribed")  # type: ignore[func-returns-value]
            publish(2, 2)
            wait_for(lambda: kept() == [1, 2], "two results")
        publish(2, 3, 5)
        with running(command, output):
            wait_for(lambda: kept() == [1, 2, 3, 5], "what came meanwhile")
            assert "session found" in output.read_text()
            wait_for(lambda: "insp1: missing 4 to 4 of stream feed" in output.read_text(), "the gap is named")
            stored = json.loads(payloads[3]) | {"replayed": True}
            box.publish("strip-agent/insp1/replay/strip/top", json.dumps(stored).encode())
            publish(6)
            wait_for(lambda: kept() == [1, 2, 3, 4, 5, 6], "the gap is closed")
        assert output.read_text().count("missing") == 1


@needs_mosquitto
@needs("mosquitto_sub")
def test_mosquitto_sub_as_the_page_has_it_gets_what_came_meanwhile(tmp_path: Path) -> None:
    """The second command of the page, with a test's port."""
    page = (DOCS / "scada" / "mosquitto.md").read_text()
    (line,) = re.findall(r"^mosquitto_sub .* -c .*$", page, re.MULTILINE)
    output = tmp_path / "out"
    first, second, third = (payload.decode() for payload in results(3))
    with Broker(tmp_path, PERSISTENT) as broker, Subscriber(broker.port, "nothing") as box:
        command = [*shlex.split(line), "-p", str(broker.port)]

        def publish(payload: str) -> None:
            box.publish("strip-agent/insp1/event/strip/top", payload.encode())

        def received() -> list[Any]:
            return output.read_text().splitlines() if output.exists() else []

        with running(command, output):
            wait_for(lambda: "as my-desk" in broker.log, "it is there")
            wait_for(lambda: (publish(first), received())[1], "it is subscribed")  # type: ignore[func-returns-value]
        publish(second)
        with running(command, output):
            publish(third)
            wait_for(lambda: received()[-2:] == [second, third], "what came meanwhile, and live ones")
