"""What the agent leaves on the broker, in which order it can be told, and whether anybody listens."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

from agent.config import Config
from agent.publisher import Publisher
from tests.helpers.broker import ANYBODY, Broker, Subscriber, wait_for
from tests.helpers.outbox import ListOutbox
from tests.helpers.publishing import (
    EVENT,
    PATIENT_SECONDS,
    STATE,
    FastClock,
    acl,
    connect,
    drain,
    fill,
    make_config,
    make_publisher,
    needs_mosquitto,
    states,
    step_until,
)
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_mosquitto  # amqtt mixes up retained messages


def a_box(port: int, file: Path, cameras: tuple[str, ...], name: str = "insp1", **mqtt: Any) -> Publisher:
    """Make the publisher of a box with these cameras that remembers in `file`."""
    config = Config.model_validate(
        {
            "agent": {"name": name},
            "cameras": [{"name": camera, "folder": f"/srv/cameras/{camera}"} for camera in cameras],
            "mqtt": {"host": "127.0.0.1", "port": port, **mqtt},
        }
    )
    publisher = Publisher(config, ListOutbox(), jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS, retained_file=file)
    for camera in cameras:
        publisher.set_state(f"state/last_strip/{camera}", b'{"schema":"strip-result/1"}')
    publisher.set_state("state/model/default", b'{"schema":"model-state/1"}')
    publisher.set_state("state/health", b'{"schema":"health/1"}')
    return publisher


def all_sent(publisher: Publisher) -> bool:
    """Whether the broker has all states and nothing is under way."""
    return publisher.status().connected and not publisher._owed() and publisher._states.all_sent(lambda _: False)


def retained(port: int) -> set[str]:
    """List the topics that a new subscriber gets."""
    with Subscriber(port) as late, Subscriber(port, "the/end") as end:
        end.publish("the/end", b"x")
        wait_for(lambda: late.messages("the/end"), "all retained messages have come before this one")
        return {message.topic for message in late.messages() if message.retain}


def run(publisher: Publisher, done: Any = None) -> None:
    """Step until all is sent (and `done` holds), then stop."""
    step_until(publisher, lambda: all_sent(publisher) and (done is None or done()), "all is sent")
    publisher.close("test")


def test_retained_messages_go_with_their_camera(broker: Broker, tmp_path: Path) -> None:
    """An HMI does not show the last strip of a camera that is not there any more."""
    file = tmp_path / "broker.json"
    run(a_box(broker.port, file, ("top", "side")))
    assert STATE + "last_strip/side" in retained(broker.port)
    publisher = a_box(broker.port, file, ("top",))
    run(publisher, lambda: "side" not in file.read_text())
    assert retained(broker.port) == {STATE + name for name in ("agent", "health", "model/default", "last_strip/top")}


def test_retained_messages_go_with_the_name(broker: Broker, tmp_path: Path) -> None:
    """A box that was renamed leaves no ghost under its old name; another one that has it now keeps its states."""
    file = tmp_path / "broker.json"
    run(a_box(broker.port, file, ("top",), name="old"))
    heir = a_box(broker.port, tmp_path / "other.json", ("top",), name="old")
    step_until(heir, lambda: all_sent(heir), "the heir of the name is there")
    renamed = a_box(broker.port, file, ("top",))
    run(renamed, lambda: "/old/" not in file.read_text())
    names = ("agent", "health", "model/default", "last_strip/top")
    step_until(heir, lambda: heir._states.all_sent(lambda _: True), "it steps")
    with Subscriber(broker.port, "strip-agent/old/#") as subscriber:
        step_until(heir, lambda: len({message.topic for message in subscriber.messages()}) == len(names), "all again")
    assert {f"strip-agent/old/state/{name}" for name in names} <= retained(broker.port)
    heir.close("test")


def test_a_topic_that_may_not_be_cleared_costs_nothing_else(tmp_path: Path) -> None:
    """The broker denies the old name: results go on, no alarm for ever, and the next start tries again."""
    file = tmp_path / "broker.json"
    file.write_text(json.dumps({"connections": 7, "topics": {}}))
    with Broker(tmp_path, acl(tmp_path, "topic readwrite strip-agent/insp1/#")) as broker:
        old = ["strip-agent/old/state/agent", "strip-agent/old/state/health"]
        file.write_text(json.dumps({"connections": 7, "topics": {f"127.0.0.1:{broker.port}": old}}))
        publisher = a_box(broker.port, file, ("top",))
        step_until(publisher, lambda: len(publisher._retained._given_up) == 2, "both were refused")
        step_until(publisher, lambda: all_sent(publisher), "all else is sent")
        assert publisher.status().alarms == ()
        publisher.close("test")
        assert all(topic in file.read_text() for topic in old)


def test_a_broker_that_hangs_up_on_clearing_is_left_alone(broker: Broker, tmp_path: Path) -> None:
    """Three connections, then it is given up until the next start; no result is blamed."""
    file = tmp_path / "broker.json"
    with TcpProxy(broker.port) as proxy:
        topics = {f"127.0.0.1:{proxy.port}": ["strip-agent/old/state/health"]}
        file.write_text(json.dumps({"connections": 0, "topics": topics}))
        outbox = ListOutbox()
        publisher = Publisher(
            make_config(proxy.port),
            outbox,
            clock=FastClock(),
            jitter=lambda: 0.0,
            stall_seconds=PATIENT_SECONDS,
            retained_file=file,
        )
        proxy.forbidden = b"strip-agent/old/"
        step_until(publisher, lambda: publisher._retained._given_up, "given up")
        fill(outbox, 20)
        drain(publisher, outbox)
        assert not outbox.parked
        publisher.close("test")


def test_a_damaged_memory_of_retained_topics_is_no_reason_to_stop(broker: Broker, tmp_path: Path) -> None:
    """It is only forgotten."""
    file = tmp_path / "broker.json"
    for damaged in (b"", b"[]", b'{"connections": "x", "topics": {}}', b'{"topics": 3}', b"\xff"):
        file.write_bytes(damaged)
        run(a_box(broker.port, file, ("top",)))
        assert json.loads(file.read_bytes())["topics"]


def test_the_order_of_births_and_wills_can_be_told_by_number_and_by_time(broker: Broker, tmp_path: Path) -> None:
    """A historian that stamps by `ts_ms` must not keep a box online for ever."""
    file = tmp_path / "broker.json"
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        publisher = a_box(proxy.port, file, ("top",))
        for cuts in range(1, 3):
            step_until(publisher, lambda: all_sent(publisher), "its birth has arrived")
            proxy.cut()
            wait_for(lambda cuts=cuts: len(states(subscriber, "agent")) == 2 * cuts, "the will")  # type: ignore[misc]
            step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        connect(publisher)
        step_until(publisher, lambda: all_sent(publisher), "its birth has arrived")
        publisher.close("stopped")
        run(a_box(proxy.port, file, ("top",)))  # another run
        wait_for(lambda: len(states(subscriber, "agent")) >= 8, "all of them")
        told = states(subscriber, "agent")
        assert [state["online"] for state in told] == [True, False] * 4
        assert sorted(told, key=lambda state: state["ts_ms"]) == told
        assert sorted(told, key=lambda state: (state["connection"], not state["online"])) == told
        assert [state["connection"] for state in told] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_nothing_is_retained_where_that_is_configured(broker: Broker, tmp_path: Path) -> None:
    """`mqtt.retain: false`, and what was retained before is cleared."""
    file = tmp_path / "broker.json"
    run(a_box(broker.port, file, ("top",)))
    assert len(retained(broker.port)) == 4
    with Subscriber(broker.port) as subscriber:
        run(a_box(broker.port, file, ("top",), retain=False), lambda: "strip-agent" not in file.read_text())
        both = {STATE + "agent", STATE + "health"}
        wait_for(lambda: {message.topic for message in subscriber.messages(STATE)} >= both, "they are heard")
    assert retained(broker.port) == set()


def test_events_flow_to_a_broker_without_retain_and_an_alarm_says_so(tmp_path: Path) -> None:
    """It refuses the retained will, and says so in CONNACK: the agent goes on without."""
    with Broker(tmp_path, f"{ANYBODY}\nretain_available false") as broker, Subscriber(broker.port) as subscriber:
        publisher = make_publisher(broker.port, outbox := ListOutbox())
        payloads = fill(outbox, 5)
        drain(publisher, outbox)
        wait_for(lambda: subscriber.payloads(EVENT) == payloads, "all results")
        assert publisher.status().alarms == ("broker_without_retain",)
        assert states(subscriber, "agent")[0]["online"]
        publisher.close("test")


def test_a_result_that_nobody_listens_to_is_acknowledged_and_an_alarm_says_so(broker: Broker) -> None:
    """The broker has it and throws it away: only an alarm can tell, and it outlasts the moment."""
    outbox, clock = ListOutbox(), FastClock(speed=1.0)
    publisher = Publisher(make_config(broker.port), outbox, clock=clock, stall_seconds=PATIENT_SECONDS)
    with Subscriber(broker.port):
        fill(outbox, 3)
        drain(publisher, outbox)
        assert publisher.status().alarms == ()
    fill(outbox, 2)
    drain(publisher, outbox)
    assert publisher.status().nobody_listening
    assert publisher.status().unheard == 2
    assert publisher.status().alarms == ("nobody_listening",)
    with Subscriber(broker.port):
        fill(outbox, 1)
        drain(publisher, outbox)
    assert not publisher.status().nobody_listening
    assert publisher.status().alarms == ("nobody_listening",), "a burst into the void is over in a second"
    clock.forward_seconds = 601.0
    publisher.step(0.0)
    assert publisher.status().alarms == ()
    publisher.close("test")


def test_one_camera_that_nobody_subscribes_to_is_not_hidden_by_another(broker: Broker) -> None:
    """The alarm is about each topic of results, not about the last message."""
    outbox = ListOutbox()
    publisher = make_publisher(broker.port, outbox)
    with Subscriber(broker.port, EVENT):
        fill(outbox, 1, topic="event/strip/side")
        fill(outbox, 1)
        drain(publisher, outbox)
        assert publisher.status().nobody_listening
    publisher.close("test")


class BrokerWithHugePacket:
    """Accepts a connection, then announces a PUBLISH of 200 MB and sends as much of it as is taken."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with self._listener, connection:
            connection.recv(4096)
            connection.sendall(b"\x20\x03\x00\x00\x00")
            length, header = 200_000_000, b"\x30"
            while length:
                length, digit = divmod(length, 128)
                header += bytes([digit | (128 if length else 0)])
            connection.sendall(header)
            try:
                while self.sent_bytes < 200_000_000:
                    self.sent_bytes += connection.send(bytes(65536))
            except OSError:
                return


