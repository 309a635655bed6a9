"""Three Sparkplug hosts that others wrote, before one box: Tahu's decoder, mqtt-spb-wrapper and pysparkplug."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from agent.sparkplug.payload import Datatype, Metric, Payload, Property
from tests.helpers.box import Box, drop_file
from tests.helpers.broker import Broker, wait_for
from tests.helpers.models import difference_model
from tests.helpers.publishing import needs_mosquitto
from tests.helpers.sparkplug import GROUP, NODE, Heard, SparkplugHost, broken_rules
from tests.helpers.strips import write_strip
from tests.peers.installed import HERE, INSTALLED, environment, needs_peer, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.peers, needs_mosquitto]


@dataclass
class Host:
    """A host as a program: what it has written so far, and a way to ask it for something."""

    file: Path
    process: subprocess.Popen[str] | None = None

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        """Return what it has written, of these kinds."""
        complete = self.file.read_text().rpartition("\n")[0] if self.file.exists() else ""
        found = [json.loads(line) for line in complete.split("\n") if line.startswith("{")]
        return [line for line in found if not kinds or line["kind"] in kinds]

    def ask(self, what: str) -> None:
        """Tell it to do something, if it runs."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.write(f"{what}\n")
            self.process.stdin.flush()


def python_host(name: str, script: str, *arguments: str) -> list[str]:
    """Return the command that runs one of the hosts in its own virtual environment."""
    return [str(INSTALLED / name / "bin" / "python"), str(HERE / script), *arguments]


def commands(port: int, out: Path) -> dict[str, list[str]]:
    """Return how each host is started."""
    rescan = {"name": "Device Control/Rescan", "type": "Boolean", "value": True}
    tahu = {"url": f"mqtt://127.0.0.1:{port}", "group": GROUP, "out": str(out), "rebirth": True, "write": rescan}
    return {
        "npm": node("sparkplug_host.js", json.dumps(tahu)),
        "spb_wrapper": python_host("spb_wrapper", "spb_wrapper_host.py", str(port), GROUP, NODE),
        "pysparkplug": python_host("pysparkplug", "pysparkplug_host.py", str(port), GROUP),
    }


@dataclass(frozen=True, slots=True)
class Told:
    """What each host got of one box, and what our own one got."""

    hosts: dict[str, Host]
    own: list[Heard]


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Let a box live: strips of each verdict, two rebirths, a command, a camera that goes and comes, the end."""
    folder = tmp_path_factory.mktemp("sparkplug")
    mqtt = {"payload": "sparkplug", "sparkplug": {"group": GROUP, "node": NODE}, "commands": ["rescan"]}
    strip, defect, junk = folder / "strip.tif", folder / "defect.tif", folder / "junk.tif"
    write_strip(strip)
    write_strip(defect, defect=True)
    junk.write_bytes(b"no picture")
    with (
        Broker(folder) as broker,
        SparkplugHost(broker.port) as own,
        contextlib.ExitStack() as stack,
        Box(folder / "box", broker.port, cameras=("top", "side"), mqtt=mqtt | {"protocol": request.param}) as box,
    ):
        hosts = {}
        for name, command in commands(broker.port, folder / "npm.jsonl").items():
            if (INSTALLED / f"{name}.sha256").is_file():
                hosts[name] = stack.enter_context(started(name, command, folder))
        for name, host in hosts.items():
            wait_for(lambda host=host: host.lines("subscribed"), f"{name} listens")  # type: ignore[misc]
        difference_model(box.inbox / "model.onnx")
        box.start()
        for number, source in enumerate((strip, defect, junk)):
            drop_file(source, box.camera() / f"{number}.tif")
        box.wait_until_published(3)
        births = 2 if "npm" in hosts else 1
        own.wait_for("NBIRTH", births)
        if "npm" in hosts:
            wait_for(lambda: [h for h in own.heard("NDATA") if "Command/Response" in h.values], "the command is done")
        if "spb_wrapper" in hosts:
            wait_for(lambda: asked_again(hosts["spb_wrapper"], own, births), "its births come, too")
        away = box.camera("side").rename(folder / "away")
        own.wait_for("DDEATH")
        away.rename(box.camera("side"))
        born = len(own.heard("DBIRTH", device="side"))
        own.wait_for("DBIRTH", born + 1, device="side")
        drop_file(strip, box.camera("side") / "3.tif")
        box.wait_until_published(4)
        assert box.stop() == 0
        own.wait_for("NDEATH", 2 if request.param == "5" else 1)
        everything = len(own.heard())
        if "npm" in hosts:
            wait_for(lambda: len(hosts["npm"].lines("message")) >= everything, "Tahu's host has heard all of it")
        for name in {"spb_wrapper", "pysparkplug"} & set(hosts):
            last = "DEATH" if name == "spb_wrapper" else "NDEATH"
            wait_for(lambda name=name, last=last: hosts[name].lines(last), f"{name} has heard the end")  # type: ignore[misc]
        yield Told(hosts, own.heard())


@contextlib.contextmanager
def started(name: str, command: list[str], folder: Path) -> Iterator[Host]:
    """Run a host until the block ends."""
    file = folder / f"{name}.jsonl"
    with (folder / f"{name}.log").open("a") as log, file.open("a") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=log, text=True, env=environment(), cwd=folder
        )
    with process:
        try:
            yield Host(file, process)
        finally:
            process.kill()


def asked_again(host: Host, own: SparkplugHost, births: int) -> bool:
    """Ask for the births until they come: of several requests within a second only one is answered."""
    host.ask("rebirth")
    return len(own.heard("NBIRTH")) > births


def as_heard(line: dict[str, Any]) -> Heard:
    """Make what the rules are held against out of what Tahu's decoder has read."""
    names = {"DateTime": "DATETIME"}
    metrics = tuple(
        Metric(
            name=metric["name"],
            datatype=Datatype[names.get(metric["type"], str(metric["type"]).upper())] if metric["type"] else None,
            value=metric["value"],
            timestamp_ms=metric["timestamp"],
            alias=metric["alias"],
            historical=metric["historical"],
            properties=() if metric["quality"] is None else (Property("Quality", Datatype.INT32, metric["quality"]),),
        )
        for metric in line["metrics"]
    )
    return Heard(
        line["type"], line["device"], line["qos"], line["retain"], Payload(line["timestamp"], metrics, line["seq"])
    )


