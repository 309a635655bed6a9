"""Commands by writing metrics: only those that are listed, each told and answered; nothing else changes anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.control.context import Context
from agent.control.desk import CommandDesk
from agent.ledger import Ledger, open_ledger
from agent.sparkplug.commands import Commands
from agent.sparkplug.payload import Datatype, Metric, Payload, encode
from tests.helpers.edge_node import Bench, make_config, step_until
from tests.helpers.sparkplug import SparkplugHost, broken_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.sparkplug.payload import Scalar
    from tests.helpers.broker import Broker

ALL = ["set_threshold", "pause", "resume", "rescan", "resend", "status"]


class Desk(Bench):
    """An edge node with a desk behind it, both stepped by hand."""

    def __init__(self, ledger: Ledger, port: int, host: SparkplugHost, commands: list[str], **mqtt: Any) -> None:
        super().__init__(ledger, make_config(port, ("top", "side"), commands=commands, **mqtt))
        self.host = host
        self.scanned: list[str] = []
        self.desk = CommandDesk(Context(self.config, ledger, {}, dict, self.node.wake, self.scanned.append))
        self.node.commands = Commands(self.desk)
        self.until(lambda: host.heard("DBIRTH", device="side"), "born")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Step both until `condition` holds."""
        step_until([lambda: self.node.step(0.02), lambda: self.desk.step(0.0)], condition, what)

    def answers(self) -> list[dict[str, Any]]:
        """List what has been answered."""
        texts = [h.values["Command/Response"] for h in self.host.heard("NDATA") if "Command/Response" in h.values]
        return [json.loads(str(text)) for text in texts]

    def write(self, name: str, value: Scalar | None, datatype: Datatype | None, device: str = "top") -> dict[str, Any]:
        """Write a metric, and return the answer."""
        before = len(self.answers())
        payload = encode(Payload(1, (Metric(name, datatype, value, 1),)))
        self.host.publish("DCMD" if device else "NCMD", payload, device)
        self.until(lambda: len(self.answers()) > before, "answered")
        return self.answers()[-1]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open an empty ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


@pytest.fixture
def host(broker: Broker) -> Iterator[SparkplugHost]:
    """Listen to the node, and hold the rules against all of it in the end."""
    with SparkplugHost(broker.port) as listening:
        yield listening
        assert broken_rules(listening.heard()) == []


