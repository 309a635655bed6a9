"""The publisher's parts that need no broker: what is sent next, whatever was answered before."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import mqtt
from agent.publisher.audience import Audience
from agent.publisher.echo import Echo
from agent.publisher.flow_control import WINDOW, FlowControl
from agent.publisher.holds import FIRST_SECONDS, LONGEST_SECONDS, Holds
from agent.publisher.inflight import Inflight
from agent.publisher.poison import after_hanging_up
from agent.publisher.states import SPACING_SECONDS, States
from tests.helpers.outbox import ListOutbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.records import OutboxMessage


def never_held(_topic: str) -> bool:
    """No topic is refused."""
    return False


def test_only_the_latest_value_of_a_state_is_sent() -> None:
    """What was replaced before it was sent is not sent."""
    states = States()
    for number in range(100):
        states.set("state/health", b"%d" % number)
    assert states.take(0.0, 10, never_held) == [("state/health", b"99")]
    assert states.take(0.0, 10, never_held) == []


def test_a_state_that_did_not_change_is_not_sent_again() -> None:
    """Setting the same value costs nothing."""
    states = States()
    assert states.set("state/health", b"1")
    states.take(0.0, 10, never_held)
    states.answered("state/health", taken=True)
    assert not states.set("state/health", b"1")
    assert states.take(100.0, 10, never_held) == []
    assert states.all_sent(never_held)


def test_a_state_that_changes_while_it_is_under_way_is_sent_afterwards() -> None:
    """The last value always arrives, and never twice at a time."""
    states = States()
    states.set("state/health", b"1")
    states.take(0.0, 1, never_held)
    states.set("state/health", b"2")
    assert states.take(1.0, 1, never_held) == []
    states.answered("state/health", taken=True)
    assert states.take(SPACING_SECONDS / 2, 1, never_held) == []
    assert states.next_due(0.05) == pytest.approx(SPACING_SECONDS)
    assert states.next_due(SPACING_SECONDS) is None
    assert states.take(SPACING_SECONDS, 1, never_held) == [("state/health", b"2")]


def test_a_new_connection_gets_every_state_again() -> None:
    """The broker may have forgotten what it had."""
    states = States()
    states.set("state/agent", b"1")
    states.set("state/health", b"2")
    states.take(0.0, 10, never_held)
    states.send_all_again()
    assert states.take(0.0, 10, never_held) == [("state/agent", b"1"), ("state/health", b"2")]


def test_a_refused_topic_rests_longer_each_time_and_never_longer_than_a_minute() -> None:
    """A refusing broker is not flooded, and a corrected one is noticed soon."""
    holds, now, rests = Holds(), 0.0, []
    holds.refuse("event/strip/top", "not_authorized", now)
    for _ in range(10):
        started = now
        while holds.held("event/strip/top"):
            now += 0.5
            holds.wake(now)
        rests.append(now - started)
        holds.sent("event/strip/top")
        assert holds.held("event/strip/top"), "one message at a time while it is tried"
        holds.refuse("event/strip/top", "not_authorized", now)
    assert rests[0] == FIRST_SECONDS
    assert rests == sorted(rests)
    assert rests[-1] == LONGEST_SECONDS
    assert holds.alarms == {"not_authorized"}
    holds.accept("event/strip/top")
    assert not holds.held("event/strip/top")
    assert holds.alarms == set()


def test_one_refused_topic_is_tried_at_a_time() -> None:
    """When the broker hangs up, it is known on what, and the other one has its turn."""
    holds = Holds()
    for topic in ("event/strip/top", "event/strip/side"):
        holds.refuse(topic, "publish_refused", 0.0)
    holds.keep_back("event/strip/side", 2)
    holds.wake(10.0)
    holds.sent("event/strip/top", 1)
    assert holds.held("event/strip/side")
    holds.keep_back("event/strip/side", 2)
    assert holds.wake(11.0) is None
    assert holds.hung_up(12.0) == (1, 1)
    holds.begin(13.0)
    assert holds.next_due(13.0) == 13.0 + FIRST_SECONDS
    assert holds.wake(13.5) is None, "what is not held comes first on a new connection"
    assert holds.held("event/strip/side")
    holds.refuse("event/strip/top", "publish_refused", 13.5)  # it rests already
    assert holds.wake(13.0 + FIRST_SECONDS) == 2
    assert not holds.held("event/strip/side")


def test_a_topic_that_waits_for_nothing_is_no_alarm() -> None:
    """Its last message was parked or dropped; the next may come in months."""
    holds = Holds()
    holds.refuse("event/model/default", "publish_refused", 0.0)
    holds.keep_back("event/model/default", 1)
    assert holds.alarms == {"publish_refused"}
    holds.wake(10.0)
    holds.sent("event/model/default", 1)
    assert holds.alarms == {"publish_refused"}
    holds.try_another("event/model/default")
    holds.wake(11.0)
    assert holds.alarms == set()
    holds.sent("event/model/default", 2)
    assert holds.alarms == {"publish_refused"}, "again, until it is answered"


class _NoBroker:
    """Takes subscriptions."""

    def subscribe(self, topic: str) -> None:
        """Subscribe to nothing."""

    def unsubscribe(self, topic: str) -> None:
        """Unsubscribe from nothing."""


def _echo(doubts: dict[str, int] | None = None, *, used: str = "") -> Echo:
    """Make a connection whose birth came back, and perhaps use a topic on which nothing does."""
    echo = Echo(cast("mqtt.Connection", _NoBroker()), "state/agent", doubts)
    echo.before_publish("state/agent", b"birth")
    echo.received("state/agent", b"birth")
    if used:
        echo.before_publish(used, b"message")
    return echo


def test_a_single_cut_before_an_echo_leaves_no_doubt() -> None:
    """The topic may be used again in months only."""
    cut = _echo(used="event/model/default")
    assert not cut.complete
    assert not cut.leaves_doubt
    assert _echo(cut.left_unproven()).complete


def test_a_topic_that_two_connections_left_unproven_is_in_doubt_until_it_is_proven() -> None:
    """A broker that hangs up on what it denies is told, also when other connections come between."""
    once = _echo(_echo(used="event/strip/top").left_unproven())
    twice = _echo(once.left_unproven(), used="event/strip/top")
    assert twice.leaves_doubt
    later = _echo(twice.left_unproven())
    assert later.unproven == {"event/strip/top"}
    later.before_publish("event/strip/top", b"another")
    later.received("event/strip/top", b"another")
    assert later.complete
    assert not later.left_unproven()


def test_no_more_is_sent_while_too_many_acknowledgements_are_not_recorded() -> None:
    """An outbox that reads but does not write: after a crash all of these would be sent twice, so there is a limit."""
    run = _Run(["event/strip/top"] * 1000)
    for _ in range(1000):
        run.send()  # and `record` is never called
        while run.under_way:
            run.answer("accept")
    assert 200 < len(run.delivered) < 300
    run.inflight.record(run.now)
    run.finish(lambda: len(run.outbox.acknowledged) == 1000)
    assert len(run.delivered) == 1000


class _Run:
    """A window, an outbox and a broker that answers as hypothesis says."""

    def __init__(self, topics: list[str], *, hold_until_subscribed: bool = False) -> None:
        self.outbox = ListOutbox()
        self.audience = Audience(holds=hold_until_subscribed)
        self.listening = False  # somebody subscribes, on this connection
        for topic in topics:
            self.outbox.add(topic, b"x")
        self.inflight, self.holds, self.flow = Inflight(self.outbox), Holds(), FlowControl()
        self.flow.state_answered()
        self.now, self.packet_id = 0.0, 0
        self.under_way: dict[int, OutboxMessage] = {}
        self.sent_on_this_connection: set[int] = set()
        self.delivered: list[OutboxMessage] = []

    def send(self) -> None:
        self.now += FIRST_SECONDS
        self.inflight.go_back(self.holds.wake(self.now))
        for message in self._take():
            assert message.row not in self.sent_on_this_connection, "sent twice on one connection"
            self.sent_on_this_connection.add(message.row)
            self.packet_id += 1
            self.under_way[self.packet_id] = message
            self.inflight.sent(self.packet_id, message)

    def _take(self) -> list[OutboxMessage]:
        room = min(4, self.flow.size) - len(self.under_way)
        return self.inflight.take(room, self.holds, self.audience, self.now)

    def answer(self, reply: str) -> None:
        if reply == "hang up":
            self.hang_up(None)
        elif reply == "cut":
            self._begin_again()
        if reply in {"outbox fails", "outbox works"}:
            self.outbox.broken = reply == "outbox fails"
        if not self.under_way:
            return
        packet_id = min(self.under_way)
        if reply == "accept":
            self.listening = True
            self._accept(packet_id)
        elif reply == "nobody" and self.listening:
            self._accept(packet_id)
        elif reply in {"refuse", "nobody"}:
            message = self._answered(packet_id)
            self.audience.answered(message.topic, heard=False)
            self.sent_on_this_connection.discard(message.row)
            self.inflight.put_back(message)
            self.holds.refuse(message.topic, "not_authorized", self.now)
            self.holds.keep_back(message.topic, message.row)
        elif reply == "never":
            message = self._answered(packet_id)
            self.audience.answered(message.topic, heard=False)
            self.inflight.refused_for_ever(message, "too_large", "")
            self.inflight.go_back(self.holds.try_another(message.topic))

    def hang_up(self, code: int | None) -> None:
        end = mqtt.Ended(reached=True, code=code, text="")
        after_hanging_up(end, self.inflight, {}, set(), self.flow, self.holds, self.now)
        self._begin_again()

    def _begin_again(self) -> None:
        self.under_way.clear()
        self.sent_on_this_connection.clear()
        self.listening = False
        self.inflight.start_again()
        self.audience.begin()
        self.holds.begin(self.now)
        self.flow.begin(16)
        self.flow.state_answered()

    def _accept(self, packet_id: int) -> None:
        message = self._answered(packet_id)
        self.flow.outbox_answered()
        self.audience.answered(message.topic, heard=True)
        self.delivered.append(message)
        self.inflight.acknowledged(message)
        self.inflight.go_back(self.holds.accept(message.topic))

    def _answered(self, packet_id: int) -> OutboxMessage:
        message = self.inflight.answered(packet_id)
        assert message == self.under_way.pop(packet_id)
        return message

    def finish(self, done: Callable[[], bool]) -> None:
        self.outbox.broken = False
        for _ in range(400):
            self.send()
            while self.under_way:
                self._accept(min(self.under_way))
            self.inflight.record(self.now)
            self.now += 60.0
            if done():
                return
        raise AssertionError("it never ends")


@example(topics=["a"] * 6, replies=["accept", "refuse", "accept", "accept", "accept"])
@example(topics=["a", "b", "b", "b", "a"], replies=["refuse", "accept", "accept", "accept", "never"])
@given(
    topics=st.lists(st.sampled_from(["event/strip/top", "event/strip/side", "event/model/default"]), max_size=40),
    replies=st.lists(
        st.sampled_from(["accept", "accept", "refuse", "never", "cut", "hang up", "outbox fails", "outbox works"]),
        max_size=60,
    ),
)
def test_whatever_the_broker_and_the_disk_do_every_message_is_delivered_or_parked(
    topics: list[str], replies: list[str]
) -> None:
    """No row is forgotten, none is delivered twice on one connection, and all are in the end."""
    run = _Run(topics)
    for reply in replies:
        run.send()
        run.answer(reply)
        run.inflight.record(run.now)
    run.finish(lambda: not run.outbox.pending)
    assert {message.row for message in run.delivered} | set(run.outbox.parked) == set(range(1, len(topics) + 1))
    assert sorted(run.outbox.acknowledged) == sorted(set(run.outbox.acknowledged))
    assert set(run.outbox.acknowledged).isdisjoint(run.outbox.parked)


@given(
    topics=st.lists(st.sampled_from(["event/strip/top", "event/strip/side"]), max_size=40),
    replies=st.lists(st.sampled_from(["accept", "cut", "outbox fails", "outbox works"]), max_size=60),
)
def test_without_refusals_first_deliveries_are_in_the_order_of_the_outbox(
    topics: list[str], replies: list[str]
) -> None:
    """Cuts bring repeats, never another order."""
    run = _Run(topics)
    for reply in replies:
        run.send()
        run.answer(reply)
        run.inflight.record(run.now)
    run.finish(lambda: not run.outbox.pending)
    first = list(dict.fromkeys(message.row for message in run.delivered))
    assert first == sorted(first)


@example(topics=["event/strip/top"] * 4, replies=["nobody", "nobody", "accept"])
@given(
    topics=st.lists(st.sampled_from(["event/strip/top", "event/strip/side"]), max_size=40),
    replies=st.lists(st.sampled_from(["nobody", "nobody", "accept", "never", "cut"]), max_size=60),
)
def test_whenever_a_subscriber_comes_what_was_held_for_it_arrives_in_order(
    topics: list[str], replies: list[str]
) -> None:
    """Also when it comes while a window is under way: of each topic the first message goes alone."""
    run = _Run(topics, hold_until_subscribed=True)
    for reply in replies:
        run.send()
        run.answer(reply)
        run.inflight.record(run.now)
    run.finish(lambda: not run.outbox.pending)
    for topic in set(topics):
        first = list(dict.fromkeys(message.row for message in run.delivered if message.topic == topic))
        assert first == sorted(first)
    assert {message.row for message in run.delivered} | set(run.outbox.parked) == set(range(1, len(topics) + 1))


def test_a_long_queue_for_a_refused_topic_does_not_keep_others_waiting() -> None:
    """One denied camera does not stop the rest."""
    run = _Run(["event/strip/top"] * 3000 + ["event/strip/side"])
    run.send()
    run.answer("refuse")
    for _ in range(3):
        run.answer("refuse")
    for _ in range(20):
        run.now -= FIRST_SECONDS  # no time passes: the topic keeps resting
        run.send()
        if run.under_way:
            break
    assert [message.topic for message in run.under_way.values()] == ["event/strip/side"]


def test_a_broker_that_hangs_up_on_one_held_topic_gets_the_other() -> None:
    """Both were refused once; none of the allowed camera's results is parked because of the denied one."""
    denied, allowed = "event/strip/top", "event/strip/side"
    run = _Run([allowed, denied] * 20)
    for topic in (denied, allowed):
        run.holds.refuse(topic, "publish_refused", run.now)
    for _ in range(2000):
        run.send()
        if denied in {message.topic for message in run.under_way.values()}:
            run.answer("hang up")  # with its last answers lost
        while run.under_way:
            run.answer("accept")
        run.inflight.record(run.now)
    assert [message.row for message in run.delivered] == list(range(1, 40, 2))
    assert run.outbox.parked, "the denied one's are, one by one"
    assert all(row % 2 == 0 for row in run.outbox.parked)