def test_a_packet_above_the_announced_limit_ends_the_connection_before_it_costs_memory() -> None:
    """200 MB are announced; the agent hangs up at the length and reads none of it."""
    huge = BrokerWithHugePacket()
    publisher = make_publisher(huge.port, protocol="5")
    step_until(publisher, lambda: "200000000 bytes" in publisher.status().last_error, "it hung up and says why")
    huge.thread.join(120)
    assert not huge.thread.is_alive()
    assert huge.sent_bytes < 30_000_000  # what fits into the buffers of both sockets
    publisher.close("test")


def test_a_broker_that_hangs_up_on_every_clearing_costs_three_connections_at_most(
    broker: Broker, tmp_path: Path
) -> None:
    """`retain: false` on a broker that cannot retain: one topic is enough to know that, and no alarm comes of it."""
    file = tmp_path / "broker.json"
    with TcpProxy(broker.port) as proxy:
        old = [f"strip-agent/old/state/last_strip/{number}" for number in range(10)]
        file.write_text(json.dumps({"connections": 0, "topics": {f"127.0.0.1:{proxy.port}": old}}))
        config, outbox = make_config(proxy.port, retain=False), ListOutbox()
        publisher = Publisher(
            config, outbox, clock=FastClock(), jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS, retained_file=file
        )
        proxy.forbidden = b"strip-agent/old/"
        step_until(publisher, lambda: len(publisher._retained._given_up) == len(old), "all are given up")
        fill(outbox, 20)
        drain(publisher, outbox)
        assert proxy.accepted <= 4
        assert not outbox.parked
        assert all(topic in file.read_text() for topic in old), "the next start tries again"
        publisher.close("test")


