"""An edge node against a real broker: what is confirmed, what is sent again, and whom it waits for."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.cli.doctor.broker import try_broker
from agent.clock import now_ms
from agent.ledger import Ledger, open_ledger
from agent.ledger.outbox import queue_event
from agent.messages import Health, ModelState, StripResult
from agent.sparkplug import metrics
from agent.sparkplug.delivery import BATCH
from agent.sparkplug.host import PrimaryHost
from agent.sparkplug.known import CameraFacts
from agent.sparkplug.payload import Datatype
from agent.ways import make_ways, together
from tests.helpers.broker import Broker, Subscriber, free_port, wait_for
from tests.helpers.edge_node import PATIENT_SECONDS, Bench, make_config, step_until
from tests.helpers.packets import CONNECT, DISCONNECT, Packets
from tests.helpers.publishing import FastClock, acl, needs_mosquitto
from tests.helpers.sparkplug import SparkplugHost, broken_rules
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.ways import Way


@pytest.fixture
def proxy(broker: Broker) -> Iterator[TcpProxy]:
    """Stand between the node and the broker."""
    with TcpProxy(broker.port) as running:
        yield running


@pytest.fixture
def host(broker: Broker) -> Iterator[SparkplugHost]:
    """Listen to the node, not through the proxy, and hold the rules against all of it in the end."""
    with SparkplugHost(broker.port) as listening:
        yield listening
        assert broken_rules(listening.heard()) == []


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open an empty ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.database.close()


def born(bench: Bench, host: SparkplugHost, times: int = 1) -> None:
    """Step until the node was born so often."""
    bench.step_until(lambda: len(host.heard("NBIRTH")) >= times, f"{times} births")


def test_a_strip_stays_in_the_outbox_until_the_broker_has_confirmed_the_batch(
    proxy: TcpProxy, host: SparkplugHost, ledger: Ledger
) -> None:
    """QoS 0 has no acknowledgement: the answer to a subscription behind the batch stands for it."""
    bench = Bench(ledger, make_config(proxy.port))
    born(bench, host)
    proxy.answers_held = True
    bench.commit(5)
    bench.step_until(lambda: len(host.strips()) == 5, "the host has them")
    bench.node.step(0.0)
    assert bench.waiting() == 5
    proxy.answers_held = False
    bench.drain()
    assert host.wait_for_strips(5) == [(seq, False) for seq in range(1, 6)]


def test_what_is_not_confirmed_comes_again_as_history(proxy: TcpProxy, host: SparkplugHost, ledger: Ledger) -> None:
    """A link that brings no answer is dropped; the same strips come on the next one, behind its births."""
    clock = FastClock(speed=1.0)
    bench = Bench(ledger, make_config(proxy.port), clock=clock)
    born(bench, host)
    proxy.answers_dropped = True
    bench.commit(3)
    bench.step_until(lambda: len(host.strips()) == 3, "they have arrived")
    clock.run(PATIENT_SECONDS / 2)
    bench.step_until(lambda: not bench.node.status().connected, "the link is given up")
    clock.run(1.0)
    assert bench.waiting() == 3
    proxy.answers_dropped = False
    bench.drain()
    assert host.wait_for_strips(6) == [(1, False), (2, False), (3, False), (1, True), (2, True), (3, True)]


def test_live_strips_do_not_wait_behind_history(proxy: TcpProxy, host: SparkplugHost, ledger: Ledger) -> None:
    """A long outage is made good beside what comes in: the newest is not the last to be seen."""
    bench = Bench(ledger, make_config(proxy.port))
    bench.commit(500)
    born(bench, host)
    sent = 500 - bench.waiting()  # before the host has heard of the birth
    (live,) = bench.commit(1)
    bench.drain()
    order = [seq for seq, _ in host.wait_for_strips(501)]
    assert sorted(order) == list(range(1, 502))
    assert order.index(live) <= sent + 2 * BATCH
    assert [seq for seq, historical in host.strips() if not historical] == [live]


def test_bdseq_counts_on_over_restarts_and_around(
    proxy: TcpProxy, host: SparkplugHost, ledger: Ledger, tmp_path: Path
) -> None:
    """tck-id-topics-nbirth-bdseq-increment: one more than before the kill; 0 follows 255."""
    file = tmp_path / "sparkplug.json"
    file.write_text('{"bdSeq": 254}')
    bench = Bench(ledger, make_config(proxy.port), file)
    for birth in (1, 2):
        born(bench, host, birth)
        proxy.cut()  # and the node is never stepped again
        host.wait_for("NDEATH", birth)
        bench.restart()
    born(bench, host, 3)
    assert [h.values["bdSeq"] for h in host.heard("NBIRTH")] == [255, 0, 1]


def test_attempts_that_reach_nobody_cost_no_bdseq(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """Only a CONNECT packet counts."""
    port = free_port()
    bench = Bench(ledger, make_config(port))
    bench.step_until(lambda: "refused" in bench.node.status().last_error.lower(), "it has tried in vain")
    with TcpProxy(broker.port, port):
        born(bench, host)
        assert host.heard("NBIRTH")[0].values["bdSeq"] == 0
        bench.node.close("test")


def test_it_waits_for_its_primary_host_and_dies_with_it(
    broker: Broker, proxy: TcpProxy, host: SparkplugHost, ledger: Ledger
) -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-wait, -phid-offline, and no strip is lost by it."""
    packets = Packets()
    proxy.watch = packets
    bench = Bench(ledger, make_config(proxy.port, sparkplug={"primary_host": "host1"}))
    bench.commit(2)
    host.say(online=False, timestamp_ms=1000)
    bench.step_until(lambda: bench.node.status().connected, "connected")
    for _ in range(20):
        bench.node.step(0.02)
    assert host.heard() == []
    host.say(online=True, timestamp_ms=2000)
    born(bench, host)
    bench.drain()
    bench.commit(1)
    bench.drain()
    host.say(online=False, timestamp_ms=1500)  # an old message that comes late
    for _ in range(20):
        bench.node.step(0.02)
    assert not host.heard("NDEATH")
    host.say(online=False, timestamp_ms=3000)
    bench.step_until(lambda: host.heard("NDEATH"), "the node dies")
    assert host.heard("NDEATH")[0].values["bdSeq"] == 0
    bench.step_until(lambda: packets.connections[0][-1].kind == DISCONNECT, "and says goodbye")
    bench.commit(1)
    bench.step_until(lambda: len(packets.connections) == 2 and bench.node.status().connected, "it is back and waits")
    host.say(online=True, timestamp_ms=4000)
    born(bench, host, 2)
    bench.drain()
    bench.step_until(lambda: len(host.strips()) == 7, "what the host may not have heard comes again")
    assert host.strips() == [(1, True), (2, True), (3, False), (4, True), (1, True), (2, True), (3, True)]
    assert [h.values["bdSeq"] for h in host.heard("NBIRTH")] == [0, 1]
    assert [packets[0].kind for packets in packets.connections] == [CONNECT, CONNECT]
    assert broker.port