@pytest.mark.parametrize(
    "code", [mqtt.SERVER_BUSY, mqtt.SERVER_SHUTTING_DOWN, mqtt.SESSION_TAKEN_OVER, mqtt.ADMINISTRATIVE_ACTION]
)
@pytest.mark.parametrize("held", [True, False])
def test_a_broker_that_says_why_it_hangs_up_blames_no_message(code: int, held: bool) -> None:
    """A broker that is busy, shut down or told to by a person says nothing about what is under way."""
    run = _Run(["event/strip/top"])
    if held:
        run.holds.refuse("event/strip/top", "publish_refused", run.now)
    hung_up = 0
    for _ in range(1000):
        run.send()
        if run.under_way:
            run.hang_up(code)
            hung_up += 1
        run.inflight.record(run.now)
    assert hung_up >= 10
    assert not run.outbox.parked
    assert held or not run.holds.alarms


@pytest.mark.parametrize(("answer_id", "blamed"), [(1, False), (9, True)])
def test_a_broker_that_hangs_up_on_an_answer_blames_no_result(answer_id: int, *, blamed: bool) -> None:
    """The oldest message is to blame; when that is an answer to a command, results keep their window."""
    outbox = ListOutbox()
    outbox.add("event/strip/top", b"")
    inflight, flow, holds = Inflight(outbox), FlowControl(), Holds()
    for connection in range(4):
        flow.begin(WINDOW)
        flow.state_answered()
        inflight.start_again()
        [message] = inflight.take(1, holds, Audience(holds=False), 100.0 * connection)
        inflight.sent(5, message)
        end = mqtt.Ended(reached=True, code=None, text="")
        after_hanging_up(end, inflight, {}, {answer_id}, flow, holds, 100.0 * connection)
    assert (flow.size < WINDOW) == blamed
    assert holds.alarms == set()