@needs_peer("npm")
def test_tahus_decoder_reads_what_was_meant_and_finds_no_rule_broken(told: Told) -> None:
    """Each value, null and quality as our own decoder has it; the rebirth that it asked for, and its command, done."""
    heard = [as_heard(line) for line in told.hosts["npm"].lines("message")]
    assert broken_rules(heard) == []
    assert [(h.kind, h.device, h.payload.seq, h.values) for h in heard] == [
        (h.kind, h.device, h.payload.seq, h.values) for h in told.own
    ]
    verdicts = {h.values["Strip/Verdict"]: h for h in heard if h.kind == "DDATA" and "Strip/Verdict" in h.values}
    assert set(verdicts) == {"ok", "anomalous", "invalid"}
    assert verdicts["invalid"].values["Strip/Score"] is None
    assert verdicts["invalid"].metric("Strip/Score").properties == (Property("Quality", Datatype.INT32, 0),)
    (answer,) = [h.values["Command/Response"] for h in heard if h.kind == "NDATA" and "Command/Response" in h.values]
    assert json.loads(str(answer))["ok"]


@needs_peer("spb_wrapper")
def test_mqtt_spb_wrapper_is_content(told: Told) -> None:
    """It discovers node and devices, has births, data and deaths, and its rebirth, which has a `seq`, is answered."""
    host = told.hosts["spb_wrapper"]
    assert {line["topic"] for line in host.lines("NODE", "DEVICE")} >= {NODE, "top", "side"}
    scores = [line["values"].get("Strip/Score") for line in host.lines("DATA") if "Strip/Seq" in line["values"]]
    assert len(scores) >= 4
    assert sum(score is None for score in scores) == 1
    assert len([line for line in host.lines("BIRTH") if "/NBIRTH/" in line["topic"]]) >= 2
    assert host.lines("DEATH")


@needs_peer("pysparkplug")
def test_pysparkplug_refuses_nothing(told: Told) -> None:
    """Its strict decoder takes every message, and reads the same strips."""
    host = told.hosts["pysparkplug"]
    assert host.lines("refused") == []
    kinds = {line["kind"] for line in host.lines()}
    assert kinds >= {"NBIRTH", "DBIRTH", "DDATA", "NDATA", "DDEATH", "NDEATH"}
    files = {line["values"].get("Strip/File") for line in host.lines("DDATA") if "Strip/File" in line["values"]}
    assert files == {f"{number}.tif" for number in range(4)}