def test_a_threshold_is_set_and_taken_back_by_writing_it(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """The ledger has it, the host is answered, sees the new value and the event; null takes it back."""
    desk = Desk(ledger, broker.port, host, ALL)
    answer = desk.write("Settings/Threshold", 0.25, Datatype.DOUBLE)
    assert (answer["ok"], answer["command"]) == (True, "set_threshold")
    assert ledger.operators.thresholds["top"].value == 0.25
    desk.until(lambda: [h for h in host.heard("DDATA") if h.values.get("Settings/Threshold") == 0.25], "it is seen")
    assert host.heard("DDATA")[-1].device == "top"
    desk.until(lambda: [h for h in host.heard("NDATA") if "Event/Last" in h.values], "the event")
    event = next(h for h in host.heard("NDATA") if "Event/Last" in h.values)
    assert json.loads(str(event.values["Event/Last"]))["schema"] == "command-event/1"
    assert desk.write("Settings/Threshold", 1, Datatype.INT32)["ok"], "a whole number is one, too"
    assert desk.write("Settings/Threshold", None, Datatype.DOUBLE)["ok"]
    assert not ledger.operators.thresholds
    assert desk.write("Settings/Threshold", 7.0, Datatype.DOUBLE)["error"] == "refused"
    assert desk.write("Settings/Threshold", "low", Datatype.STRING)["error"] == "bad_arguments"


def test_a_camera_is_paused_and_scanned_by_writing_it(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """Also by hosts that leave the datatype out, as the specification wants it."""
    desk = Desk(ledger, broker.port, host, ALL)
    assert desk.write("Settings/Paused", value=True, datatype=Datatype.BOOLEAN)["command"] == "pause"
    assert list(ledger.operators.paused) == ["top"]
    desk.until(lambda: [h for h in host.heard("DDATA") if h.values.get("Settings/Paused") is True], "it is seen")
    assert desk.write("Settings/Paused", value=False, datatype=Datatype.BOOLEAN)["command"] == "resume"
    assert not ledger.operators.paused
    assert desk.write("Settings/Paused", 1, Datatype.INT32)["error"] == "malformed"
    host.command("Device Control/Rescan", value=False, datatype=Datatype.BOOLEAN, device="side")
    assert desk.write("Device Control/Rescan", value=True, datatype=Datatype.BOOLEAN, device="side")["ok"]
    assert desk.scanned == ["side"]


def test_every_command_can_be_given_as_json(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """`Command/Request` takes command/1 with the command's name in it, and repeats are answered and not done."""
    desk = Desk(ledger, broker.port, host, ALL)
    request = {"schema": "command/1", "id": "a1", "by": "op", "command": "pause", "camera": "side"}
    for _ in range(2):
        answer = desk.write("Command/Request", json.dumps(request), Datatype.STRING, "")
        assert (answer["ok"], answer["id"], answer["count"]) == (True, "a1", 1)
    assert ledger.operators.paused["side"].sender == "op"
    for bad in ("", "{", "[]", '{"schema":"command/1"}', json.dumps(request | {"id": "a2", "command": 5})):
        assert desk.write("Command/Request", bad, Datatype.STRING, "")["error"] == "malformed"
    answer = desk.write(
        "Command/Request", json.dumps(request | {"id": "a3", "command": "rollback"}), Datatype.STRING, ""
    )
    assert answer["error"] == "not_allowed"


def test_nothing_can_be_written_where_nothing_is_listed(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """Only the rebirth; what operators have set is shown and read-only."""
    desk = Desk(ledger, broker.port, host, [])
    names = set(host.heard("NBIRTH")[0].values) | set(host.heard("DBIRTH")[0].values)
    assert not names & {"Command/Request", "Command/Response", "Device Control/Rescan"}
    for h in host.heard("NBIRTH", "DBIRTH"):
        free = {m.name for m in h.payload.metrics if "readOnly" not in {p.name for p in m.properties}}
        assert free <= {"Node Control/Rebirth"}
    host.command("Settings/Paused", value=True, datatype=Datatype.BOOLEAN, device="top")
    host.command("Settings/Threshold", value=0.9, datatype=Datatype.DOUBLE)
    desk.until(lambda: desk.desk.status().ignored == {"not_allowed": 1}, "the one that came in is counted")
    assert not ledger.operators.paused
    assert not desk.answers()


def test_what_is_no_command_is_counted_and_changes_nothing(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """Left on the broker, too large, no payload, a metric that may not be written, one of the wrong device."""
    host.command("Settings/Paused", value=True, datatype=Datatype.BOOLEAN, device="top", retain=True)
    desk = Desk(ledger, broker.port, host, ALL)
    host.command("Command/Request", value="x" * 9000, datatype=Datatype.STRING)
    host.publish("NCMD", b"\xff\xff")
    host.command("Strip/Score", value=0.0, datatype=Datatype.DOUBLE, device="top")
    host.command("Settings/Paused", value=True, datatype=Datatype.BOOLEAN)
    expected = {"retained": 1, "too_large": 1, "failed": 1, "not_allowed": 2}
    desk.until(lambda: desk.desk.status().ignored == expected, f"all are counted: {desk.desk.status().ignored}")
    assert not ledger.operators.paused
    assert not desk.answers()


def test_a_host_may_write_by_alias(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """tck-id-payloads-alias-data-cmd-requirement: commands have the alias alone."""
    desk = Desk(ledger, broker.port, host, ALL, sparkplug={"aliases": True})
    alias = host.heard("DBIRTH", device="top")[0].metric("Settings/Paused").alias
    payload = encode(Payload(1, (Metric(None, Datatype.BOOLEAN, value=True, timestamp_ms=1, alias=alias),)))
    host.publish("DCMD", payload, "top")
    desk.until(lambda: "top" in ledger.operators.paused, "it is paused")


def test_a_camera_that_comes_by_a_reload_is_born_and_takes_commands(
    broker: Broker, host: SparkplugHost, ledger: Ledger
) -> None:
    """On the same connection; one that goes dies, and neither costs the node a birth."""
    desk = Desk(ledger, broker.port, host, ALL)
    desk.node.take_cameras(make_config(broker.port, ("top", "new")))
    desk.set_health(cameras="top=events new=events")
    desk.until(lambda: host.heard("DBIRTH", device="new"), "the new one is born")
    desk.until(lambda: host.heard("DDEATH", device="side"), "the one that is gone dies")
    assert len(host.heard("NBIRTH")) == 1
    assert (
        desk.write("Device Control/Rescan", value=True, datatype=Datatype.BOOLEAN, device="new")["command"] == "rescan"
    )