def test_without_retain_every_connection_brings_all_states_and_a_will_none_of_them_kept(
    broker: Broker, tmp_path: Path
) -> None:
    """Who is subscribed sees the same as ever; who comes later sees nothing old."""
    file = tmp_path / "broker.json"
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        publisher = a_box(proxy.port, file, ("top",), retain=False)
        for connection in (1, 2):
            step_until(publisher, lambda: all_sent(publisher), "all is sent")
            for topic in ("agent", "health", "model/default", "last_strip/top"):
                wait_for(lambda topic=topic: len(subscriber.messages(STATE + topic)) >= connection, topic)  # type: ignore[misc] # noqa: B023 - used at once
            proxy.cut()
            wait_for(lambda: len(states(subscriber, "agent")) == 2 * connection, "the will")  # noqa: B023 - used at once
            step_until(publisher, lambda: not publisher.status().connected, "it noticed")
        assert [state["online"] for state in states(subscriber, "agent")] == [True, False] * 2
        assert not any(message.retain for message in subscriber.messages(STATE))
        connect(publisher)
        publisher.close("test")
    assert retained(broker.port) == set()
    assert json.loads(file.read_bytes())["topics"] == {}


def test_delivery_is_proven_without_retain_over_old_mqtt(broker: Broker, tmp_path: Path) -> None:
    """The echo is a live message, not a kept one."""
    publisher = a_box(broker.port, tmp_path / "broker.json", ("top",), retain=False, protocol="3.1.1")
    step_until(publisher, lambda: publisher.status().delivery == "verified", "what was sent has come back")
    assert publisher.status().alarms == ()
    publisher.close("test")
