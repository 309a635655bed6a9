"""Commands come in only where that was asked for, and answers get out, whatever the link and the broker do."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Literal

import pytest

from agent import mqtt
from agent.publisher import Publisher
from agent.publisher.answers import KEPT_SECONDS, WAITING, Answer, Answers
from agent.publisher.subscriptions import FIRST_REST_SECONDS, Subscriptions
from tests.helpers.asking import Asker
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.publishing import (
    EVENT,
    HANGS_UP,
    PATIENT_SECONDS,
    FastClock,
    acl,
    connect,
    drain,
    fill,
    make_config,
    needs_mosquitto,
    step_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.outbox import ListOutbox

BASE = "strip-agent/insp1"
PROTOCOLS = pytest.mark.parametrize("protocol", [pytest.param("5", marks=needs_mosquitto), "3.1.1"])
Protocol = Literal["5", "3.1.1"]


class Heard:
    """What a publisher was sent on the topics it subscribed to."""

    def __init__(self) -> None:
        self.messages: list[mqtt.Received] = []
        self.passed_over = 0

    def __call__(self, message: mqtt.Received | mqtt.PassedOver) -> None:
        """Take a message."""
        if isinstance(message, mqtt.Received):
            self.messages.append(message)
        else:
            self.passed_over += message.number


def make(
    port: int, heard: Heard, outbox: ListOutbox, protocol: Protocol, clock: Callable[[], float] = time.monotonic
) -> Publisher:
    """Make a publisher that takes the command `pause`."""
    config = make_config(port, protocol=protocol)
    return Publisher(
        config, outbox, jitter=lambda: 0.0, stall_seconds=PATIENT_SECONDS, on_message=heard, subscribe_to=["cmd/pause"],
        clock=clock,
    )  # fmt: skip


def settle(publisher: Publisher) -> None:
    """Step until connected, subscribed, and proven to be: the broker answers in order."""
    connect(publisher)
    step_until(publisher, lambda: publisher._presence.birth_arrived, "the birth is answered")


@PROTOCOLS
def test_a_command_comes_in_and_its_answer_gets_out(broker: Broker, outbox: ListOutbox, protocol: Protocol) -> None:
    """Over MQTT 5 with where the answer is to go and the data that it is to carry."""
    heard = Heard()
    publisher = make(broker.port, heard, outbox, protocol)
    with Asker(broker.port, BASE, protocol) as asker:
        settle(publisher)
        asker.ask("pause", b"please", to=f"{BASE}/rsp/me", correlation=b"\0\xff")
        step_until(publisher, lambda: heard.messages, "the command")
        [message] = heard.messages
        assert (message.topic, message.payload, message.retain) == (f"{BASE}/cmd/pause", b"please", False)
        properties = (message.response_topic, message.correlation)
        assert properties == ((f"{BASE}/rsp/me", b"\0\xff") if protocol == "5" else ("", b""))
        publisher.answer(Answer(f"{BASE}/rsp/me", b'{"schema":"command-result/1"}', b"\0\xff"))
        step_until(publisher, lambda: asker.answers, "the answer")
        assert asker.answers[0].payload == b'{"schema":"command-result/1"}'
        assert asker.answers[0].correlation == (b"\0\xff" if protocol == "5" else b"")
        assert not asker.answers[0].retain
    publisher.close("test")


@PROTOCOLS
def test_an_outage_between_command_and_answer_costs_no_answer(
    broker: Broker, outbox: ListOutbox, protocol: Protocol
) -> None:
    """It is kept until the broker is back, and goes out once."""
    heard = Heard()
    publisher = make(broker.port, heard, outbox, protocol)
    with Asker(broker.port, BASE, protocol) as asker:
        settle(publisher)
        asker.ask("pause", b"please")
        step_until(publisher, lambda: heard.messages, "the command")
        asker.subscribed.clear()
        broker.stop()
        publisher.answer(Answer(f"{BASE}/rsp/pause", b"{}"))
        step_until(publisher, lambda: not publisher.status().connected, "the link is down")
        broker.start()
        assert asker.subscribed.wait(120), "it is back"
        step_until(publisher, lambda: asker.answers, "the answer")
        results = fill(outbox, 3)
        drain(publisher, outbox)
        assert len(results) == 3
        assert [answer.payload for answer in asker.answers] == [b"{}"]
    publisher.close("test")


@needs_mosquitto
def test_only_what_is_listed_is_subscribed(tmp_path: Path, outbox: ListOutbox) -> None:
    """The broker's own log says so."""
    with Broker(tmp_path, "allow_anonymous true\nlog_type all") as broker:
        for listed in ([], ["cmd/pause"]):
            publisher = Publisher(
                make_config(broker.port), outbox, jitter=lambda: 0.0, on_message=Heard(), subscribe_to=listed
            )
            settle(publisher)
            publisher.close("test")
            subscribed = re.findall(r"^\d+: \t(\S+) \(QoS", broker.log, re.MULTILINE)
            assert set(subscribed) == {f"{BASE}/state/agent", *(f"{BASE}/{topic}" for topic in listed)}


