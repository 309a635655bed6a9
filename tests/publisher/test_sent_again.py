"""What somebody asked for again: behind everything else, and never lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.publishing import (
    EVENT,
    drain,
    fill,
    in_first_seen_order,
    make_publisher,
    needs_mosquitto,
    step_until,
)
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.outbox import ListOutbox

REPLAY = "strip-agent/insp1/replay/strip/top"


def ask_again(outbox: ListOutbox, number: int) -> list[bytes]:
    """Ask for so many results again; return their payloads."""
    payloads = [b'{"schema":"strip-result/1","again":%d}' % n for n in range(number)]
    for payload in payloads:
        outbox.ask_again("replay/strip/top", payload)
    return payloads


def test_replays_go_behind_all_that_waits_and_live_results_pass_them(broker: Broker, outbox: ListOutbox) -> None:
    """A consumer that asks for thousands of results holds up nobody's live ones."""
    with Subscriber(broker.port, "strip-agent/#") as subscriber:
        again = ask_again(outbox, 500)
        waiting = fill(outbox, 50)
        publisher = make_publisher(broker.port, outbox)
        step_until(publisher, lambda: len(outbox.replays) < 450, "the first are sent again")
        assert not outbox.pending, "all that waited went first"
        live = fill(outbox, 5)
        drain(publisher, outbox)
        assert len(outbox.replays) > 300, "it did not wait for them"
        step_until(publisher, lambda: not outbox.replays, "all are sent again")
        wait_for(lambda: again[-1] in subscriber.payloads(REPLAY), "the last one")
        assert in_first_seen_order(subscriber.payloads(REPLAY)) == again
        assert in_first_seen_order(subscriber.payloads(EVENT)) == waiting + live
        publisher.close("test")


def test_replays_survive_cuts(broker: Broker, outbox: ListOutbox) -> None:
    """Each arrives; repeats carry the same bytes."""
    with TcpProxy(broker.port) as proxy, Subscriber(broker.port, "strip-agent/#") as subscriber:
        again = ask_again(outbox, 200)
        publisher = make_publisher(proxy.port, outbox)
        for left in (150, 100, 50):
            step_until(publisher, lambda left=left: len(outbox.replays) < left, "some are sent")  # type: ignore[misc]
            proxy.cut()
        step_until(publisher, lambda: not outbox.replays, "all are sent again")
        wait_for(lambda: set(again) == set(subscriber.payloads(REPLAY)), "all have arrived")
        publisher.close("test")


@needs_mosquitto  # access lists
def test_replays_that_the_broker_refuses_hold_up_no_results(tmp_path: Path, outbox: ListOutbox) -> None:
    """Their topic rests like any other that is denied; they come once it is allowed."""
    file = tmp_path / "acl"
    file.write_text("topic readwrite strip-agent/insp1/event/#\ntopic readwrite strip-agent/insp1/state/#\n")
    file.chmod(0o600)
    config = f"allow_anonymous true\nacl_file {file}"
    with Broker(tmp_path, config) as broker:
        again = ask_again(outbox, 100)
        publisher = make_publisher(broker.port, outbox)
        step_until(publisher, lambda: "not_authorized" in publisher.status().alarms, "it is refused")
        fill(outbox, 50)
        drain(publisher, outbox)
        assert len(outbox.replays) == 100
        file.write_text("topic readwrite strip-agent/#\n")
        broker.reload(config)
        with Subscriber(broker.port, "strip-agent/#") as subscriber:
            step_until(publisher, lambda: not outbox.replays, "all are sent again")
            wait_for(lambda: set(again) <= set(subscriber.payloads(REPLAY)), "all have arrived")
        publisher.close("test")