def test_a_host_whose_clock_was_ahead_is_believed_as_soon_as_it_is_right(
    broker: Broker, host: SparkplugHost, ledger: Ledger
) -> None:
    """What it says by the right time counts at once, offline as well as online; what is older than that does not."""
    bench = Bench(ledger, make_config(broker.port, sparkplug={"primary_host": "host1"}))
    ahead_ms = 2 * 3_600_000
    host.say(online=True, timestamp_ms=now_ms() + ahead_ms)
    born(bench, host)
    host.say(online=False, timestamp_ms=now_ms())
    bench.step_until(lambda: host.heard("NDEATH"), "the node dies")
    host.say(online=True, timestamp_ms=now_ms() + 1)
    born(bench, host, 2)
    deaths = len(host.heard("NDEATH"))
    host.say(online=False, timestamp_ms=now_ms() - ahead_ms)  # the will of a session long ago
    for _ in range(20):
        bench.node.step(0.02)
    assert len(host.heard("NDEATH")) == deaths
    bench.node.close("test")


def test_while_this_boxs_own_clock_is_behind_the_later_word_of_the_host_counts() -> None:
    """All that it says seems to be ahead then, and that says nothing about its clock."""
    known = PrimaryHost("host1", lambda: 0)
    assert known.heard(b'{"online": true, "timestamp": 1700000000000}')
    assert not known.heard(b'{"online": false, "timestamp": 1699999999999}')
    assert known.online
    assert known.heard(b'{"online": false, "timestamp": 1700000000000}')