@PROTOCOLS
def test_a_retained_command_is_known_for_one(broker: Broker, outbox: ListOutbox, protocol: Protocol) -> None:
    """It comes again on every connection. Over MQTT 5 also one that was just sent is told from others."""
    with Asker(broker.port, BASE, protocol) as asker:
        asker.ask("pause", b"kept", retain=True).wait_for_publish(60)
        for number in (1, 2):
            heard = Heard()
            publisher = make(broker.port, heard, outbox, protocol)
            step_until(publisher, lambda: heard.messages, "what the broker kept")  # noqa: B023 - it is called at once
            assert heard.messages == [mqtt.Received(f"{BASE}/cmd/pause", b"kept", retain=True)], number
            asker.ask("pause", b"kept", retain=True)
            step_until(publisher, lambda: len(heard.messages) == 2, "what comes live")  # noqa: B023
            assert heard.messages[1].retain == (protocol == "5")
            publisher.close("test")


@needs_mosquitto
@pytest.mark.parametrize("hangs_up", ["", HANGS_UP], ids=["answers", "hangs up"])
def test_an_answer_that_the_broker_denies_holds_up_no_result(tmp_path: Path, outbox: ListOutbox, hangs_up: str) -> None:
    """It is given up and counted; nothing else takes the blame for it."""
    allowed = ["topic readwrite strip-agent/insp1/state/#", "topic readwrite strip-agent/insp1/event/#"]
    with Broker(tmp_path, acl(tmp_path, *allowed, "topic read strip-agent/#") + hangs_up) as broker:
        clock = FastClock()
        publisher = make(broker.port, Heard(), outbox, "5", clock)
        settle(publisher)
        publisher.answer(Answer(f"{BASE}/rsp/pause", b"{}"))
        step_until(publisher, lambda: publisher.status().answers_lost == 1, "it is given up")
        with Subscriber(broker.port) as subscriber:
            sent = fill(outbox, 20)
            drain(publisher, outbox)
            wait_for(lambda: set(sent) <= set(subscriber.payloads(EVENT)), "all results")
        assert outbox.parked == {}
        assert publisher.status().answers_lost == 1
        publisher.close("test")


def test_a_flood_is_counted_to_the_last_message(broker: Broker, outbox: ListOutbox) -> None:
    """What comes faster than it can be taken is passed over, and it is known how much that was."""
    heard = Heard()
    publisher = make(broker.port, heard, outbox, "3.1.1")
    with Asker(broker.port, BASE, "3.1.1") as asker:
        settle(publisher)
        sent = [asker.ask("pause", b"%d" % number) for number in range(5000)]
        sent[-1].wait_for_publish(120)
        connection = publisher._link.connection
        assert connection is not None
        wait_for(lambda: connection._listener.passed_over > 0, "more has come than is kept, and nothing was taken")
        step_until(publisher, lambda: len(heard.messages) + heard.passed_over >= 5000, "all are accounted for")
    assert len(heard.messages) + heard.passed_over == 5000
    assert heard.passed_over > 0
    publisher.close("test")


def test_a_subscription_that_is_denied_is_an_alarm() -> None:
    """Else somebody gives a command for months and nothing ever happens. A new connection begins anew."""

    class Link:
        def __init__(self) -> None:
            self.topics: list[str] = []

        def subscribe(self, topic: str, *, retain_as_published: bool) -> int:
            assert retain_as_published
            self.topics.append(topic)
            return len(self.topics)

    subscriptions = Subscriptions(["a/cmd/pause", "a/cmd/resume"], None)
    link = Link()
    subscriptions.step(link, 0.0, calm=True)  # type: ignore[arg-type] # all that it needs of a connection
    assert link.topics == ["a/cmd/pause", "a/cmd/resume"]
    subscriptions.take(mqtt.Subscribed(1, 1, "Granted QoS 1"))
    denied = [subscriptions.denied]
    subscriptions.take(mqtt.Subscribed(99, mqtt.NOT_AUTHORIZED, "of another topic"))
    denied.append(subscriptions.denied)
    subscriptions.take(mqtt.Subscribed(2, mqtt.NOT_AUTHORIZED, "Not authorized"))
    denied.append(subscriptions.denied)
    subscriptions.end(mqtt.Ended(reached=True, code=None, text="cut"), 1.0)
    subscriptions.step(link, 2.0, calm=False)  # type: ignore[arg-type]
    assert len(link.topics) == 2, "the connection has to last first"
    subscriptions.step(link, 2.0, calm=True)  # type: ignore[arg-type]
    denied.append(subscriptions.denied)
    assert denied == [False, False, True, False]


@PROTOCOLS
def test_a_retained_message_that_nobody_could_read_does_not_keep_the_box_off(
    broker: Broker, outbox: ListOutbox, protocol: Protocol
) -> None:
    """It would end every connection: who may give one command could stop all results for ever."""
    clock = FastClock(0.5)
    publisher = make(broker.port, heard := Heard(), outbox, protocol, clock)
    with Asker(broker.port, BASE, protocol) as asker, Subscriber(broker.port, "strip-agent/#") as subscriber:
        asker.ask("pause", b"x" * 70_000, retain=True).wait_for_publish(60)
        sent = fill(outbox, 20)
        drain(publisher, outbox)
        wait_for(lambda: set(sent) <= set(subscriber.payloads(EVENT)), "all results")
        if protocol == "3.1.1":
            assert publisher.status().alarms == ("commands_suspended",)
            asker.ask("pause", b"", retain=True).wait_for_publish(60)
            clock.forward_seconds += FIRST_REST_SECONDS
            step_until(publisher, lambda: not publisher.status().alarms, "commands are taken again")
            step_until(publisher, lambda: not publisher._subscriptions._asked, "the broker has granted it")
            asker.ask("pause", b"please")
            step_until(publisher, lambda: heard.messages, "the command")
    publisher.close("test")


def test_answers_are_bounded_in_number_and_in_time() -> None:
    """Without a broker they must not fill the memory, nor arrive hours later."""

    class Link:
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def publish(self, _topic: str, payload: bytes, _schema: str, **_: object) -> int:
            self.sent.append(payload)
            return len(self.sent)

    clock = FastClock(0.0)
    clock.forward_seconds = 1.0
    answers, link = Answers(clock), Link()
    for number in range(WAITING + 5):
        answers.add(Answer("t", b"%d" % number))
    answers.send(link, 1)  # type: ignore[arg-type] # all that it needs of a connection
    assert (link.sent, answers.lost) == ([b"5"], 5)
    answers.end()
    clock.forward_seconds += KEPT_SECONDS + 1
    answers.add(Answer("t", b"new"))
    answers.send(link, 10)  # type: ignore[arg-type]
    assert (link.sent, answers.lost) == ([b"5", b"new"], 5 + WAITING)