def test_what_a_host_may_not_have_heard_comes_again_after_a_kill_too(
    broker: Broker, host: SparkplugHost, ledger: Ledger
) -> None:
    """The node was killed before the host was called offline; the ledger knows what was handed over last."""
    config = make_config(broker.port, sparkplug={"primary_host": "host1"})
    host.say(online=True, timestamp_ms=1000)
    bench = Bench(ledger, config)
    born(bench, host)
    bench.commit(2)
    bench.drain()
    host.wait_for_strips(2)
    bench.node.close("killed")
    host.say(online=False, timestamp_ms=2000)
    bench.restart()
    bench.step_until(lambda: ledger.replays.waiting() == 2, "the ledger has them again")
    host.say(online=True, timestamp_ms=3000)
    bench.step_until(lambda: len(host.strips()) == 4, "they come again")
    assert host.strips() == [(1, False), (2, False), (1, True), (2, True)]


def test_what_a_host_may_not_have_heard_comes_again_although_the_clock_was_set(
    broker: Broker, host: SparkplugHost, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last two minutes are two minutes, also where this box's clock was set an hour ahead in between."""
    ahead_ms = [0]
    monkeypatch.setattr("agent.ledger.outbox.now_ms", lambda: now_ms() + ahead_ms[0])
    config = make_config(broker.port, sparkplug={"primary_host": "host1"})
    bench = Bench(ledger, config, wall_ms=lambda: now_ms() + ahead_ms[0])
    host.say(online=True, timestamp_ms=1000)
    born(bench, host)
    bench.commit(2)
    bench.drain()
    host.wait_for_strips(2)
    ahead_ms[0] = 3_600_000
    host.say(online=False, timestamp_ms=2000)
    bench.step_until(lambda: ledger.replays.waiting() == 2, "the ledger has them again")
    bench.node.close("test")


def test_it_says_so_while_its_primary_host_is_away(broker: Broker, ledger: Ledger) -> None:
    """Half a minute without it is an alarm; nothing goes out, nothing is lost."""
    now = [0.0]
    bench = Bench(ledger, make_config(broker.port, sparkplug={"primary_host": "host1"}), clock=lambda: now[0])
    bench.commit(1)
    bench.step_until(lambda: bench.node.status().connected, "connected")
    assert bench.node.status().alarms == ()
    now[0] += 31.0
    bench.node.step(0.0)
    assert bench.node.status().alarms == ("primary_host_offline",)
    assert bench.waiting() == 1


def test_aliases_if_wanted(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """tck-id-payloads-alias-*: births carry name and alias, each alias once in the node; data the alias alone."""
    bench = Bench(ledger, make_config(broker.port, ("top", "side"), sparkplug={"aliases": True}))
    bench.commit(1)
    bench.drain()
    host.wait_for("DDATA")
    births = [m for h in host.heard("NBIRTH", "DBIRTH") for m in h.payload.metrics]
    aliases = [m.alias for m in births if m.alias is not None]
    assert len(set(aliases)) == len(aliases) == len(births) - 2
    assert {m.name for m in births if m.alias is None} == {"bdSeq", "Node Control/Rebirth"}
    assert all(m.name is None and m.alias and m.datatype for h in host.heard("DDATA") for m in h.payload.metrics)


def test_what_is_asked_for_again_comes_as_history(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """`resend` closes a host's gap too."""
    bench = Bench(ledger, make_config(broker.port))
    bench.commit(5)
    bench.drain()
    ledger.replays.ask(ledger.database.stream, 2, 3)
    bench.node.wake()
    bench.step_until(lambda: ledger.replays.waiting() == 0, "they are sent")
    assert host.wait_for_strips(7)[5:] == [(2, True), (3, True)]


def test_what_is_no_strip_comes_as_an_event_of_the_node(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """Alarms, models, commands: each as its JSON with its own time, and none is lost."""
    bench = Bench(ledger, make_config(broker.port))
    born(bench, host)
    payload = b'{"schema":"alarm-event/1","code":"camera_missing","ts_ms":1795391301444}'
    with ledger.database.transaction() as db:
        queue_event(db, "event/alarm", payload, 1000, 1795391301444)
    bench.node.wake()
    bench.drain()
    (event,) = [h for h in host.wait_for("NDATA") if "Event/Last" in h.values]
    assert json.loads(str(event.values["Event/Last"]))["code"] == "camera_missing"
    assert event.metric("Event/Last").timestamp_ms == 1795391301444


def test_results_of_a_camera_that_is_away_or_gone_are_told_all_the_same(
    broker: Broker, host: SparkplugHost, ledger: Ledger
) -> None:
    """It is born for that, with what is known of it, and dies when there is nothing more to tell."""
    bench = Bench(ledger, make_config(broker.port, ("top", "side")))
    bench.commit(2, camera="old")
    bench.commit(2, camera="side")
    bench.set_health(cameras="top=events side=missing")
    bench.drain()
    bench.step_until(lambda: len(host.heard("DDEATH")) == 2, "they die")
    for camera in ("old", "side"):
        assert [h.kind for h in host.heard(device=camera)] == ["DBIRTH", "DDATA", "DDATA", "DDEATH"]
        assert host.heard("DBIRTH", device=camera)[0].values["Camera/Reachable"] is False


def test_a_message_that_is_none_of_ours_is_set_aside(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """It stops nothing behind it, and the audit names it."""
    bench = Bench(ledger, make_config(broker.port))
    with ledger.database.transaction() as db:
        for payload in (b"{}", b"[1]", b"\xff", b'{"ts_ms":"x"}'):
            queue_event(db, "event/strip/top", payload, 1000, 1)
    bench.commit(1)
    bench.drain()
    assert host.wait_for("DDATA")[0].values["Strip/Seq"] == 1
    assert ledger.report.depths().outbox_parked == bench.node.status().parked == 4


def test_a_ledger_that_cannot_be_written_costs_no_strip(
    broker: Broker, host: SparkplugHost, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be recorded is recorded later; nothing new is sent until then."""
    bench = Bench(ledger, make_config(broker.port))
    born(bench, host)
    record = bench.outbox.acknowledge

    def cannot(_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(bench.outbox, "acknowledge", cannot)
    bench.commit(2)
    bench.step_until(lambda: "outbox_error" in bench.node.status().alarms, "it says so")
    bench.commit(2)
    bench.node.step(0.0)
    assert bench.waiting() == 4
    monkeypatch.setattr(bench.outbox, "acknowledge", record)
    bench.drain()
    assert host.wait_for_strips(4) == [(1, False), (2, False), (3, False), (4, False)]


def test_commands_that_are_none_change_nothing(broker: Broker, host: SparkplugHost, ledger: Ledger) -> None:
    """Bytes that are no payload, a rebirth that is false or no Boolean, metrics nobody may write."""
    # Time stands still: what is counted of the camera every few seconds would be told in between.
    bench = Bench(ledger, make_config(broker.port), clock=lambda: 1.0)
    born(bench, host)
    host.publish("NCMD", b"\xff\xff\xff")
    host.publish("NCMD", b"")
    host.command("Node Control/Rebirth", value=False, datatype=Datatype.BOOLEAN)
    host.command("Node Control/Rebirth", value="true", datatype=Datatype.STRING)
    host.command("Node Control/Reboot", value=True, datatype=Datatype.BOOLEAN)
    host.command("Strip/Score", value=0.5, datatype=Datatype.DOUBLE)
    bench.commit(1)
    bench.drain()
    host.wait_for("DDATA")
    host.ask_for_rebirth()  # what came before this has been read before this
    bench.step_until(lambda: len(host.heard("DBIRTH")) == 2, "the births come again")
    assert [h.kind for h in host.heard()] == ["NBIRTH", "DBIRTH", "DDATA", "NBIRTH", "DBIRTH"]


@needs_mosquitto
def test_a_broker_that_throws_data_away_is_noticed(tmp_path: Path, ledger: Ledger) -> None:
    """Nobody says that a message of QoS 0 is denied: the node listens for itself."""
    births = [f"topic write spBv1.0/plant1/{kind}/#" for kind in ("NBIRTH", "DBIRTH")]
    now = [0.0]
    with Broker(tmp_path, acl(tmp_path, "topic read #", *births)) as broker:
        bench = Bench(ledger, make_config(broker.port), clock=lambda: now[0])
        bench.step_until(lambda: bench.node.status().delivery == "verified", "births come back")
        bench.commit(1)
        bench.step_until(lambda: bench.node.status().delivery == "unverified", "data do not")
        assert bench.node.status().alarms == ()
        now[0] += 11.0
        bench.node.step(0.0)
        assert bench.node.status().alarms == ("delivery_unverified",)


def test_with_both_ways_a_strip_is_acknowledged_when_both_have_it(
    broker: Broker, proxy: TcpProxy, host: SparkplugHost, tmp_path: Path, ledger: Ledger
) -> None:
    """Two connections with a will each, one outbox; what one of them lacks waits for it alone."""
    config = make_config(proxy.port, payload="both")
    ways = make_ways(config, ledger, tmp_path)
    bench = Bench(ledger, config)
    json_way, edge_node = ways.ways["json"], ways.ways["sparkplug"]
    with Subscriber(broker.port, "strip-agent/insp1/#") as subscriber:

        def step_only(condition: Callable[[], object], *stepped: Way) -> None:
            step_until([partial(way.step, 0.02) for way in stepped], condition, "both ways do what they should")

        step_only(lambda: ways.status().connected, json_way, edge_node)
        assert proxy.accepted == 2
        bench.commit(3)
        ways.wake()
        step_only(lambda: json_way.status().acknowledged == 3, json_way)
        wait_for(lambda: len(subscriber.messages("event/strip")) == 3, "the subscriber has them as well")
        assert ledger.report.depths().outbox_pending == 3
        step_only(lambda: ledger.report.depths().outbox_pending == 0, edge_node)
        assert [seq for seq, _ in host.wait_for_strips(3)] == [1, 2, 3]
        assert ways.status().acknowledged == 3
        ways.close("shutdown", 5.0)
        wait_for(lambda: json.loads(subscriber.payloads("state/agent")[-1])["online"] is False, "goodbye in JSON")
        host.wait_for("NDEATH")
    assert not together({name: way.status() for name, way in ways.ways.items()}).connected


def test_the_doctor_says_nothing_on_sparkplugs_topics(broker: Broker) -> None:
    """A probe would be a message that hosts take for one of the box; that the login works is told all the same."""
    with Subscriber(broker.port, "#") as subscriber:
        finding = try_broker(make_config(broker.port))
        assert (finding.level, "takes the login" in finding.detail) == ("good", True)
        subscriber.publish("last", b"")
        wait_for(subscriber.messages, "something")
        assert [message.topic for message in subscriber.messages()] == ["last"]


def test_every_metric_comes_from_a_key_that_exists() -> None:
    """The table of metrics follows the messages and what the ledger tells of a camera."""
    camera = {field.name for field in dataclasses.fields(CameraFacts)} | {"state", "reachable"}
    assert {definition.key for definition in metrics.CAMERA} == camera
    assert {definition.key for definition in metrics.HEALTH} - {"status_code"} <= set(Health.model_fields)
    assert {definition.key for definition in metrics.MODEL} <= set(ModelState.model_fields)
    left_out = {"schema_", "msg_id", "ts", "ts_ms", "agent", "camera", "quality", "replayed"}
    left_out |= {"ignore_pixels_sha256", "ignore_mask_sha256"}
    assert {definition.key for definition in metrics.STRIP} == set(StripResult.model_fields) - left_out
